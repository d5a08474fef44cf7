# COLMAP models, binary and text: https://colmap.github.io/format.html
from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pycolmap
from torch import Tensor

from runtime.files import make_writable_folder, replace_folder, write_json
from runtime.text import format_count
from scenes.cameras import Cameras
from scenes.capture import LARGEST, Capture, Lens, check_lens, check_poses, make_no_points
from scenes.formats.colmap_check import check_binary, check_text
from scenes.photos import list_photos

# Where a model lies below the folder a user names: COLMAP and gsplat, Difix, DL3DV-Benchmark.
MODEL_FOLDERS = (
    *("sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse"),
    *("gaussian_splat/sparse/0", "gaussian_splat/sparse"),
)


def find_model(folder: Path) -> Path | None:
    """The folder with the cameras, images or points files of a model, or None."""
    for place in MODEL_FOLDERS:
        model = folder / place
        parts = ("cameras", "images", "points3D")
        if any((model / f"{part}.{end}").is_file() for part in parts for end in ("bin", "txt")):
            return model
    return None


def find_photo_folder(path: Path, model: Path) -> Path:
    """`images` beside the sparse folder or in the scene's folder, else the one with photos."""
    sparse = model if model.name == "sparse" else model.parent
    for folder in (sparse.parent, path):
        if (folder / "images").is_dir() or any(folder.glob("images_[0-9]*")):
            return folder / "images"
    return next((folder for folder in (sparse.parent, path) if list_photos(folder)), path)


def read(model: Path, photo_folder: Path) -> Capture:
    """The posed views and points of a model; photos are looked up in `photo_folder`.

    Raises ValueError or FileNotFoundError, naming the file, if it is incomplete or damaged.
    """
    cameras, images, points = _files(model)
    check = check_binary if cameras.suffix == ".bin" else check_text
    check(cameras, images, points)
    # Read without rigs and frames: images files hold every pose, and older programs write no rigs.
    with tempfile.TemporaryDirectory() as staging:
        for file in (cameras, images):
            (Path(staging) / file.name).symlink_to(file.absolute())
        staged_points = Path(staging) / f"points3D{cameras.suffix}"
        if points is None:
            staged_points.write_bytes(bytes(8) if cameras.suffix == ".bin" else b"")
        else:
            staged_points.symlink_to(points.absolute())
        try:
            model_read = pycolmap.Reconstruction(staging)
        except Exception as error:  # pycolmap raises whatever its C++ threw
            reason = str(error).replace(staging, str(model)).splitlines()
            raise ValueError(
                f"the COLMAP model in {model} is damaged ({reason[0] if reason else 'unreadable'})"
            ) from None

    views = sorted(model_read.images.values(), key=lambda image: image.name)
    names = tuple(view.name for view in views)
    if len(set(names)) < len(names):
        raise ValueError(f"{images} lists the same photo twice")
    lenses = {
        number: check_lens(_lens(camera, cameras), f"{cameras}: camera {number}")
        for number, camera in model_read.cameras.items()
    }
    viewmats = np.tile(np.eye(4), (len(views), 1, 1))
    for viewmat, view in zip(viewmats, views, strict=True):
        viewmat[:3] = view.cam_from_world().matrix()
    check_poses(viewmats, names, images)

    notes = []
    xyz, colors = make_no_points()
    if points is None:
        notes.append(f"{model} has no points3D file, so the scene has no points")
    elif len(model_read.points3D):
        cloud = [point for _, point in sorted(model_read.points3D.items())]
        xyz = np.array([point.xyz for point in cloud])
        colors = np.array([point.color for point in cloud]).astype(np.float32) / 255
        good = (np.abs(xyz) < LARGEST).all(1)
        if not good.all():
            skipped = format_count(int((~good).sum()), "point")
            notes.append(f"{points}: skipped {skipped} not finite or beyond {LARGEST:g}")
        xyz, colors = xyz[good], colors[good]
    return Capture(
        kind="COLMAP",
        photo_folder=photo_folder,
        names=names,
        lenses=tuple(lenses[view.camera_id] for view in views),
        viewmats=viewmats,
        points=xyz,
        colors=colors,
        notes=tuple(notes),
    )


def write(
    scene_folder: Path | str,
    cameras: Cameras,
    names: list[str] | tuple[str, ...],
    points: Tensor,
    colors: Tensor,
) -> Path:
    """Write a model to `scene_folder`/sparse/0 (PINHOLE, binary) and return that folder.

    points: [P, 3], colors: [P, 3] in [0, 1]. Views with equal intrinsics share a camera. An older
    model is replaced. Raises ValueError if the numbers of names and cameras differ.
    """
    if len(names) != len(cameras) or len(points) != len(colors):
        raise ValueError(
            f"{len(names)} names for {len(cameras)} cameras, "
            f"{len(colors)} colours for {len(points)} points"
        )
    model = pycolmap.Reconstruction()
    camera_ids: dict[tuple, int] = {}
    for index, (name, viewmat, K, size) in enumerate(
        zip(
            names,
            cameras.viewmats.double().cpu().numpy(),
            cameras.Ks.double().cpu().numpy(),
            cameras.sizes.tolist(),
            strict=True,
        )
    ):
        params = (K[0, 0], K[1, 1], K[0, 2], K[1, 2])
        camera_id = camera_ids.get((*size, *params))
        if camera_id is None:
            camera_id = camera_ids[(*size, *params)] = len(camera_ids) + 1
            model.add_camera_with_trivial_rig(
                pycolmap.Camera(
                    model="PINHOLE",
                    width=size[0],
                    height=size[1],
                    params=params,
                    camera_id=camera_id,
                )
            )
        model.add_image_with_trivial_frame(
            pycolmap.Image(name=str(name), camera_id=camera_id, image_id=index + 1),
            pycolmap.Rigid3d(viewmat[:3]),
        )
    colors = (colors.detach().double().cpu() * 255).round().clamp(0, 255).byte().numpy()
    for xyz, color in zip(points.detach().double().cpu().numpy(), colors, strict=True):
        model.add_point3D(xyz, pycolmap.Track(), color)
    return write_model(model, Path(scene_folder))


def write_model(
    model: pycolmap.Reconstruction, scene_folder: Path, beside: dict[str, object] | None = None
) -> Path:
    """Write a model to `scene_folder`/sparse/0, whole or not at all.

    beside: data of further JSON files in that folder, by file name.
    """
    sparse = make_writable_folder(scene_folder / "sparse")
    temporary = Path(tempfile.mkdtemp(prefix=".0-", dir=sparse))
    try:
        temporary.chmod(0o755)
        model.write_binary(temporary)
        for name, data in (beside or {}).items():
            write_json(temporary / name, data)
        return replace_folder(temporary, sparse / "0")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _files(model: Path) -> tuple[Path, Path, Path | None]:
    """cameras, images and, if there is one, points3D of the same format."""
    for end in ("bin", "txt"):
        cameras, images, points = (
            model / f"{part}.{end}" for part in ("cameras", "images", "points3D")
        )
        if cameras.is_file() and images.is_file():
            return cameras, images, points if points.is_file() else None
    missing = "cameras" if not list(model.glob("cameras.*")) else "images"
    raise FileNotFoundError(
        f"{model} has no {missing}.bin (or .txt); a COLMAP model needs cameras and images files"
    )


def _lens(camera: pycolmap.Camera, file: Path) -> Lens:
    model, params = camera.model.name, [float(value) for value in camera.params]
    if model in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL"):
        fx, fy, cx, cy = params[0], *params[:3]
        radial = [*params[3:], 0.0, 0.0][:2]
        extra = [*radial, 0.0, 0.0]
    elif model in ("PINHOLE", "OPENCV", "OPENCV_FISHEYE"):
        (fx, fy, cx, cy), extra = params[:4], params[4:]
    else:
        raise ValueError(f"{file} uses the camera model {model}, which is not supported")
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    return Lens(camera.width, camera.height, K, tuple(extra), fisheye=model == "OPENCV_FISHEYE")
