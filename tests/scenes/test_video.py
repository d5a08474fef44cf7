import json
import subprocess

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

import scenes
from scenes import video
from scenes.formats import from_video, unposed
from tests.scenes.captures import photo
from tests.scenes.corner import HEIGHT, WIDTH, corner_views

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


def write_video(file, frames, fps=10):
    height, width = frames[0].shape[:2]
    writer = imageio_ffmpeg.write_frames(
        str(file), (width, height), fps=fps, quality=8, macro_block_size=2
    )
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()
    return file


def write_numbered_video(file, n=30):
    """Frame i has the brightness 8 i in its right half; every fifth is sharp in its left one."""
    pattern = photo(160, 120, 0)
    blurred = cv2.GaussianBlur(pattern, (0, 0), 3)
    weight = np.clip((np.arange(160) - 60) / 40, 0, 1)[:, None]  # soft, so that it is not sharp
    frames = [
        ((1 - weight) * (pattern if i % 5 == 2 else blurred) + weight * 8 * i).astype(np.uint8)
        for i in range(n)
    ]
    return write_video(file, frames)


def read_numbers(capture):
    """Which frames of a numbered video were taken, in the order of their names."""
    files = sorted((capture / "images").iterdir())
    assert [file.name for file in files] == [f"frame_{i + 1:05d}.jpg" for i in range(len(files))]
    return [round(float(np.array(Image.open(file))[:, 120:].mean()) / 8) for file in files]


def test_the_sharpest_frame_of_each_window_is_taken_once(tmp_path):
    clip = write_numbered_video(tmp_path / "clip.mp4")
    capture, notes = from_video.prepare_video(clip, 6, False)
    assert capture == tmp_path / "clip_frames" and read_numbers(capture) == [2, 7, 12, 17, 22, 27]
    assert "6 frames of clip.mp4" in notes[0] and "every 0.5 s" in notes[0]
    assert sorted(file.name for file in capture.iterdir()) == ["images", video.MARKER]
    before = (capture / "images/frame_00001.jpg").stat().st_mtime_ns
    assert from_video.prepare_video(clip, None, False) == (capture, notes)
    assert from_video.prepare_video(clip, 6, False) == (capture, notes)
    assert (capture / "images/frame_00001.jpg").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"images holds 6 frames of an earlier time.* delete it"):
        from_video.prepare_video(clip, 7, False)


def test_a_stopped_extraction_continues(tmp_path, monkeypatch):
    clip = write_numbered_video(tmp_path / "clip.mp4")
    original, calls = video.measure_sharpness, []

    def measure(frame):
        calls.append(0)
        if len(calls) == 18:
            raise KeyboardInterrupt
        return original(frame)

    monkeypatch.setattr(video, "measure_sharpness", measure)
    with pytest.raises(KeyboardInterrupt):
        from_video.prepare_video(clip, 6, False)
    capture = tmp_path / "clip_frames"
    assert sorted(file.name for file in capture.iterdir()) == [".frames"]
    from_video.prepare_video(clip, 6, False)
    assert len(calls) == 18 + 20  # of the window that was the last, and those after it
    assert read_numbers(capture) == [2, 7, 12, 17, 22, 27]


def test_frames_of_a_turned_video_are_upright(tmp_path):
    clip = write_numbered_video(tmp_path / "clip.mp4", 10)
    turned = tmp_path / "turned.MOV"
    options = ["-display_rotation", "90", "-i", str(clip), "-c", "copy", str(turned)]
    subprocess.run([FFMPEG, "-v", "error", *options], check=True)
    for file in (clip, turned):
        from_video.prepare_video(file, 3, False)
    read = [
        np.array(Image.open(tmp_path / f"{name}_frames/images/frame_00002.jpg")).astype(int)
        for name in ("clip", "turned")
    ]
    assert read[1].shape == (160, 120, 3)
    assert np.abs(np.rot90(read[0]) - read[1]).mean() < 2  # 90 degrees counter-clockwise


def test_the_default_number_of_frames_depends_on_the_length(tmp_path):
    clip = write_video(tmp_path / "clip.mp4", [photo(32, 32, i % 2) for i in range(100)], fps=25)
    capture, notes = from_video.prepare_video(clip, None, False)
    assert len(list((capture / "images").iterdir())) == video.FEWEST and len(notes) == 1


def test_videos_of_no_use_are_refused_and_leave_nothing_behind(tmp_path):
    clip = write_numbered_video(tmp_path / "clip.mp4")
    data = clip.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])  # its index is at the end
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.webm").write_bytes(np.random.default_rng(0).bytes(5000))
    write_video(tmp_path / "short.mp4", [photo(32, 32, 0)] * 2)
    before = sorted(tmp_path.iterdir())
    for name in ("cut.mp4", "empty.mp4", "noise.webm"):
        with pytest.raises(ValueError, match=f"{name} is not a video that can be read: empty, dam"):
            scenes.load(tmp_path / name, progress=False)
    with pytest.raises(ValueError, match=r"short\.mp4 has only 2 frames that can be read; at leas"):
        scenes.load(tmp_path / "short.mp4", progress=False)
    with pytest.raises(ValueError, match="--video_frames 2 must be at least 3"):
        scenes.load(clip, video_frames=2, progress=False)
    assert sorted(tmp_path.iterdir()) == before


def test_the_readable_part_of_a_damaged_video_is_used(tmp_path):
    clip = write_numbered_video(tmp_path / "clip.mp4")
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    options = ["-i", str(clip), "-c", "copy", "-movflags", "+faststart", str(whole)]
    subprocess.run([FFMPEG, "-v", "error", *options], check=True)
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) * 2 // 3])
    capture, notes = from_video.prepare_video(cut, 6, False)
    numbers = read_numbers(capture)
    assert 3 <= len(numbers) <= 6 and max(numbers) < 25
    assert "the video is damaged" in notes[0] and "of 3.0 s can be read" in notes[0]


def test_a_folder_with_a_video_and_nothing_else_is_a_capture(tmp_path):
    clip = write_numbered_video(tmp_path / "clip.mp4")
    assert from_video.prepare_video(tmp_path, 5, False)[0] == tmp_path
    assert len(read_numbers(tmp_path)) == 5
    marker = json.loads((tmp_path / video.MARKER).read_text())
    assert marker["video"] == "clip.mp4" and marker["frames"] == 5
    assert from_video.prepare_video(tmp_path, None, False)[1] == [marker["note"]]
    (tmp_path / "images").rename(tmp_path / "sparse")
    with pytest.raises(ValueError, match=r"sparse has the poses of other frames .* delete it"):
        from_video.prepare_video(tmp_path, 6, False)
    clip.unlink()
    assert from_video.prepare_video(tmp_path, None, False) == (tmp_path, [])


def test_which_video_is_meant_must_be_clear(tmp_path, capture):
    places = [tmp_path / "videos", tmp_path / "photos"]
    for place in places:
        place.mkdir()
        for name in ("a.mp4", "b.mov"):
            (place / name).touch()
    Image.fromarray(photo(32, 32, 0)).save(places[1] / "0.png")
    with pytest.raises(ValueError, match=r"no photos but 2 videos; name one: a\.mp4, b\.mov"):
        from_video.prepare_video(places[0], None, False)
    assert from_video.prepare_video(places[1], None, False) == (places[1], [])  # of its photos
    for place in (places[1], capture):
        with pytest.raises(ValueError, match="--video_frames 9 is for a video, or a folder that"):
            from_video.prepare_video(place, 9, False)


def test_a_video_is_posed_by_structure_from_motion(tmp_path, monkeypatch):
    pictures, _ = corner_views(24)
    clip = write_video(tmp_path / "clip.mp4", pictures)
    scene = scenes.load(clip, video_frames=6, progress=False)
    assert len(scene) == 6 and scene.path == tmp_path / "clip_frames"
    assert scene.cameras.size == (WIDTH, HEIGHT) and "6 frames of clip.mp4" in scene.notes[0]
    monkeypatch.setattr(unposed, "structure_from_motion", lambda *_: pytest.fail("ran again"))
    again = scenes.load(clip, progress=False)
    assert again.notes == scene.notes and again.names == scene.names
