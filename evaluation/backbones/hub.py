# The weights as torchvision publishes them, in the torch hub's folder or downloaded to it. Unlike
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

from runtime.files import write_bytes
from runtime.progress import ProgressBar

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
URLS = {
    "alex": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "vgg": "https://download.pytorch.org/models/vgg16-397923af.pth",
}


def find_folder() -> Path:
    """Where torchvision keeps weights."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def find_file(net: str) -> Path | None:
    """torchvision's file of "alex" or "vgg", or None; ValueError if it is damaged."""
    file = find_folder() / _name(net)
    if not file.exists():
        return None
    if not _is_genuine(file.name, file.read_bytes()):
        raise ValueError(
            f"{file} is damaged (its checksum is wrong); delete it and fetch {URLS[net]} again."
        )
    return file


def download(net: str) -> Path:
    """Fetch torchvision's file of "alex" or "vgg"; OSError with the reason if that fails."""
    file = find_folder() / _name(net)
    try:
        data = _download(URLS[net], file.name)
        if not _is_genuine(file.name, data):
            raise OSError("what arrived has a wrong checksum")
        return write_bytes(file, data)
    except (OSError, HTTPException) as error:
        why = getattr(error, "reason", error)  # urllib's errors wrap the one that says something
        why = getattr(why, "strerror", None) or why
        raise OSError(f"{file.name} could not be downloaded ({why})") from None


def _name(net: str) -> str:
    return URLS[net].rsplit("/", 1)[1]


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
        with ProgressBar(total=size, unit="B", unit_scale=True, desc=name) as bar:
            chunks = []
            while chunk := response.read(1 << 20):
                chunks.append(chunk)
                bar.update(len(chunk))
    return b"".join(chunks)
