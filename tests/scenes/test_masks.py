import json

import numpy as np
import pytest
import torch
from PIL import Image

import scenes
from scenes import photos
from scenes.contact_sheet import tint_masked
from scenes.formats import transforms
from tests.scenes.captures import write_capture


def load(path, **options):
    return scenes.load(path, progress=False, **options)


def half(width=64, height=48) -> np.ndarray:
    """A mask whose left half is to be ignored."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 255
    return mask


def save(mask: np.ndarray, file, **options) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(file, **options)


@pytest.mark.parametrize("name", ["{stem}.png", "{stem}.png.png", "{stem}.jpg", "{stem}.gif"])
@pytest.mark.parametrize("factor", [1, 2])
def test_masks_are_read_under_the_names_of_nerfstudio_and_colmap(capture, name, factor):
    for i in range(7):
        save(half(), capture / "masks" / name.format(stem=f"{i:03d}"))
    scene = load(capture, data_factor=factor)
    assert len(scene) == 8 and scene.masks[7] is None
    for mask in scene.masks[:7]:
        assert np.array_equal(mask, half(64 // factor, 48 // factor) > 0)
    assert scene.notes == (
        "7 masks: 50.0 % of the pixels (black ones) are ignored",
        "1 photo without a mask (007.png); all of their pixels count",
    )


def test_smaller_masks_beside_smaller_photos_are_used(capture):
    for i in range(8):
        save(half(), capture / "masks" / f"{i:03d}.png")
        save(255 - half(32, 24), capture / "masks_2" / f"{i:03d}.png")
    assert load(capture, data_factor=2).masks[0][:, :16].all()
    assert not load(capture).masks[0][:, :32].any()


@pytest.mark.parametrize("folder", ["mask", "Masks", "masks_2", "masks_4"])
@pytest.mark.parametrize("factor", [1, 2])
def test_masks_in_other_folders_are_used_too(capture, folder, factor):
    for i in range(8):
        save(half(32, 24), capture / folder / f"{i:03d}.png")
    mask = load(capture, data_factor=factor).masks[0]
    assert np.array_equal(mask, half(64 // factor, 48 // factor) > 0)


def test_pictures_in_folders_like_masks_are_told(capture):
    save(half(), capture / "segmentations" / "000.png")
    (note,) = load(capture).notes
    assert "segmentations is not read" in note and f"rename it to {capture / 'masks'}" in note


def test_of_two_masks_of_a_photo_that_of_colmap_is_used(capture):
    for i in range(8):
        save(half(), capture / "masks" / f"{i:03d}.png.png")
        save(255 - half(), capture / "masks" / f"{i:03d}.png")
    scene = load(capture)
    assert np.array_equal(scene.masks[0], half() > 0)
    several = "8 photos with several masks, of which one is used (000.png.png before 000.png)"
    assert scene.notes[0] == several


def test_mask_path_of_transforms_json(capture):
    scene = load(capture)
    transforms.write(capture, scene.cameras, scene.names)
    file = capture / "transforms.json"
    content = json.loads(file.read_text())
    for i, frame in enumerate(content["frames"]):
        frame["mask_path"] = f"elsewhere/{i}.png"
        save(half(), capture / "elsewhere" / f"{i}.png")
    (capture / "elsewhere/3.png").unlink()
    content["frames"][5].pop("mask_path")
    file.write_text(json.dumps(content))
    (capture / "sparse").rename(capture / "old")
    masked = load(capture)
    assert [mask is None for mask in masked.masks] == [i in (3, 5) for i in range(8)]
    assert np.array_equal(masked.masks[0], half() > 0)
    assert "names 1 mask not to be found (elsewhere/3.png)" in masked.notes[0]
    content["frames"][0]["mask_path"] = 3
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match='"mask_path" is 3, not a path'):
        load(capture)


@pytest.mark.parametrize("upright", [True, False])
def test_masks_are_turned_and_undistorted_with_their_photos(tmp_path, upright):
    names = write_capture(tmp_path, cameras=[("OPENCV", 64, 48, [60, 61, 32, 24, 0.1, 0, 0, 0])])
    exif = Image.Exif()
    exif[photos.ORIENTATION] = 6
    stored = np.zeros((48, 64), np.uint8)
    stored[:, 40:] = 255
    for name in names:
        picture = np.repeat(stored[..., None], 3, 2)
        Image.fromarray(picture).save(tmp_path / "images" / name, exif=exif)
        save(np.rot90(stored, 3) if upright else stored, tmp_path / "masks" / name)
    scene = load(tmp_path)
    image, mask = scene.images[0][..., 0], scene.masks[0]
    assert mask.shape == (64, 48) and np.array_equal(mask, image == 255)


def test_a_view_that_is_all_black_in_its_mask_is_skipped(capture):
    save(np.zeros((48, 64), np.uint8), capture / "masks" / "002.png")
    scene = load(capture)
    assert "002.png" not in scene.names and len(scene) == 7
    assert scene.notes[-1] == "skipped 1 view all black in the mask: 002.png"
    for i in range(8):
        save(np.zeros((48, 64), np.uint8), capture / "masks" / f"{i:03d}.png")
    with pytest.raises(ValueError, match=r"no views of which .*; at least 3 .* masks inverted\?"):
        load(capture)


def test_a_photo_that_is_wholly_transparent_is_skipped(capture):
    empty = np.zeros((48, 64, 4), np.uint8)
    save(empty, capture / "images" / "002.png")
    scene = load(capture)
    assert "002.png" not in scene.names and len(scene) == 7
    assert "skipped 1 view wholly transparent: 002.png" in scene.notes
    for i in range(6):
        save(empty, capture / "images" / f"{i:03d}.png")
    with pytest.raises(ValueError, match="only 2 views of which masks and alpha leave any pixels"):
        load(capture)


@pytest.mark.parametrize(
    ("mask", "counts"),
    [
        (np.array([[0, 1]], np.uint8), [[False, True]]),  # 0 and 1 instead of 0 and 255
        (np.array([[False, True]]), [[False, True]]),
        (np.array([[[0, 0, 0], [0, 0, 9]]], np.uint8), [[False, True]]),
        (np.array([[0, 300]], np.uint16), [[False, True]]),
        (np.array([[[9, 9, 9, 0], [9, 9, 9, 8]]], np.uint8), [[False, True]]),  # alpha is the mask
        (np.array([[[0, 255], [9, 255]]], np.uint8), [[False, True]]),
    ],
)
def test_whatever_is_neither_black_nor_transparent_counts(capture, mask, counts):
    for i in range(8):
        save(mask.repeat(32, 1).repeat(48, 0), capture / "masks" / f"{i:03d}.png")
    expected = np.array(counts).repeat(32, 1).repeat(48, 0)
    scene = load(capture)
    assert np.array_equal(scene.masks[0], expected)
    assert torch.equal(scene.mask(0), torch.from_numpy(expected))


def test_masks_that_do_not_fit_are_told(capture):
    save(half(), capture / "masks" / "other.png")
    (note,) = load(capture).notes
    assert "no mask is used" in note and "the mask of 000.png would be 000.png" in note
    save(half(48, 64), capture / "masks" / "004.png")
    with pytest.raises(ValueError, match=r"004.png is 48x64, but its photo 64x48: another shape"):
        load(capture)
    (capture / "masks" / "004.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"the mask .*004.png is not a photo that can be read"):
        load(capture)


def test_the_contact_sheet_shows_in_red_what_masks_hide(capture):
    for i in range(8):
        save(half(), capture / "masks" / f"{i:03d}.png")
    scene = load(capture)
    shown, image = tint_masked(scene, 0), scene.images[0]
    assert np.array_equal(shown[:, 32:], image[:, 32:])
    assert (shown[:, :32, 0] >= 127).all() and (shown[:, :32, 1:] <= 127).all()
