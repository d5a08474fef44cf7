# Frames to an .mp4 that all browsers and players support: H.264, yuv420p, streamed by frame.
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from runtime.files import atomic_path
from runtime.progress import ProgressBar


def write_video(path: Path | str, frames: Iterable[Tensor], fps: float = 30) -> None:
    """Write frames, float [H,W,3] in [0,1] and all of one size, to an .mp4, atomically.

    Odd widths or heights are padded by a copy of the last column or row, since H.264 halves the
    resolution of colours. Raises ValueError for no frames, another shape or suffix, OSError if
    ffmpeg fails.
    """
    path = Path(path)
    if path.suffix != ".mp4":
        raise ValueError(f"cannot write a video as {path}; end its name in .mp4")
    total = len(frames) if hasattr(frames, "__len__") else None
    shape, encoder = None, None
    with atomic_path(path) as temporary:
        try:
            for frame in ProgressBar(frames, desc=path.name, total=total, unit="frame"):
                if shape is None:
                    shape = frame.shape
                    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
                        raise ValueError(f"video frames need [H,W,3], got {tuple(shape)}")
                    encoder = _encoder(temporary, shape[1], shape[0], fps)
                if frame.shape != shape:
                    raise ValueError(
                        f"video frames must share one size, got {tuple(shape)} and then "
                        f"{tuple(frame.shape)}"
                    )
                encoder.send(_even(_to_bytes(frame)).numpy().tobytes())
            if encoder is None:
                raise ValueError(f"no frames for the video {path}")
        finally:
            if encoder is not None:
                encoder.close()
        if temporary.stat().st_size == 0:
            raise OSError(f"ffmpeg wrote nothing to {path}")


def _encoder(path: Path, width: int, height: int, fps: float):
    """A generator that takes the bytes of frames; closing it finishes the file."""
    import imageio_ffmpeg

    encoder = imageio_ffmpeg.write_frames(
        str(path),
        (width + width % 2, height + height % 2),
        fps=fps,
        codec="libx264",
        quality=None,
        macro_block_size=1,
        output_params=["-crf", "18", "-preset", "fast", "-movflags", "+faststart"],
    )
    encoder.send(None)
    return encoder


def _to_bytes(frame: Tensor) -> Tensor:
    return (frame.detach().cpu().float().nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8)


def _even(image: Tensor) -> Tensor:
    """uint8 [H,W,3] with even H and W: the last row or column is repeated."""
    height, width = image.shape[:2]
    channels_first = image.permute(2, 0, 1)[None].float()
    grown = pad(channels_first, (0, width % 2, 0, height % 2), mode="replicate")
    return grown[0].permute(1, 2, 0).to(torch.uint8).contiguous()
