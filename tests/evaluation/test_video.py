import subprocess

import imageio.v3 as iio
import imageio_ffmpeg
import pytest
import torch

from evaluation.video import write_video


def ramp(n: int, height: int = 48, width: int = 64) -> list[torch.Tensor]:
    """Smooth frames whose brightness grows with time, brighter towards the right."""
    x = torch.linspace(0, 0.5, width).expand(height, width)
    return [(x + 0.5 * i / n)[:, :, None].expand(-1, -1, 3) for i in range(n)]


def test_a_video_shows_its_frames_in_order(tmp_path):
    frames = ramp(20)
    write_video(tmp_path / "a.mp4", frames, fps=10)
    decoded = torch.from_numpy(iio.imread(tmp_path / "a.mp4")).float() / 255
    assert decoded.shape == (20, 48, 64, 3)
    assert (decoded - torch.stack(frames)).abs().mean() < 0.01
    assert iio.immeta(tmp_path / "a.mp4")["fps"] == 10


def test_browsers_can_play_it(tmp_path):
    write_video(tmp_path / "a.mp4", ramp(5))
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    info = subprocess.run([ffmpeg, "-i", tmp_path / "a.mp4"], capture_output=True, text=True).stderr
    assert "h264" in info
    assert "yuv420p" in info
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # starts before it is all there


def test_odd_sizes_are_padded_and_values_clamped(tmp_path):
    frames = [torch.full((33, 45, 3), value) for value in (-1.0, 2.0, float("nan"))]
    write_video(tmp_path / "a.mp4", frames)
    decoded = torch.from_numpy(iio.imread(tmp_path / "a.mp4")).float() / 255
    assert decoded.shape == (3, 34, 46, 3)
    assert decoded.mean((1, 2, 3)).tolist() == pytest.approx([0, 1, 0], abs=0.02)


def test_frames_are_streamed(tmp_path):
    alive = []

    def frames():
        for frame in ramp(30):
            alive.append(frame)
            yield alive.pop()

    write_video(tmp_path / "a.mp4", frames())
    assert len(iio.imread(tmp_path / "a.mp4")) == 30


def test_failures_leave_nothing_behind(tmp_path):
    def broken():
        yield from ramp(3)
        raise RuntimeError("the renderer failed")

    with pytest.raises(RuntimeError, match="renderer"):
        write_video(tmp_path / "a.mp4", broken())
    with pytest.raises(ValueError, match="no frames"):
        write_video(tmp_path / "a.mp4", [])
    with pytest.raises(ValueError, match="one size"):
        write_video(tmp_path / "a.mp4", ramp(2) + ramp(1, 20, 20))
    with pytest.raises(ValueError, match="need"):
        write_video(tmp_path / "a.mp4", [torch.zeros(4, 4)])
    with pytest.raises(ValueError, match=r"a\.gif"):
        write_video(tmp_path / "a.gif", ramp(2))
    assert not list(tmp_path.iterdir())


def test_a_failure_keeps_the_older_video(tmp_path):
    write_video(tmp_path / "a.mp4", ramp(3))
    before = (tmp_path / "a.mp4").read_bytes()
    with pytest.raises(ValueError, match="no frames"):
        write_video(tmp_path / "a.mp4", [])
    assert (tmp_path / "a.mp4").read_bytes() == before
