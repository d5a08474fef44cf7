# The ImageNet weights that LPIPS stands on: found in the torch hub's folder, or put there.
# torch's own download has no time limit and trusts a file that is already there; this has, and
# does not: a number must not come from a half-written or foreign file.
from __future__ import annotations

import hashlib
import logging
import threading
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

import torch
from tqdm import tqdm

from runtime.files import write_bytes

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0


def fetch_backbone(net: str) -> str | None:
    """Make the weights of LPIPS's "alex" or "vgg" available to torchvision.

    None when they are there; else one sentence that says what failed and where to put which file.
    """
    try:
        from torchvision.models import AlexNet_Weights, VGG16_Weights
    except ImportError:
        return "the Python package torchvision is not installed."
    weights = {"alex": AlexNet_Weights, "vgg": VGG16_Weights}[net]
    url = weights.IMAGENET1K_V1.url
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if file.exists():
        if _is_genuine(file.name, file.read_bytes()):
            return None
        return f"{file} is damaged (its checksum is wrong); delete it and fetch {url} again."
    try:
        data = _download(url, file.name)
        if not _is_genuine(file.name, data):
            raise OSError("what arrived has a wrong checksum")
        write_bytes(file, data)
    except (OSError, HTTPException) as error:
        why = getattr(error, "reason", error)  # urllib's errors wrap the one that says something
        why = getattr(why, "strerror", None) or why
        return f"{file.name} could not be downloaded ({why}); put {url} into {file.parent}."
    return None


def _is_genuine(name: str, data: bytes) -> bool:
    """Whether the SHA-256 of `data` begins as the hub's file name says: name-<digits>.pth."""
    return hashlib.sha256(data).hexdigest().startswith(Path(name).stem.rsplit("-", 1)[1])


def _download(url: str, name: str) -> bytes:
    """The body at `url`. OSError within CONNECT_SECONDS if nobody answers."""
    answer = []

    def connect() -> None:
        try:
            request = Request(url, headers={"User-Agent": "torch.hub"})
            answer.append(urlopen(request, timeout=CONNECT_SECONDS))
        except Exception as error:
            answer.append(error)

    # A socket's timeout covers neither the name look-up nor a host with many dead addresses.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if not answer:
        raise TimeoutError(f"no answer within {CONNECT_SECONDS:.0f} s")
    if isinstance(answer[0], Exception):
        raise answer[0]
    log.info("Downloading %s", url)
    with answer[0] as response:
        size = int(response.headers.get("Content-Length", 0)) or None
        with tqdm(total=size, unit="B", unit_scale=True, desc=name) as bar:
            chunks = []
            while chunk := response.read(1 << 20):
                chunks.append(chunk)
                bar.update(len(chunk))
    return b"".join(chunks)
