import os
import shutil
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import scenes
from scenes import photos, shrinking
from scenes.photos import NO_PHOTOS, decode
from tests.scenes.captures import photo, write_capture


def load(path, **options):
    return scenes.load(path, progress=False, **options)


def test_grey_16_bit_palette_and_transparent_photos_become_rgb(tmp_path):
    ramp = np.linspace(0, 255, 40 * 30).reshape(30, 40).round().astype(np.uint8)
    cv2.imwrite(str(tmp_path / "grey16.png"), ramp.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "rgb16.png"), np.dstack([ramp] * 3).astype(np.uint16) * 257)
    Image.fromarray(ramp).save(tmp_path / "grey.png")
    Image.fromarray(ramp).convert("P").save(tmp_path / "palette.png")
    alpha = np.dstack([ramp, ramp, ramp, np.full_like(ramp, 255)])
    alpha[0, 0, 3] = 0
    Image.fromarray(alpha).save(tmp_path / "alpha.PNG")
    for file in tmp_path.iterdir():
        pixels, _ = decode(file)
        assert pixels.dtype == np.uint8 and pixels.shape == (30, 40, 3)
        assert np.array_equal(pixels[1:, :, 1], ramp[1:]), file.name
    assert decode(tmp_path / "alpha.PNG")[0][0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bits_are_rounded_to_the_nearest_level(tmp_path, suffix):
    grey = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    opaque = np.full_like(grey, 65535)
    file = tmp_path / f"photo.{suffix}"
    for picture in (grey, np.dstack([grey, grey, 65535 - grey]), np.dstack([grey] * 3 + [opaque])):
        cv2.imwrite(str(file), picture)
        pixels, _ = decode(file)
        assert np.array_equal(pixels[..., 1], np.round(grey / 257))
    cv2.imwrite(str(file), np.dstack([grey, grey, 65535 - grey]))  # OpenCV's order is BGR
    assert decode(file)[0][0, 0].tolist() == [255, 0, 0]


def test_alpha_is_kept_beside_colours_over_white(tmp_path):
    straight = np.zeros((1, 4, 4), np.uint8)
    straight[0] = [[200, 100, 0, 255], [200, 100, 0, 128], [200, 100, 0, 0], [9, 9, 9, 255]]
    Image.fromarray(straight).save(tmp_path / "photo.png")
    read = photos.decode_photo(tmp_path / "photo.png")
    assert read.alpha.tolist() == [[255, 128, 0, 255]]
    half = [round((c * 128 + 255 * 127) / 255) for c in (200, 100, 0)]
    assert read.pixels.tolist() == [[[200, 100, 0], half, [255, 255, 255], [9, 9, 9]]]
    # Hidden colours do not bleed into the edge of a smaller copy.
    small = shrinking.decode_smaller(tmp_path / "photo.png", 2, tmp_path / "copy.npz")
    assert small.alpha.tolist() == [[192, 128]] and small.pixels[0, 1].tolist() == [132, 132, 132]
    again = shrinking.decode_smaller(tmp_path / "photo.png", 2, tmp_path / "copy.npz")
    assert np.array_equal(again.pixels, small.pixels) and np.array_equal(again.alpha, small.alpha)

    straight[..., 3] = 255
    Image.fromarray(straight).save(tmp_path / "opaque.png")
    assert photos.decode_photo(tmp_path / "opaque.png").alpha is None
    palette = Image.fromarray(straight[..., :3]).quantize(4)
    palette.save(tmp_path / "palette.png", transparency=palette.getpixel((3, 0)))
    assert photos.decode_photo(tmp_path / "palette.png").alpha.tolist() == [[255, 255, 255, 0]]


def test_heic_photos_are_read_or_the_package_is_named(capture, monkeypatch):
    for file in (capture / "images").iterdir():
        file.rename(file.with_suffix(".HEIC"))
    monkeypatch.setattr(photos, "can_read_heif", lambda: False)
    with pytest.raises(ValueError, match=r"000.HEIC is a HEIC photo.* pip install pillow-heif"):
        load(capture)
    shutil.rmtree(capture / "sparse")
    with pytest.raises(ValueError, match="pip install pillow-heif"):
        load(capture)
    monkeypatch.undo()
    pillow_heif = pytest.importorskip("pillow_heif")
    write_capture(capture)
    for file in (capture / "images").glob("*.png"):
        pillow_heif.from_pillow(Image.open(file)).save(
            file.with_suffix(".HEIC"), quality=-1, chroma=444
        )
        file.unlink()
    scene = load(capture)
    assert len(scene) == 8 and scene.notes == ()
    assert np.abs(scene.images[0].astype(int) - photo(64, 48, 1)).mean() < 3


def test_a_heic_photo_with_a_copy_in_another_format_is_left_out(tmp_path):
    for name in ("a.heic", "a.jpg", "b.heic", "c.tif", "d.bmp", "e.avif", "f.dng"):
        (tmp_path / name).write_bytes(b"")
    assert photos.list_photos(tmp_path) == ["a.jpg", "b.heic", "c.tif", "d.bmp", "e.avif"]


@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".jpeg", ".png", ".PNG", ".webp"])
def test_every_suffix_answers_a_name_of_another(capture, suffix):
    for file in (capture / "images").iterdir():
        kind = "webp" if suffix == ".webp" else None
        options = {"lossless": True} if kind else {"quality": 95}
        Image.open(file).save(file.with_suffix(suffix), kind, **options)
        if suffix != ".png":
            file.unlink()
    assert len(load(capture)) == 8 and load(capture).notes == ()


def test_images_n_folder_is_used_and_its_real_size_scales_K(capture):
    (capture / "images_2").mkdir()
    for i in range(8):
        Image.fromarray(photo(31, 23, i)).save(capture / "images_2" / f"{i:03d}.jpg")
    scene = load(capture, data_factor=2)
    assert scene.cameras.size == (31, 23) and scene.data_factor == 2
    assert np.allclose(scene.cameras.Ks[0, 0, 0], 60 * 31 / 64)
    assert np.allclose(scene.cameras.Ks[0, 1, 2], 24 * 23 / 48)
    assert not (capture / "images_2_cache").exists()


def test_an_incomplete_images_n_folder_is_not_used(capture):
    (capture / "images_2").mkdir()
    Image.fromarray(photo(32, 24)).save(capture / "images_2" / "000.png")
    scene = load(capture, data_factor=2)
    assert len(scene) == 8 and "has 1 of 8 photos" in scene.notes[0]


def test_renamed_smaller_photos_are_matched_in_order(capture):
    (capture / "images_3").mkdir()
    for i in range(8):
        Image.fromarray(np.full((16, 21, 3), i * 20, np.uint8)).save(
            capture / "images_3" / f"image{i}.png"
        )
    scene = load(capture, data_factor=3)
    assert len(scene.notes) == 1
    assert [int(image[0, 0, 0]) for image in scene.images] == [i * 20 for i in range(8)]
    assert "other names" in scene.notes[0]


@pytest.mark.parametrize("name", ["masks_8", "Depth_2", "segmentations", "normals"])
def test_maps_beside_photos_are_no_photos(name):
    assert NO_PHOTOS.match(name) and not NO_PHOTOS.match(f"{name}_by_hand")


def test_only_smaller_photos_are_suggested_or_used(capture):
    (capture / "images").rename(capture / "images_4")
    with pytest.raises(FileNotFoundError, match="use --data_factor 4"):
        load(capture)
    scene = load(capture, data_factor=4)
    assert scene.cameras.size == (64, 48)
    assert scene.notes == (
        "8 photos not of the size that the camera states at --data_factor 4 "
        "(000.png is 64x48, not 16x12); the cameras are scaled to fit",
    )


def test_photos_of_another_size_than_the_camera_states_are_counted(capture):
    assert load(capture).notes == ()
    Image.fromarray(photo(128, 96)).save(capture / "images/002.png")
    scene = load(capture)
    assert scene.cameras.Ks[2, 0, 0] == 120
    assert scene.notes[0].startswith("1 photo not of the size") and "002.png" in scene.notes[0]


def test_resized_photos_are_cached_and_renewed(capture):
    scene = load(capture, data_factor=2)
    assert scene.cameras.size == (32, 24)
    expected = cv2.resize(photo(64, 48, 1), (32, 24), interpolation=cv2.INTER_AREA)
    assert np.array_equal(scene.images[0], expected)
    assert scene.cameras.Ks[0].tolist() == [[30, 0, 16], [0, 30.5, 12], [0, 0, 1]]
    copy = capture / "images_2_cache" / "000.png.npz"
    stamp = copy.stat().st_mtime_ns
    again = load(capture, data_factor=2)
    assert copy.stat().st_mtime_ns == stamp and np.array_equal(again.images[0], expected)

    Image.fromarray(photo(64, 48, 99)).save(capture / "images/000.png")
    os.utime(capture / "images/000.png", ns=(10**18, 10**18))  # another photo, older than its copy
    copy_of_other = capture / "images_2_cache" / "001.png.npz"
    copy_of_other.write_bytes(copy_of_other.read_bytes()[:50])  # a damaged copy is written anew
    renewed = load(capture, data_factor=2)
    fresh = cv2.resize(photo(64, 48, 99), (32, 24), interpolation=cv2.INTER_AREA)
    assert np.array_equal(renewed.images[0], fresh)
    assert np.array_equal(renewed.images[1], scene.images[1])


def test_jpeg_files_shrink_while_they_are_decoded(tmp_path):
    picture, file = photo(256, 192, 3), tmp_path / "photo.jpg"
    Image.fromarray(picture).save(file, quality=95)
    for factor in (2, 3, 4, 8):
        small = shrinking.decode_smaller(file, factor, None).pixels
        exact = cv2.resize(decode(file)[0], small.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert small.shape[:2] == (round(192 / factor), 256 // factor)
        error = np.square(small.astype(float) - exact).mean()
        assert 10 * np.log10(255**2 / error) > 45, factor


@pytest.mark.parametrize("place", ["before", "after"])
def test_png_files_are_turned_wherever_their_metadata_is(tmp_path, place):
    exif = Image.Exif()
    exif[photos.ORIENTATION] = 6
    file = tmp_path / "photo.png"
    Image.fromarray(photo(8, 6)).save(file, exif=exif)
    data = file.read_bytes()
    start = data.index(b"eXIf") - 4
    chunk = data[start : start + 12 + int.from_bytes(data[start : start + 4], "big")]
    if place == "after":
        file.write_bytes(data.replace(chunk, b"").replace(b"\0\0\0\0IEND", chunk + b"\0\0\0\0IEND"))
    assert photos.read_header(file) == (8, 6, 6)
    assert decode(file)[1] == 6


def test_headers_are_read_once(capture, monkeypatch):
    opened = Counter()
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda path: opened.update([path]) or original(path))
    load(capture, data_factor=0, longest_side=32)
    assert set(opened.values()) == {2}  # once for its header, once for its pixels


@pytest.mark.parametrize("obstacle", ["a read-only capture", "a file"])
def test_without_a_writable_folder_photos_are_resized_in_memory(capture, obstacle):
    if obstacle == "a file":
        (capture / "images_2_cache").write_text("mine")
    else:
        capture.chmod(0o555)
    scene = load(capture, data_factor=2)
    assert scene.cameras.size == (32, 24)
    assert "images_2_cache cannot be written" in scene.notes[0]
    assert not (capture / "images_2_cache").is_dir()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"data_factor": 4}, r"--data_factor 4 makes the photos 16x12 .* use a smaller factor"),
        ({"data_factor": "4"}, "--data_factor 4 must be a whole number"),
        ({"data_factor": float("inf")}, "--data_factor inf must be a whole number"),
        ({"data_factor": 0, "longest_side": 0}, "longest_side 0 must be a whole number"),
        ({"data_factor": 2, "split": "half"}, "--split half is not known"),
        ({"data_factor": 2, "split": "filename"}, "name photos with _train_"),
    ],
)
def test_wrong_options_are_refused_before_any_photo_is_decoded(
    capture, monkeypatch, options, sentence
):
    monkeypatch.setattr(photos, "decode_photo", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=sentence):
        load(capture, **options)
    assert sorted(file.name for file in capture.iterdir()) == ["images", "sparse"]


def test_photos_that_are_all_empty_leave_no_cache(capture):
    for file in (capture / "images").iterdir():
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="has no views with a readable photo"):
        load(capture, data_factor=2)
    assert not (capture / "images_2_cache").exists()


def test_photos_beyond_the_limit_of_pillow_are_read_up_to_our_own(tmp_path, monkeypatch):
    Image.fromarray(photo(64, 48)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses twice as many
    assert photos.decode(tmp_path / "large.png")[0].shape == (48, 64, 3)
    assert Image.MAX_IMAGE_PIXELS == 100
    monkeypatch.setattr(photos, "MOST_PIXELS", 3000)
    with pytest.raises(photos.UnreadablePhoto, match="has 64x48 pixels, more than"):
        photos.decode(tmp_path / "large.png")


def test_unreadable_photos_are_named_and_skipped(capture):
    (capture / "images/002.png").write_bytes(b"")
    whole = (capture / "images/004.png").read_bytes()
    (capture / "images/004.png").write_bytes(whole[: len(whole) // 2])
    (capture / "images/006.png").write_text("not a photo")
    scene = load(capture)
    assert scene.names == ("000.png", "001.png", "003.png", "005.png", "007.png")
    (note,) = scene.notes
    assert "002.png is empty" in note and "004.png is damaged" in note and "006.png" in note


def test_too_few_readable_photos(capture):
    for i in range(6):
        (capture / f"images/00{i}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="only 2 views with a readable photo; at least 3"):
        load(capture)


def dotted(width, height, xy):
    y, x = np.mgrid[:height, :width] + 0.5
    dot = 255 * np.exp(-((x - xy[0]) ** 2 + (y - xy[1]) ** 2) / 8)
    return np.repeat(dot.round().astype(np.uint8)[:, :, None], 3, 2)


def centre(image):
    weight = image[:, :, 0].astype(float) ** 2
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


@pytest.mark.parametrize(("orientation", "size"), [(3, (64, 48)), (6, (48, 64)), (8, (48, 64))])
def test_views_are_turned_upright_together_with_their_cameras(tmp_path, orientation, size):
    names = write_capture(tmp_path, [f"{i}.jpg" for i in range(4)])
    straight = load(tmp_path).cameras
    point = np.array([0.3, -0.2, 0.4, 1.0])
    for i, name in enumerate(names):
        x, y, z = straight.Ks[i].numpy() @ (straight.viewmats[i].numpy() @ point)[:3]
        exif = Image.Exif()
        exif[photos.ORIENTATION] = orientation
        picture = Image.fromarray(dotted(64, 48, (x / z, y / z)))
        picture.save(tmp_path / "images" / name, quality=95, exif=exif)
    for factor in (1, 2):
        scene = load(tmp_path, data_factor=factor)
        assert scene.cameras.size == tuple(length // factor for length in size)
        for image, K, viewmat in zip(
            scene.images, scene.cameras.Ks, scene.cameras.viewmats, strict=True
        ):
            x, y, z = K.numpy() @ (viewmat.numpy() @ point)[:3]
            assert np.abs(centre(image) - [x / z, y / z]).max() < 0.3
        assert np.allclose(scene.cameras.positions, straight.positions, atol=1e-5)


def test_a_camera_of_the_turned_size_means_the_turned_pixels(tmp_path):
    names = write_capture(tmp_path, cameras=[("PINHOLE", 48, 64, [60, 61, 24, 32])])
    exif = Image.Exif()
    exif[photos.ORIENTATION] = 6
    upright = photo(48, 64, 5)
    Image.fromarray(np.rot90(upright)).save(tmp_path / "images" / names[0], exif=exif)
    scene = load(tmp_path)
    assert np.array_equal(scene.images[0], upright)
    assert scene.cameras.Ks[0].tolist() == [[60, 0, 24], [0, 61, 32], [0, 0, 1]]


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("turned", [True, False])
def test_smaller_copies_count_as_stored_whether_or_not_they_were_turned(
    tmp_path, orientation, turned
):
    names = write_capture(tmp_path)
    (tmp_path / "images_2").mkdir()
    exif = Image.Exif()
    exif[photos.ORIENTATION] = orientation
    for name in names:
        file = tmp_path / "images" / name
        with Image.open(file) as opened:
            stored = opened.copy()
        stored.save(file, exif=exif)
        small = stored.reduce(2)
        small.getexif()[photos.ORIENTATION] = orientation
        (ImageOps.exif_transpose(small) if turned else small).convert("RGB").save(
            tmp_path / "images_2" / name, exif=b""
        )
    assert "exif" not in Image.open(tmp_path / "images_2" / names[0]).info
    scene, full = load(tmp_path, data_factor=2), load(tmp_path)
    assert scene.notes == ()
    assert torch.equal(scene.cameras.viewmats, full.cameras.viewmats)
    for small, large in zip(scene.images, full.images, strict=True):
        expected = cv2.resize(large, small.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(small.astype(int) - expected).max() <= 1


def test_factor_0_fits_the_photos_into_the_longest_side(tmp_path):
    write_capture(tmp_path)
    full = load(tmp_path)
    width = max(full.cameras.sizes[0].tolist())
    fitted = load(tmp_path, data_factor=0, longest_side=-(-width // 2))
    assert fitted.data_factor == 2
    assert load(tmp_path, data_factor=0).data_factor == 1
