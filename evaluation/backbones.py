# ImageNet weights of LPIPS's backbones, in the torch hub's folder or downloaded to it. Unlike
# torch's own download, this one has a time limit and verifies existing files, so that no metric
# comes from a truncated or foreign file.
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
    """Make the weights of LPIPS's "alex" or "vgg" available to torchvision, by download if needed.

    Returns None on success, else a sentence with the reason and where to put which file.
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
    """The body at `url`. Raises OSError within CONNECT_SECONDS if nobody answers."""
    answers = []

    def connect() -> None:
        try:
            request = Request(url, headers={"User-Agent": "torch.hub"})
            answers.append(urlopen(request, timeout=CONNECT_SECONDS))
        except Exception as error:
            answers.append(error)

    # A socket's timeout covers neither the name look-up nor a host with many dead addresses.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if not answers:
        raise TimeoutError(f"no answer within {CONNECT_SECONDS:.0f} s")
    if isinstance(answers[0], Exception):
        raise answers[0]
    log.info("Downloading %s", url)
    with answers[0] as response:
        size = int(response.headers.get("Content-Length", 0)) or None
        with tqdm(total=size, unit="B", unit_scale=True, desc=name) as bar:
            chunks = []
            while chunk := response.read(1 << 20):
                chunks.append(chunk)
                bar.update(len(chunk))
    return b"".join(chunks)
