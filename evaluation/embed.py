# Pictures and videos as data URIs, small enough for a page with many of them.
from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

JPEG_QUALITY = 88
VIDEO_LIMIT = 8_000_000  # bytes; a larger video is linked
VIDEO_TYPES = {".mp4": "video/mp4", ".webm": "video/webm"}


def encode_jpeg(image: np.ndarray, longest: int) -> str:
    """Data URI of an image, uint8 [H, W, 3], as a JPEG of at most `longest` pixels a side."""
    picture = Image.fromarray(image)
    if max(picture.size) > longest:
        picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return _uri("image/jpeg", buffer.getvalue())


def encode_png(image: np.ndarray) -> str:
    """Data URI of an image, uint8 [H, W, 3], as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return _uri("image/png", buffer.getvalue())


def embed_video(video: Path, folder: Path) -> dict[str, str | None]:
    """{"name", "data", "link"}: a data URI if the video is small, and its path from `folder`.

    Raises FileNotFoundError if it does not exist, ValueError if it is neither .mp4 nor .webm.
    """
    video = Path(video)
    if not video.is_file():
        raise FileNotFoundError(f"The report's video {video} does not exist.")
    kind = VIDEO_TYPES.get(video.suffix.lower())
    if kind is None:
        raise ValueError(f"The report's video {video} is not an .mp4 or .webm.")
    small = video.stat().st_size < VIDEO_LIMIT
    link = Path(os.path.relpath(video.resolve(), folder.resolve())).as_posix()
    return {
        "name": video.name,
        "data": _uri(kind, video.read_bytes()) if small else None,
        "link": quote(link),
    }


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
