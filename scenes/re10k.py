# RealEstate10K as pixelSplat distributes it (chunks of scenes, *.torch), and as LVSM's scripts lay
# it out: a JSON file for each scene, beside its pictures.
from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from runtime import pickles
from runtime.files import write_bytes, write_json
from runtime.progress import ProgressBar

CAMERA = 18  # numbers of a chunk's camera: fx, fy, cx, cy in picture sizes, two zeros, w2c [3,4]
ENDINGS = {"JPEG": ".jpg", "PNG": ".png"}


@dataclass(frozen=True)
class EncodedScene:
    """A scene of a chunk: its key, the bytes of the pictures' files uint8 [n] each, and cameras
    float64 [F,18]."""

    key: str
    images: tuple[Tensor, ...]
    cameras: np.ndarray

    @property
    def viewmats(self) -> np.ndarray:
        """World to camera, [F,4,4]."""
        matrices = np.tile(np.eye(4), (len(self.cameras), 1, 1))
        matrices[:, :3] = self.cameras[:, 6:].reshape(-1, 3, 4)
        return matrices

    def intrinsics(self, width: int, height: int) -> np.ndarray:
        """fx, fy, cx, cy in pixels of pictures of a size, [F,4]."""
        return self.cameras[:, :4] * [width, height, width, height]

    def data(self, frame: int) -> bytes:
        """The file of a picture."""
        return self.images[frame].numpy().tobytes()


def read_chunk(path: Path, *, mmap: bool = False) -> Iterator[EncodedScene]:
    """The scenes of a chunk. mmap: pictures are read from the file when they are asked for.

    ValueError, naming the file and the scene, for what is not one."""
    content = pickles.load(path, mmap=mmap)
    if not isinstance(content, list):
        raise ValueError(f"{path} is no chunk of RealEstate10K: it holds no list of scenes")
    for number, scene in enumerate(content):
        try:
            cameras = torch.as_tensor(scene["cameras"]).double().numpy()
            images = tuple(torch.as_tensor(image) for image in scene["images"])
            key = str(scene["key"])
        except (KeyError, TypeError, IndexError, RuntimeError) as error:
            raise ValueError(f"{path}: scene {number} has no {error}") from None
        if cameras.ndim != 2 or cameras.shape[1] != CAMERA or len(cameras) != len(images):
            raise ValueError(
                f"{path}: scene {key} has cameras {list(cameras.shape)} for {len(images)} "
                f"pictures, not [F,{CAMERA}]"
            )
        if not np.isfinite(cameras).all():
            raise ValueError(f"{path}: scene {key} has cameras that are not finite")
        if Path(key).name != key or key in ("", ".", ".."):
            raise ValueError(f"{path}: the key {key!r} of scene {number} is no file's name")
        yield EncodedScene(key, images, cameras)


@lru_cache(maxsize=8)
def open_chunk(path: Path) -> tuple[EncodedScene, ...]:
    """The scenes of a chunk, whose pictures stay on disk."""
    return tuple(read_chunk(path, mmap=True))


def write_scene(scene: EncodedScene, folder: Path, *, as_png: bool = False) -> Path:
    """Write a scene's pictures below `folder`/images and its metadata/<key>.json, whose path is
    returned: last, so that a scene with it is whole.

    The pictures' bytes stay as they are; as_png: decoded and written as the original's script
    does, several times as large. ValueError for a picture that cannot be read."""
    frames = []
    for i, viewmat in enumerate(scene.viewmats):
        data = scene.data(i)
        try:
            with Image.open(io.BytesIO(data)) as image:
                kind, (width, height) = image.format, image.size
                if as_png:
                    buffer = io.BytesIO()
                    image.convert("RGB").save(buffer, "PNG")
                    data, kind = buffer.getvalue(), "PNG"
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"scene {scene.key}: picture {i} cannot be read ({error})") from None
        path = folder / "images" / scene.key / f"{i:05d}{ENDINGS.get(kind, '.png')}"
        write_bytes(path, data)
        frames.append(
            {
                "image_path": str(path.absolute()),
                "fxfycxcy": scene.intrinsics(width, height)[i].tolist(),
                "w2c": viewmat.tolist(),
            }
        )
    return write_json(
        folder / "metadata" / f"{scene.key}.json", {"scene_name": scene.key, "frames": frames}
    )


@dataclass(frozen=True)
class ProcessedScene:
    """A scene as `write_scene` lays it out; pictures are read when they are asked for.

    paths: of the pictures. Ks: float32 [F,3,3] in their pixels. viewmats: float64 [F,4,4]."""

    name: str
    paths: tuple[Path, ...]
    Ks: Tensor
    viewmats: np.ndarray

    @classmethod
    def read(cls, path: Path) -> ProcessedScene:
        """The scene of a metadata file. ValueError or FileNotFoundError names it."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            frames = content["frames"]
            name = str(content.get("scene_name", Path(path).stem))
            values = torch.tensor([frame["fxfycxcy"] for frame in frames], dtype=torch.float32)
            viewmats = np.array([frame["w2c"] for frame in frames], dtype=np.float64)
            paths = tuple(cls.find(Path(path), frame["image_path"]) for frame in frames)
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: no such file") from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path} is no scene of frames ({error})") from None
        if not frames or values.shape != (len(frames), 4) or viewmats.shape != (len(frames), 4, 4):
            raise ValueError(f"{path}: each frame needs fxfycxcy [4] and w2c [4,4]")
        return cls(name, paths, make_Ks(values), viewmats)

    @staticmethod
    def find(metadata: Path, image: str) -> Path:
        """A picture beside the metadata, in a folder that may have been moved, or else where the
        file says."""
        path = Path(image)
        beside = metadata.parent.parent / "images" / path.parent.name / path.name
        return beside if beside.is_file() else path

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, frame: int) -> Image.Image:
        """A picture, RGB. ValueError, naming the file, where it cannot be read."""
        try:
            with Image.open(self.paths[frame]) as image:
                return image.convert("RGB")
        except FileNotFoundError:
            raise ValueError(f"{self.paths[frame]}: no such picture") from None
        except OSError as error:
            raise ValueError(f"{self.paths[frame]} cannot be read ({error})") from None


@dataclass(frozen=True)
class ChunkedScene:
    """A scene in a chunk, otherwise as `ProcessedScene`; `number` is its place there."""

    name: str
    chunk: Path
    number: int
    Ks: Tensor
    viewmats: np.ndarray

    @classmethod
    def read_all(cls, path: Path) -> list[ChunkedScene]:
        """The scenes of a chunk. ValueError, naming it, for what cannot be read."""
        scenes = []
        for number, scene in enumerate(open_chunk(path)):
            size = decode(scene.data(0), f"{path}: scene {scene.key}: picture 0").size
            Ks = make_Ks(torch.from_numpy(scene.intrinsics(*size)).float())
            scenes.append(cls(scene.key, path, number, Ks, scene.viewmats))
        return scenes

    def __len__(self) -> int:
        return len(self.Ks)

    def image(self, frame: int) -> Image.Image:
        """A picture, RGB. ValueError, naming the chunk, where it cannot be read."""
        data = open_chunk(self.chunk)[self.number].data(frame)
        return decode(data, f"{self.chunk}: scene {self.name}: picture {frame}")


def make_Ks(values: Tensor) -> Tensor:
    """[...,3,3] of fx, fy, cx, cy [...,4]."""
    Ks = torch.eye(3, dtype=values.dtype).repeat(*values.shape[:-1], 1, 1)
    Ks[..., 0, 0], Ks[..., 1, 1], Ks[..., 0, 2], Ks[..., 1, 2] = values.unbind(-1)
    return Ks


def decode(data: bytes, name: str) -> Image.Image:
    """A picture, RGB, of the bytes of its file. ValueError, naming it, where it cannot be read."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error})") from None


def list_scenes(path: Path, most: int | None = None) -> list[ProcessedScene | ChunkedScene]:
    """The scenes of a list (full_list.txt), or of a folder of chunks *.torch; the first `most` of
    them, without reading the others.

    ValueError or FileNotFoundError, naming the file, for what cannot be read."""
    path = Path(path)
    if not path.is_dir():
        files = read_list(path)[:most]
        return [ProcessedScene.read(f) for f in ProgressBar(files, "scenes", unit="scene", delay=3)]
    chunks = sorted(path.glob("*.torch"))
    if not chunks:
        raise FileNotFoundError(f"{path} has neither a list of scenes nor chunks *.torch")
    bar = ProgressBar(chunks, "chunks", unit="chunk", delay=3)
    return list(islice((scene for chunk in bar for scene in ChunkedScene.read_all(chunk)), most))


def read_list(path: Path) -> list[Path]:
    """The metadata files in a list, one a line; moved ones are looked for beside the list."""
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such list of scenes") from None
    files = []
    for line in filter(None, lines):
        file, beside = Path(line), Path(path).parent / "metadata" / Path(line).name
        files.append(file if file.is_file() or not beside.is_file() else beside)
    if not files:
        raise ValueError(f"{path} lists no scene")
    return files


def read_frames(values: Sequence) -> list[int]:
    """Numbers of frames; ValueError for anything but whole numbers."""
    if not all(type(value) is int for value in values):
        raise ValueError("frames are whole numbers")
    return list(values)


def read_index(path: Path) -> dict[str, tuple[Sequence[int], Sequence[int]]]:
    """pixelSplat's index of an evaluation: context and target frames by scene. Scenes without any
    (null) are left out. ValueError, naming the file, for anything else."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        index = {
            str(key): (read_frames(value["context"]), read_frames(value["target"]))
            for key, value in content.items()
            if value is not None
        }
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such index of views") from None
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(
            f'{path} is no index of views: give {{"scene": {{"context": [0, 9], "target": [4]}}}}'
        ) from None
    for key, (context, target) in index.items():
        if not context or not target or min(context + target) < 0:
            raise ValueError(f"{path}: scene {key} needs context and target frames, from 0 on")
    return index
