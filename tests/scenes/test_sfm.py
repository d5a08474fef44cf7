from itertools import pairwise

import cv2
import numpy as np
import pycolmap
import pytest
from PIL import Image

import scenes
from scenes.formats import unposed
from scenes.sfm import matching, pipeline
from tests.scenes.captures import photo

WIDTH, HEIGHT, FOCAL = 320, 240, 300.0


def texture(seed):
    """Blobs of many sizes, so that there are corners at any distance."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.random((n, n, 3)), (512, 512), interpolation=cv2.INTER_CUBIC)
        for n in (12, 40, 110)
    ]
    return (255 * np.clip(0.5 + 1.1 * (sum(layers) / 3 - 0.5) * 2, 0, 1)).astype(np.uint8)


def corner_views(n):
    """Photos of three textured walls that meet in a corner, and their viewmats [n, 4, 4]."""
    walls = [  # origin and two edges; the corner is at (0, 0, 3), y is down
        (np.array([-3.0, 1, 3]), np.array([6.0, 0, 0]), np.array([0.0, 0, -6])),
        (np.array([0.0, -4, 3]), np.array([4.0, 0, -4]), np.array([0.0, 5, 0])),
        (np.array([0.0, -4, 3]), np.array([-4.0, 0, -4]), np.array([0.0, 5, 0])),
    ]
    K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    textures = [texture(seed) for seed in range(3)]
    pictures, viewmats = [], []
    for angle in np.linspace(-0.35, 0.35, n):
        position = np.array([2.5 * np.sin(angle), -0.8 + 0.5 * np.cos(3 * angle), -1.2])
        z = np.array([0, -0.2, 2.0]) - position
        z /= np.linalg.norm(z)
        x = np.cross([0.0, 1, 0], z)
        x /= np.linalg.norm(x)
        R = np.stack([x, np.cross(z, x), z])
        picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for (origin, u, v), pixels in zip(walls, textures, strict=True):
            plane = np.stack([u / 512, v / 512, origin - position], 1)
            homography = K @ R @ plane
            warped = cv2.warpPerspective(pixels, homography, (WIDTH, HEIGHT))
            seen = cv2.warpPerspective(np.ones((512, 512), np.uint8), homography, (WIDTH, HEIGHT))
            picture[seen > 0] = warped[seen > 0]
        pictures.append(picture)
        viewmats.append(np.block([[R, -(R @ position)[:, None]], [np.zeros(3), 1]]))
    return pictures, np.stack(viewmats)


@pytest.mark.parametrize("below", ["images", "."])
def test_photos_only_are_posed_once_and_the_model_is_reused(tmp_path, monkeypatch, below):
    pictures, viewmats = corner_views(7)
    (tmp_path / below).mkdir(exist_ok=True)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / below / f"photo {i}.png")
    (tmp_path / below / "photo 9.png").write_bytes(b"")
    scene = scenes.load(tmp_path, progress=False)
    assert scene.names == tuple(f"photo {i}.png" for i in range(7))
    assert scene.cameras.size == (WIDTH, HEIGHT) and len(scene.points) > 200
    assert any("photo 9.png is empty" in note for note in scene.notes)
    assert (scene.cameras.Ks[:, 0, 0] / FOCAL - 1).abs().max() < 0.05
    R = scene.cameras.viewmats[:, :3, :3].double().numpy()
    expected = viewmats[:, :3, :3]
    for i in range(1, 7):  # relative rotations need no alignment
        error = R[i] @ R[0].T @ (expected[i] @ expected[0].T).T
        assert np.degrees(np.arccos(np.clip((np.trace(error) - 1) / 2, -1, 1))) < 0.7
    assert sorted(file.name for file in tmp_path.iterdir() if file.suffix != ".png") == (
        ["images", "sparse"] if below == "images" else ["sparse"]
    )

    monkeypatch.setattr(unposed, "structure_from_motion", lambda *_: pytest.fail("ran again"))
    again = scenes.load(tmp_path, progress=False)
    assert again.names == scene.names and again.cameras.Ks.equal(scene.cameras.Ks)


def test_photos_that_cannot_be_posed_leave_nothing_behind(tmp_path):
    for i in range(4):
        Image.fromarray(photo(160, 120, i)).save(tmp_path / f"{i}.jpg")
    with pytest.raises(ValueError, match=r"posed 0 of 4 photos .* overlap"):
        scenes.load(tmp_path, progress=False)
    assert all(file.suffix == ".jpg" for file in tmp_path.iterdir())


def test_a_read_only_folder_is_refused_before_any_work(tmp_path):
    for i in range(3):
        Image.fromarray(photo(160, 120, i)).save(tmp_path / f"{i}.jpg")

    tmp_path.chmod(0o555)
    with pytest.raises(PermissionError, match="copy the capture to a folder you can write to"):
        scenes.load(tmp_path, progress=False)


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
