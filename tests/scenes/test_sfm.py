import json
import os
from itertools import pairwise

import numpy as np
import pycolmap
import pytest
from PIL import Image

import scenes
from scenes.formats import colmap, unposed
from scenes.formats.registry import find_captures
from scenes.sfm import features, mapping, matching, pipeline, similarity
from scenes.sfm.features import copy_masks, copy_photos, extract_features
from scenes.work import work_folder
from tests.scenes.captures import photo
from tests.scenes.corner import FOCAL, HEIGHT, WIDTH, corner_views


def max_rotation_error(scene, viewmats):
    """Degrees; rotations relative to the first view need no alignment."""
    R, expected = scene.cameras.viewmats[:, :3, :3].double().numpy(), viewmats[:, :3, :3]
    cosines = [
        (np.trace(R[i] @ R[0].T @ (expected[i] @ expected[0].T).T) - 1) / 2 for i in range(len(R))
    ]
    return np.degrees(np.arccos(np.clip(cosines, -1, 1))).max()


def test_photos_only_are_posed_once_and_the_model_is_reused(tmp_path, monkeypatch):
    pictures, viewmats = corner_views(7)
    (tmp_path / "images").mkdir()
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"images/photo {i}.png")
    (tmp_path / "images/photo 9.png").write_bytes(b"")
    scene = scenes.load(tmp_path, progress=False)
    assert scene.names == tuple(f"photo {i}.png" for i in range(7))
    assert scene.cameras.size == (WIDTH, HEIGHT) and len(scene.points) > 200
    assert any("photo 9.png is empty" in note for note in scene.notes)
    assert (scene.cameras.Ks[:, 0, 0] / FOCAL - 1).abs().max() < 0.05
    assert max_rotation_error(scene, viewmats) < 0.7
    assert sorted(file.name for file in tmp_path.iterdir()) == ["images", "sparse"]
    marker = json.loads((tmp_path / "sparse/0" / colmap.MARKER).read_text())
    assert marker["posed"] == 7 and marker["unreadable"] == ["photo 9.png is empty"]
    assert marker["settings"]["pairs"] == 21 and marker["notes"]

    monkeypatch.setattr(unposed, "structure_from_motion", lambda *_: pytest.fail("ran again"))
    again = scenes.load(tmp_path, progress=False)
    assert again.names == scene.names and again.cameras.Ks.equal(scene.cameras.Ks)


def test_photos_in_folders_share_a_camera_by_folder_and_a_stopped_run_continues(
    tmp_path, monkeypatch
):
    """Photos in random order, of which not every pair is matched."""
    pictures, viewmats = corner_views(8, focals=(FOCAL, 1.2 * FOCAL))
    order = [5, 2, 7, 0, 4, 1, 6, 3]  # of each picture's name
    for i, picture in enumerate(pictures):
        (tmp_path / f"cam{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / f"cam{i % 2}/{order[i]}.png")
    monkeypatch.setattr(matching, "EXHAUSTIVE_PHOTOS", 4)
    monkeypatch.setattr(matching, "SIMILAR", 4)
    monkeypatch.setattr(matching, "NEXT", 1)
    monkeypatch.setattr(mapping, "SNAPSHOT_SECONDS", 0)

    def stop_at(module, name, call):
        """The `call`-th call of a function of a module is Ctrl-C."""
        original, calls = getattr(module, name), []

        def function(*arguments, **options):
            calls.append(0)
            if len(calls) == call:
                raise KeyboardInterrupt
            return original(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(module, name, function)
            with pytest.raises(KeyboardInterrupt):
                scenes.load(tmp_path, progress=False)

    def read(what):
        with pycolmap.Database.open(tmp_path / pipeline.WORK / "database.db") as store:
            return getattr(store, what)()

    stop_at(features.pycolmap, "extract_features", 2)
    assert 0 < read("num_images") < 8
    stop_at(matching.pycolmap, "match_image_pairs", 2)
    monkeypatch.setattr(features.pycolmap, "extract_features", lambda *_: pytest.fail("again"))
    assert read("num_images") == 8 and read("num_cameras") == 2
    assert 0 < read("num_matched_image_pairs") < 8 * 5
    stop_at(mapping, "_save", 3)
    monkeypatch.setattr(similarity, "compute_vlad", lambda *_: pytest.fail("again"))
    monkeypatch.setattr(matching.pycolmap, "match_image_pairs", lambda *_: pytest.fail("again"))
    assert 2 < pycolmap.Reconstruction(tmp_path / pipeline.WORK / "snapshot").num_reg_images() < 8
    assert not (tmp_path / "sparse").exists()

    scene = scenes.load(tmp_path, progress=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cam0", "cam1", "sparse"]
    names = [f"cam{i % 2}/{order[i]}.png" for i in range(8)]
    assert scene.names == tuple(sorted(names))
    assert max_rotation_error(scene, viewmats[[names.index(name) for name in scene.names]]) < 0.7
    focals = scene.cameras.Ks[:, 0, 0]
    assert len(focals.unique()) == 2 and abs(focals[-1] / focals[0] - 1.2) < 0.02
    assert any("2 cameras, photos by folder: cam0 (4), cam1 (4)" in note for note in scene.notes)
    assert any("sub-folders only; they are taken as one capture" in note for note in scene.notes)
    assert find_captures(tmp_path) == [tmp_path]


def test_changed_photos_start_anew_and_a_second_process_waits(tmp_path):
    folder, key = tmp_path / ".work", {"photos": (1, 2)}
    with pytest.raises(KeyboardInterrupt), work_folder(folder, key, "mapping"):
        (folder / "done").touch()
        with (
            pytest.raises(ValueError, match=r"another process .* \(mapping\); wait"),
            work_folder(folder, key, "mapping"),
        ):
            pass
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), work_folder(folder, {"photos": [1, 2]}, "mapping"):
        assert (folder / "done").exists()
        raise KeyboardInterrupt
    with work_folder(folder, {"photos": [1, 3]}, "mapping"):
        assert not (folder / "done").exists()
    assert not folder.exists()


def test_several_captures_are_not_taken_as_one(tmp_path, capture):
    tmp_path = tmp_path / "captures"
    for name in ("attic", "cellar"):
        (tmp_path / name).mkdir(parents=True)
        Image.fromarray(photo(64, 48, 0)).save(tmp_path / name / "0.jpg")
        (tmp_path / name / "sparse").symlink_to(capture / "sparse")
    assert [folder.name for folder in find_captures(tmp_path)] == ["attic", "cellar"]
    with pytest.raises(ValueError, match="holds several captures; name one: attic, cellar"):
        scenes.load(tmp_path, progress=False)


def test_photos_that_cannot_be_posed_leave_nothing_behind(tmp_path):
    for i in range(4):
        Image.fromarray(photo(160, 120, i)).save(tmp_path / f"{i}.jpg")
    with pytest.raises(ValueError, match=r"posed 0 of 4 photos .* overlap"):
        scenes.load(tmp_path, progress=False)
    assert all(file.suffix == ".jpg" for file in tmp_path.iterdir())


def test_a_name_that_is_not_utf8_is_told_before_any_work(tmp_path):
    for i in range(3):
        Image.fromarray(photo(160, 120, i)).save(tmp_path / f"{i}.jpg")
    (tmp_path / "2.jpg").rename(tmp_path / os.fsdecode(b"\xe9.jpg"))
    with pytest.raises(ValueError, match=r"\\xe9\.jpg: this name is not UTF-8, .*; rename it"):
        scenes.load(tmp_path, progress=False)
    assert all(file.suffix == ".jpg" for file in tmp_path.iterdir())


def test_an_error_before_the_work_leaves_nothing_behind(tmp_path):
    with pytest.raises(TypeError), work_folder(tmp_path / "work", {"no": {1j}}, "a job"):
        pytest.fail("began")
    assert not any(tmp_path.iterdir())


def test_a_read_only_folder_is_refused_before_any_work(tmp_path):
    for i in range(3):
        Image.fromarray(photo(160, 120, i)).save(tmp_path / f"{i}.jpg")

    tmp_path.chmod(0o555)
    with pytest.raises(PermissionError, match="copy the capture to a folder you can write to"):
        scenes.load(tmp_path, progress=False)


def test_nothing_is_detected_where_masks_are_black(tmp_path, known):
    folder = known.path / "images"
    photos, _ = copy_photos(folder, known.names[:2], tmp_path / "photos", progress=False)
    mask = np.zeros((75, 100), np.uint8)  # half the photos' size
    mask[:, 50:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    masks = {photos[0].photo: tmp_path / "mask.png"}
    copy_masks(photos, masks, tmp_path / "photos", tmp_path / "masks")
    places = [tmp_path / name for name in ("database.db", "photos")]
    extract_features(*places, photos, progress=False, masks=tmp_path / "masks")
    with pycolmap.Database.open(places[0]) as database:
        columns = {
            image.name: database.read_keypoints(image.image_id)[:, 0]
            for image in database.read_all_images()
        }
    first, second = (columns[photo.file] for photo in photos)
    assert len(first) > 5 and first.min() >= 100
    assert second.min() < 100  # which has no mask


def test_a_wrong_split_is_refused_before_any_work(tmp_path, monkeypatch):
    for i in range(3):
        Image.fromarray(photo(160, 120, i)).save(tmp_path / f"{i}.jpg")
    monkeypatch.setattr(unposed, "structure_from_motion", lambda *_: pytest.fail("ran"))
    with pytest.raises(ValueError, match="name photos with _train_"):
        scenes.load(tmp_path, split="filename", progress=False)


def test_the_commentary_of_colmap_is_silent_even_on_ctrl_c(capfd):
    with pipeline._quiet():
        pycolmap.logging.error("Stopping thread...")  # what it says then
    assert capfd.readouterr().err == ""


def test_photos_of_the_same_things_look_alike():
    rng = np.random.default_rng(0)
    things = [rng.standard_normal((40, 16)).astype(np.float32) for _ in range(2)]
    words = np.concatenate([thing[:8] for thing in things])
    a, b = (similarity.compute_vlad(rng.permutation(things[0])[:35], words) for _ in range(2))
    c = similarity.compute_vlad(things[1], words)
    assert abs(a @ a - 1) < 1e-5 and a @ b > 0.85 > 0.6 > a @ c
    assert similarity.compute_vlad(np.zeros((0, 16), np.float32), words) @ a == 0


def test_many_photos_are_matched_with_their_next_and_most_similar_ones():
    assert len(matching.choose_pairs(23)) == 23 * 22 // 2
    rng = np.random.default_rng(0)
    place = rng.permutation(400)  # of each photo on a path
    similarity = -np.abs(place[:, None] - place[None]).astype(np.float32)
    pairs = matching.choose_pairs(400, similarity)
    assert len(pairs) < 400 * 26 and len(set(pairs)) == len(pairs)
    assert all(0 <= i < j < 400 for i, j in pairs)
    at = np.argsort(place)
    near = {(min(i, j), max(i, j)) for i, j in pairwise(at.tolist())}
    assert {(i, i + 1) for i in range(399)} | near <= set(pairs)
