# Windows of triplets: the same place in all pictures, the same for the same seed, and what is said
# of pictures that cannot be read.
import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from fixers.tiling import Tile, cut, pad
from training.lists import list_pictures, select_usable
from training.order import MicroBatches, Order
from training.stage import Broken
from training.triplets import TripletDataset, collate
from triplets import manifest
from triplets.manifest import Reference, Triplet, View
from triplets.pictures import read_image, resize, resize_planes
from triplets.windows import cut_window

RENDER, TRUTH, GUIDE = 10, 20, 30  # the blue of each picture
IDENTITY = tuple(tuple(float(r == c) for c in range(4)) for r in range(4))


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def mapped(height: int, width: int, blue: int) -> np.ndarray:
    """A picture that tells of each pixel its row (red), its column (green) and the picture."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return np.stack((rows, columns, np.full_like(rows, blue)), -1).astype(np.uint8)


def triplet(folder: Path, height=120, width=160, key="a", references=1, **changes) -> Triplet:
    files = {
        name: save(folder / key / f"{name}.png", mapped(height, width, blue))
        for name, blue in (("render", RENDER), ("gt", TRUTH))
    }
    guides = [
        Reference(save(folder / key / f"ref{i}.png", mapped(height, width, GUIDE + i)))
        for i in range(references)
    ]
    return Triplet(
        **{
            "key": key,
            "render": files["render"],
            "truth": files["gt"],
            "references": tuple(guides),
            **changes,
        }
    )


def place(picture: torch.Tensor) -> tuple[int, int, int]:
    """Top, left and the blue of a window of a mapped picture, which must be one whole window."""
    numbers = (picture * 255).round().long()
    top, left, blue = numbers[0, 0].tolist()
    rows = torch.arange(len(numbers))[:, None].expand(numbers.shape[:2])
    columns = torch.arange(numbers.shape[1])[None].expand(numbers.shape[:2])
    if numbers[0, -1, 1] < left:  # mirrored
        columns = -columns
    assert torch.equal(numbers[..., 0], top + rows)
    assert torch.equal(numbers[..., 1], left + columns)
    assert (numbers[..., 2] == blue).all()
    return top, left, blue


# windows ---------------------------------------------------------------------------------------


def test_all_pictures_are_cut_at_the_same_place(tmp_path):
    dataset = TripletDataset([triplet(tmp_path, references=3)], (48, 64), references=2)
    places = set()
    for seed in range(60):
        sample = dataset[0, seed]
        assert sample.views.shape == (3, 48, 64, 3)
        assert sample.truth.shape == (48, 64, 3)
        pictures = [*sample.views, sample.truth]
        placed = [place(picture) for picture in pictures]
        assert [blue for *_, blue in placed] == [RENDER, GUIDE, GUIDE + 1, TRUTH]
        assert len({at[:2] for at in placed}) == 1
        places.add(placed[0][:2])
    tops, lefts = zip(*places, strict=True)
    assert len(places) > 50
    assert 0 <= min(tops) < 8 < 64 < max(tops) <= 120 - 48
    assert 0 <= min(lefts) < 10 < 86 < max(lefts) <= 160 - 64


def test_every_place_comes_up_also_the_last(tmp_path):
    dataset = TripletDataset([triplet(tmp_path, 18, 17)], (16, 16), references=0)
    places = {place(dataset[0, seed].truth)[:2] for seed in range(150)}
    assert places == {(top, left) for top in range(3) for left in range(2)}


def test_without_references_there_is_the_render_alone(tmp_path):
    views = TripletDataset([triplet(tmp_path)], (48, 64), references=0)[0, 1].views
    assert place(views[0])[2] == RENDER
    assert len(views) == 1


def test_flips_mirror_all_together(tmp_path):
    one = triplet(tmp_path)
    dataset = TripletDataset([one], (48, 64), hflip=True)
    flipped = 0
    for seed in range(60):
        sample = dataset[0, seed]
        pictures = [*sample.views, sample.truth]
        assert len({place(p)[:2] for p in pictures}) == 1
        mirrored = [bool(p[0, 0, 1] > p[0, -1, 1]) for p in pictures]
        assert len(set(mirrored)) == 1
        flipped += mirrored[0]
    assert 15 < flipped < 45


@pytest.mark.parametrize("size", [(40, 160), (120, 50), (30, 20), (1, 1), (64, 64)])
def test_small_pictures_are_continued_as_the_fixer_does(tmp_path, size):
    window, stride = (64, 64), 8
    sample = TripletDataset([triplet(tmp_path, *size)], window)[0, 3]
    for picture, name in ((sample.views[0], "render"), (sample.truth, "gt")):
        whole = read_image(tmp_path / "a" / f"{name}.png")
        top, left, _ = (picture[0, 0] * 255).round().long().tolist()
        rows, columns = (max(n, window[0]) for n in size)
        padded = pad(whole.permute(2, 0, 1)[None], rows, columns)[0]
        expected = padded[:, top : top + 64, left : left + 64].permute(1, 2, 0)
        assert torch.equal(picture, expected)
        if size[0] <= 64 and size[1] <= 64:
            tile = cut(padded, Tile(0, 0), (64 // stride, 64 // stride), stride)
            assert torch.equal(picture, tile.permute(1, 2, 0))


def test_cut_continues_the_last_row_and_column():
    image = torch.arange(6.0).view(2, 3, 1).expand(2, 3, 3)
    part = cut_window(image, (0, 1), (3, 4))[..., 0]
    assert part.tolist() == [[1, 2, 2, 2], [4, 5, 5, 5], [4, 5, 5, 5]]


def test_squashing_is_the_fixer_s(tmp_path):
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (50, 90, 3), dtype=np.uint8) for _ in range(3)]
    files = [save(tmp_path / f"{i}.png", p) for i, p in enumerate(pixels)]
    one = Triplet("a", files[0], files[1], references=(Reference(files[2]),))
    sample = TripletDataset([one], (32, 48), fit="squash")[0, 1]
    got = collate([sample]).to("cpu")
    for view, file in zip(
        (*got.views[0], got.truth[0]), (files[0], files[2], files[1]), strict=True
    ):
        inside = read_image(file).permute(2, 0, 1)[None] * 2 - 1
        expected = resize_planes(inside, (32, 48))[0]
        torch.testing.assert_close(view, expected, atol=2e-5, rtol=0)
    assert torch.equal(resize(read_image(files[0]), 50, 90), read_image(files[0]))


def test_references_of_another_size_are_brought_to_the_render_s(tmp_path):
    one = triplet(tmp_path)
    small = save(tmp_path / "small.png", mapped(60, 80, GUIDE))
    one = replace(one, references=(Reference(small),), reference=small)
    sample = TripletDataset([one], (48, 64))[0, 5]
    top, left, _ = place(sample.truth)
    whole = resize(read_image(small), 120, 160)
    assert torch.equal(sample.views[1], whole[top : top + 48, left : left + 64])


# cameras ---------------------------------------------------------------------------------------


def turned(yaw: float, pitch: float = 0.0) -> tuple:
    """World to camera of a camera at the origin, turned right and down (degrees)."""
    y, p = math.radians(yaw), math.radians(pitch)
    right = torch.tensor([[math.cos(y), 0, -math.sin(y)], [0, 1, 0], [math.sin(y), 0, math.cos(y)]])
    down = torch.tensor([[1, 0, 0], [0, math.cos(p), -math.sin(p)], [0, math.sin(p), math.cos(p)]])
    matrix = torch.eye(4)
    matrix[:3, :3] = down @ right
    return tuple(map(tuple, matrix.tolist()))


def view(viewmat, width=160, height=120, focal=200.0) -> View:
    return View(viewmat, ((focal, 0, width / 2), (0, focal, height / 2), (0, 0, 1)), width, height)


def panorama(of: View) -> np.ndarray:
    """A smooth distant world as a camera at the origin sees it."""
    x, y = np.meshgrid(np.arange(of.width) + 0.5, np.arange(of.height) + 0.5)
    rays = np.stack((x, y, np.ones_like(x)), -1) @ np.linalg.inv(np.array(of.K)).T
    rays = rays @ np.array(of.viewmat)[:3, :3]
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    phases = np.stack([rays @ np.array(k) for k in ((31, 7, 5), (-11, 23, 3), (17, -13, 9))], -1)
    return (127.5 + 120 * np.sin(phases)).round().astype(np.uint8)


def seen(folder, here: View, there: View) -> Triplet:
    files = [save(folder / f"{i}.png", panorama(v)) for i, v in enumerate((here, there))]
    guides = (Reference(files[1], there),)
    return Triplet("a", files[0], files[0], references=guides, camera=here)


@pytest.mark.parametrize("turn", [(8.0, 0.0), (-8.0, 0.0), (0.0, 6.0), (7.0, -4.0)])
def test_a_reference_s_window_follows_the_cameras(tmp_path, turn):
    here, there = view(IDENTITY), view(turned(*turn))
    one = seen(tmp_path, here, there)
    followed = TripletDataset([one], (32, 32))
    blind = TripletDataset([replace(one, camera=None)], (32, 32))
    better = 0
    for seed in range(40):
        (render, guide), (_, unmoved) = followed[0, seed].views, blind[0, seed].views
        if torch.equal(render, guide):
            continue
        near, far = ((p - render).abs().mean().item() for p in (guide, unmoved))
        better += near < 0.35 * far
    assert better >= 20  # where the reference sees the window; at its border it is kept inside


def test_a_turn_moves_the_window_by_what_it_should(tmp_path):
    """At the middle of the picture a turn right by t moves contents left by f tan t."""
    one = triplet(tmp_path)
    here, there = view(IDENTITY), view(turned(8.0))
    guides = (Reference(one.reference, there),)
    one = replace(one, references=guides, camera=here)
    dataset = TripletDataset([one], (24, 24))
    moves = []
    for seed in range(400):
        sample = dataset[0, seed]
        (top, left, _), (top_, left_, _) = place(sample.views[0]), place(sample.views[1])
        if 60 <= left <= 76 and 42 <= top <= 54:
            moves.append((top_ - top, left_ - left))
    assert len(moves) > 5
    for down, right in moves:
        assert abs(down) <= 1
        assert abs(right + 200 * math.tan(math.radians(8))) < 2.0


def test_cameras_of_other_sizes_are_scaled(tmp_path):
    """The reference's file is half as large, and its camera is told at a third size."""
    here, there = view(IDENTITY), view(turned(8.0))
    one = seen(tmp_path, here, there)
    half = view(turned(8.0), 80, 60, 100.0)
    file = save(tmp_path / "half.png", panorama(half))
    turned_view = replace(view(turned(8.0), 40, 30, 50.0))
    other = replace(one, references=(Reference(file, turned_view),), reference=file)
    for seed in range(10):
        a = TripletDataset([one], (32, 32))[0, seed].views[1]
        b = TripletDataset([other], (32, 32))[0, seed].views[1]
        assert (a - b).abs().mean() < 0.02


def test_a_reference_that_looks_away_is_cut_at_the_window_s_own_place(tmp_path):
    one = triplet(tmp_path)
    guides = (Reference(one.reference, view(turned(170.0))),)
    one = replace(one, references=guides, camera=view(IDENTITY))
    sample = TripletDataset([one], (24, 24))[0, 0]
    assert place(sample.views[0])[:2] == place(sample.views[1])[:2]


def test_warped_references_stay_with_the_render(tmp_path):
    one = triplet(tmp_path)
    guide = Reference(one.reference, view(turned(8.0)), warped=one.truth)
    one = replace(one, references=(guide,), camera=view(IDENTITY))
    sample = TripletDataset([one], (24, 24), warped=True)[0, 0]
    assert place(sample.views[0])[:2] == place(sample.views[1])[:2]
    assert place(sample.views[1])[2] == TRUTH


def test_where_a_warped_reference_is_not_valid_it_is_the_render(tmp_path):
    one = triplet(tmp_path)
    mask = np.zeros(read_image(one.render).shape, np.uint8)
    mask[:, 10:] = 255
    file = save(tmp_path / "mask.png", mask)
    guide = Reference(one.reference, warped=one.truth, mask=file)
    one = replace(one, references=(guide,))
    sample = TripletDataset([one], read_image(one.render).shape[:2], warped=True)[0, 0]
    render, warped = sample.views
    assert torch.equal(warped[:, :10], render[:, :10])
    assert torch.equal(warped[:, 10:], sample.truth[:, 10:])


# what is kept on disk --------------------------------------------------------------------------


def names(sample):
    """As the latent stage names what it keeps: truth first, then the references."""
    return [f"{source}/{sample.place}" for source in sample.sources]


def test_names_of_windows_tell_what_was_cut(tmp_path):
    """One photo is a truth, and a reference of others, each with its own window in it."""
    photo = save(tmp_path / "photo.png", mapped(120, 160, GUIDE))
    triplets = [
        replace(
            triplet(tmp_path, key=f"t{i}"),
            references=(Reference(photo, view(turned(yaw))),),
            reference=photo,
            camera=view(IDENTITY),
        )
        for i, yaw in enumerate((0.0, 8.0, -6.0))
    ]
    triplets.append(replace(triplet(tmp_path, key="t3"), truth=photo))
    dataset = TripletDataset(triplets, (118, 158), hflip=True)
    cuts, twice = {}, 0
    for index in range(4):
        for seed in range(40):
            sample = dataset[index, seed]
            pictures = sample.truth, sample.views[1], sample.views[0]
            for name, picture in zip(names(sample), pictures, strict=True):
                content = (picture * 255).round().byte().numpy().tobytes()
                twice += name in cuts
                assert cuts.setdefault(name, content) == content
    assert twice > 100


def test_names_know_the_size_that_a_reference_was_brought_to(tmp_path):
    photo = save(tmp_path / "photo.png", mapped(60, 80, GUIDE))
    sources = []
    for size in ((60, 80), (120, 160)):
        one = triplet(tmp_path, *size, key=f"{size[0]}")
        one = replace(one, references=(Reference(photo),), reference=photo)
        sources.append(names(TripletDataset([one], size)[0, 0])[1])
    assert sources[0] != sources[1]


def test_a_squashed_picture_has_two_names_at_most(tmp_path):
    """However many seeds there are: else what is kept would grow and never be found."""
    dataset = TripletDataset([triplet(tmp_path)], (32, 32), fit="squash", hflip=True)
    truths = {names(dataset[0, seed])[0]: dataset[0, seed].truth for seed in range(30)}
    assert len(truths) == 2
    a, b = truths.values()
    assert torch.equal(a, b.flip(1))


def test_another_content_has_another_name(tmp_path):
    one = triplet(tmp_path)
    dataset = TripletDataset([one], (120, 160))
    before = names(dataset[0, 0])
    save(one.truth, mapped(120, 160, 77))
    after = names(dataset[0, 0])
    assert before[0] != after[0]
    assert before[1:] == after[1:]


def test_crops_are_so_many_windows_of_each_picture(tmp_path):
    triplets = [triplet(tmp_path, key=key) for key in "ab"]
    dataset = TripletDataset(triplets, (48, 64), crops=4)
    windows = [{}, {}]
    for index in (0, 1):
        for seed in range(40):
            sample = dataset[index, seed]
            at = place(sample.truth)[:2]
            assert windows[index].setdefault(seed % 4, at) == at
            assert sample.seed == seed
        assert len(set(windows[index].values())) == 4
    assert not set(windows[0].values()) & set(windows[1].values())


# many at a time --------------------------------------------------------------------------------


def test_samples_do_not_depend_on_the_workers(triplets):
    entries = manifest.read(triplets, ("train",))
    dataset = TripletDataset(entries, (32, 32), references=2, hflip=True)
    order = Order(len(entries), 2, accumulate=2, seed=4)

    def batches(workers):
        sampler = MicroBatches(order, order.place(1), 4)
        loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=workers)
        return list(loader)

    alone, together = batches(0), batches(2)
    assert len(alone) == len(together) == 6
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a.views, b.views)
        assert torch.equal(a.truth, b.truth)
        assert (a.keys, a.seeds, a.sources, a.places) == (b.keys, b.seeds, b.sources, b.places)
    assert [s for b in alone for s in b.seeds] == [
        seed for step in (1, 2, 3) for micro in order.step(order.place(step)) for _, seed in micro
    ]


def test_a_batch_is_as_the_networks_take_it(tmp_path):
    sample = TripletDataset([triplet(tmp_path)], (48, 64))[0, 1]
    batch = replace(collate([sample, sample]), step=3, step_seed=5).to("cpu")
    assert batch.views.shape == (2, 2, 3, 48, 64)
    assert batch.truth.shape == (2, 3, 48, 64)
    assert (batch.step, batch.step_seed) == (3, 5)
    torch.testing.assert_close(batch.truth[1, 2], sample.truth[..., 2] * 2 - 1)
    torch.testing.assert_close(batch.views[0, 1, 1], sample.views[1, ..., 1] * 2 - 1)


# what cannot be read ---------------------------------------------------------------------------


def gone(one):
    one.truth.unlink()
    return one.truth


def cut_off(one):
    data = one.render.read_bytes()
    one.render.write_bytes(data[: len(data) // 2])
    return one.render


def no_picture(one):
    one.reference.write_bytes(b"no picture")
    return one.reference


def empty(one):
    one.truth.write_bytes(b"")
    return one.truth


def of_another_size(one):
    return save(one.truth, mapped(119, 160, 0))


SPOILT = [gone, cut_off, no_picture, empty, of_another_size]


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_picture_that_cannot_be_read_is_named(tmp_path, spoil):
    triplets = [triplet(tmp_path, key=key) for key in "ab"]
    file = spoil(triplets[1])
    dataset = TripletDataset(triplets, (48, 64))
    broken = dataset[1, 0]
    assert isinstance(broken, Broken)
    assert broken.key == "b"
    assert str(file) in broken.reason
    assert not broken.reason.startswith("b:")
    assert collate([dataset[0, 0], broken]) is broken


@pytest.mark.parametrize("spoil", SPOILT)
def test_skipping_goes_on_with_the_next(tmp_path, spoil, caplog):
    triplets = [triplet(tmp_path, key=key) for key in "abc"]
    file = spoil(triplets[2])
    dataset = TripletDataset(triplets, (48, 64), skip_bad=True)
    with caplog.at_level(logging.WARNING):
        sample = dataset[2, 7]
    assert sample.key == "a"
    assert torch.equal(sample.truth, dataset[0, 7].truth)
    assert "left out c" in caplog.text
    assert str(file) in caplog.text


def test_when_nothing_can_be_read_it_is_said(tmp_path):
    triplets = [triplet(tmp_path, key=key) for key in "ab"]
    for one in triplets:
        gone(one)
    broken = TripletDataset(triplets, (48, 64), skip_bad=True)[0, 0]
    assert isinstance(broken, Broken)
    assert "no entry is left" in broken.reason


@pytest.mark.parametrize("spoil", [gone, no_picture, empty, of_another_size])
def test_headers_are_looked_at_before_the_training(tmp_path, spoil, caplog):
    triplets = [triplet(tmp_path, key=key) for key in "abc"]
    file = spoil(triplets[1])
    options = {"references": 1, "warped": False}
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        select_usable(triplets, **options, skip_bad=False)
    assert str(error.value).startswith("b: ")
    assert str(file) in str(error.value)
    with caplog.at_level(logging.WARNING):
        left = select_usable(triplets, **options, skip_bad=True)
    assert [one.key for one in left] == ["a", "c"]
    assert "left out 1 of 3 entries, first: b: " in caplog.text
    for one in (triplets[0], triplets[2]):
        one.render.unlink()
    with pytest.raises(ValueError, match="none of 3 entries can be used, first: a: "):
        select_usable(triplets, **options, skip_bad=True)


def test_lacking_references_are_said(tmp_path):
    one = triplet(tmp_path)
    for count, references, warped, why in (
        (0, 1, False, "a: no references .* 1 asked for: give them, or --use_ref=False"),
        (1, 2, False, "a: 1 reference .* 2 asked for"),
        (1, 1, True, "the entry 'a' has no warped reference: make it with"),
    ):
        own = replace(one, references=one.references[:count], reference=None)
        with pytest.raises(ValueError, match=why):
            select_usable([own], references=references, warped=warped, skip_bad=False)
    assert select_usable([own], references=0, warped=True, skip_bad=False) == [own]


def test_a_reference_of_another_size_is_no_fault(tmp_path):
    one = triplet(tmp_path)
    save(one.reference, mapped(60, 80, GUIDE))
    assert select_usable([one], references=1, warped=False, skip_bad=False) == [one]


# kinds of pictures -----------------------------------------------------------------------------


def test_pictures_of_other_kinds(tmp_path):
    """Turned by EXIF, grey, with transparency (a photo over white, a render over black), 16 bit."""
    pixels = mapped(48, 64, 50)
    grey = pixels[..., 1]
    clear = np.dstack((pixels, np.where(np.arange(64) < 32, 255, 0)[None].repeat(48, 0)))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right
    turned_file = tmp_path / "turned.png"
    Image.fromarray(np.rot90(pixels).copy()).save(turned_file, exif=exif)
    over_white, over_black = pixels.copy(), pixels.copy()
    over_white[:, 32:], over_black[:, 32:] = 255, 0
    threefold = np.repeat(grey[..., None], 3, 2)
    expected = {
        turned_file: (pixels, pixels),
        save(tmp_path / "grey.png", grey): (threefold, threefold),
        save(tmp_path / "clear.png", clear.astype(np.uint8)): (over_black, over_white),
        save(tmp_path / "deep.png", grey.astype(np.uint16) * 257): (threefold, threefold),
    }
    plain = save(tmp_path / "plain.png", pixels)
    for file, contents in expected.items():
        one = Triplet("a", file, plain, references=(Reference(file),))
        assert select_usable([one], references=1, warped=False, skip_bad=False)
        sample = TripletDataset([one], (48, 64))[0, 0]
        for picture, content in zip(sample.views, contents, strict=True):
            assert torch.equal((picture * 255).round().byte(), torch.from_numpy(content))
        assert torch.equal((sample.truth * 255).round().byte(), torch.from_numpy(pixels))


def test_a_folder_of_pictures(tmp_path):
    save(tmp_path / "b.jpg", mapped(20, 30, 0))
    save(tmp_path / "deep" / "a.png", mapped(20, 30, 0))
    (tmp_path / "notes.txt").write_text("none")
    entries = list_pictures(tmp_path)
    assert [one.key for one in entries] == ["b.jpg", "deep_a.png"]
    assert all(one.render == one.truth and one.truth.is_file() for one in entries)
    with pytest.raises(FileNotFoundError, match="--images"):
        list_pictures(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no pictures"):
        list_pictures(tmp_path / "empty")


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_alpha_stays_with_the_render(tmp_path, fit):
    one = triplet(tmp_path, 48, 64)
    grey = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 2, (48, 1, 3))
    one = replace(one, alpha=save(tmp_path / "alpha.png", grey))
    dataset = TripletDataset([one], (24, 32), alpha=True, fit=fit, hflip=True)
    samples = [dataset[0, seed] for seed in range(40)]
    known = [s for s in samples if not (s.alpha == 0.5).all()]
    assert 20 < len(known) < 40  # sometimes it is left out
    for s in known:  # the render's green is its column, alpha twice that
        green = s.views[0, ..., 1:2]
        torch.testing.assert_close(s.alpha[1:-1, 2:-2], 2 * green[1:-1, 2:-2], atol=0.01, rtol=0)
    batch = collate(known[:2]).to("cpu")
    assert torch.equal(batch.alpha[0, 0], known[0].alpha[..., 0] * 2 - 1)
    plain = TripletDataset([one], (24, 32), fit=fit)[0, 1]
    assert (plain.alpha == 0.5).all()
    assert (
        TripletDataset([replace(one, alpha=None)], (24, 32), alpha=True)[0, 1].alpha == 0.5
    ).all()
    gone = replace(one, alpha=tmp_path / "gone.png")
    with pytest.raises(FileNotFoundError, match=r"gone\.png is not there"):
        select_usable([gone], references=1, warped=False, alpha=True, skip_bad=False)
    assert select_usable([gone], references=1, warped=False, skip_bad=False)


def test_relit_pictures_change_alike_and_tell_it(triplets):
    entries = manifest.read(triplets, ["train"])
    plain = TripletDataset(entries, (64, 64))
    dark = TripletDataset(entries, (64, 64), photometric=1.0)
    before, after = plain[0, 5], dark[0, 5]
    assert after.place.startswith(f"{before.place}-relit-")
    assert dark[0, 5].place == after.place and dark[0, 6].place != after.place
    light = [float(x) for x in after.place.split("relit-")[1].split("-")]
    gamma, gain = light[0], torch.tensor(light[1:])
    for one, other in ((before.truth, after.truth), (before.views, after.views)):
        torch.testing.assert_close(other, (one**gamma * gain).clamp(0, 1), atol=1e-3, rtol=0)
