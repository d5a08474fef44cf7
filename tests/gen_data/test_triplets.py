# Triplets of finished results: keys, references by pose and never the truth, warped references.
import shutil

import numpy as np
import pytest
from PIL import Image

from gen_data import triplets as module
from gen_data.curate import curate
from gen_data.results import find_results
from gen_data.triplets import (
    add_warped_paths,
    build_triplets,
    measure_view_distances,
    write_warped,
)
from scenes import load
from tests.gen_data.conftest import HEIGHT, VIEWS, WIDTH
from triplets.manifest import View


@pytest.fixture
def scene(captures, tmp_path, quick):
    """A scene with three results, one of them without depth, and one that is not finished."""
    folder = tmp_path / "room"
    curate(captures[1], folder, quick("underfitting", render_iter=(2, 4)))
    curate(captures[1], folder, quick("sparse", render_iter=(4,)))
    curate(captures[1], folder, quick("cross", render_iter=(2, 4), depth=False))
    (folder / "gs_recon_sparse_40").mkdir()
    return folder


def named(scene):
    finished, unfinished = find_results(scene)
    assert unfinished == [scene / "gs_recon_sparse_40"]
    return {result.strategy: result for result in finished}


def pixels(file):
    return np.asarray(Image.open(file)).astype(np.float32) / 255


def test_keys_name_scene_strategy_iterations_or_variant_and_frame(scene):
    results = named(scene)
    assert build_triplets(results["underfitting"], 4)[3].key == "room_underfitting_4_00003"
    assert build_triplets(results["sparse"], 4)[3].key == "room_sparse_4_00003"
    assert build_triplets(results["cross"], 2)[3].key == "room_cross_1_2_00003"
    assert (results["sparse"].train_every, results["cross"].train_every) == (4, None)


@pytest.mark.parametrize("name", ["underfitting", "sparse", "cross"])
def test_files_are_there_and_no_reference_is_the_truth(scene, name):
    triplets = build_triplets(named(scene)[name], 4, ref_every=4)
    assert len(triplets) == {"underfitting": VIEWS, "sparse": 9, "cross": 6}[name]
    for triplet in triplets:
        assert all(file.is_file() for file in triplet.files)
        assert 2 <= len(triplet.references) <= 4
        truth = pixels(triplet.truth)
        for reference in triplet.references:
            assert (pixels(reference.path) != truth).any()
        assert (triplet.camera.width, triplet.camera.height) == (WIDTH, HEIGHT)


def test_underfitting_is_guided_by_every_nth_frame_and_never_by_itself(scene):
    triplets = build_triplets(named(scene)["underfitting"], 4, ref_every=4, candidates=9)
    for i, triplet in enumerate(triplets):
        guides = sorted(int(r.path.stem) for r in triplet.references)
        assert guides == [j for j in (0, 4, 8) if j != i]
    # with fewer frames than ref_every, every other frame may guide
    triplets = build_triplets(named(scene)["underfitting"], 4, ref_every=100, candidates=99)
    assert all(len(t.references) == VIEWS - 1 for t in triplets)


def test_the_nearest_by_pose_comes_first(scene, captures):
    triplets = build_triplets(named(scene)["sparse"], 4, candidates=2)
    cameras = load(captures[1], split="all", progress=False).cameras
    at, forward = cameras.positions.numpy(), cameras.viewmats[:, 2, :3].numpy()
    for triplet, index in zip(triplets, [i for i in range(VIEWS) if i % 4], strict=True):
        assert len(triplet.references) == 2
        nearest = [4 * int(r.path.stem) for r in triplet.references]
        for other in {0, 4, 8} - set(nearest):
            for k in nearest:  # nothing left out is better in place and in direction
                nearer = np.linalg.norm(at[other] - at[index]) < np.linalg.norm(at[k] - at[index])
                closer = forward[other] @ forward[index] > forward[k] @ forward[index]
                assert not (nearer and closer)
        view = np.array(triplet.camera.viewmat)
        np.testing.assert_array_equal(view.astype(np.float32), cameras.viewmats[index].numpy())


def turned(angle, x):
    c, s = np.cos(angle), np.sin(angle)
    R = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    viewmat = np.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = R, -R @ [x, 0, 0]
    return View(tuple(map(tuple, viewmat.tolist())), ((1, 0, 0), (0, 1, 0), (0, 0, 1)), 4, 4)


def test_a_pose_distance_counts_place_and_direction():
    views = [turned(0, 0)]
    others = [turned(0, 0), turned(0, 2), turned(0.5, 0), turned(np.pi, 4)]
    np.testing.assert_allclose(
        measure_view_distances(views, others), [[0, 1, 0.5, 2 + np.pi]], atol=1e-7
    )
    assert measure_view_distances(views, others[:1]).tolist() == [[0]]


def test_references_are_warped_into_the_render_s_view(scene, captures):
    result = named(scene)["underfitting"]
    triplets = [add_warped_paths(t) for t in build_triplets(result, 4, ref_every=1, candidates=2)]
    assert write_warped(triplets) == f"{2 * VIEWS} references warped, 0 there"
    masks = []
    for triplet in triplets:
        for reference in triplet.references:
            mask, warped = pixels(reference.mask), pixels(reference.warped)
            assert set(np.unique(mask)) <= {0, 1}
            assert mask.shape == (HEIGHT, WIDTH) and warped.shape == (HEIGHT, WIDTH, 3)
            assert (warped[mask == 0] == 0).all()
            assert (pixels(triplet.alpha)[mask == 1] >= 0.49).all()
            masks.append(mask.mean())
    assert max(masks) > 0.01
    stamp = triplets[0].references[0].warped.stat().st_mtime_ns
    assert write_warped(triplets) == f"0 references warped, {2 * VIEWS} there"
    assert triplets[0].references[0].warped.stat().st_mtime_ns == stamp


def test_without_depth_nothing_is_warped(scene):
    triplets = [add_warped_paths(t) for t in build_triplets(named(scene)["cross"], 4)]
    with pytest.raises(ValueError, match=r"gs_recon_cross_1 has no depth.*--overwrite"):
        write_warped(triplets)


def test_a_broken_list_of_cameras_is_named(scene):
    file = scene / "gs_recon/train/cameras.json"
    for text in ("{", "[3]", '[{"index": 0}]', '{"a": 1}'):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"cameras.json"):
            module.read_frames(file)


def test_what_masks_hide_is_neither_truth_nor_reference(captures, tmp_path, quick):
    capture = tmp_path / "masked"
    shutil.copytree(captures[1], capture)
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[:, : WIDTH // 2] = 0
    (capture / "masks").mkdir()
    for file in (capture / "images").iterdir():
        photo = np.array(Image.open(file))
        photo[mask == 0] = (255, 0, 0)
        Image.fromarray(photo).save(file)
        Image.fromarray(mask).save(capture / "masks" / file.name)
    curate(capture, tmp_path / "scene", quick("sparse", render_iter=(4,)))
    result = find_results(tmp_path / "scene")[0][0]
    triplets = [add_warped_paths(t) for t in build_triplets(result, 4)]
    write_warped(triplets)
    for triplet in triplets:
        truth, render = pixels(triplet.truth), pixels(triplet.render)
        assert np.array_equal(truth[mask == 0], render[mask == 0])
        assert (truth[mask > 0] != render[mask > 0]).any()
        for reference in triplet.references:
            red = pixels(reference.path)[mask == 0]
            assert not ((red[:, 0] > 0.9) & (red[:, 1] < 0.1)).all()
            assert pixels(reference.mask).mean() < 0.75
