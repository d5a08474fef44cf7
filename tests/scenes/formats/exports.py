# Independent writers of other programs' exports, each from its documentation, for a known capture.
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from scenes import Scene

FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
Distort = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Views:
    """A capture to write: viewmats [N, 4, 4] (OpenCV), one K in pixels (centres at half-integers),
    colours of 0 to 255. error: that of the true points in its photos, seen with the true cameras.
    """

    names: tuple[str, ...]
    viewmats: np.ndarray
    K: np.ndarray
    width: int
    height: int
    points: np.ndarray
    colors: np.ndarray
    distort: Distort | None
    error: float

    @property
    def camtoworlds(self) -> np.ndarray:
        return np.linalg.inv(self.viewmats)


def retake(
    known: Scene,
    folder: Path,
    *,
    zoom: float = 1.1,
    aspect: float = 1.0,
    offset: tuple[float, float] = (0.0, 0.0),
    skew: float = 0.0,
    distort: Distort | None = None,
) -> Views:
    """Write the known photos into `folder` as a lens of another K and distortion sees them.

    distort: from undistorted to distorted coordinates on the plane at depth 1.
    """
    height, width = known.images[0].shape[:2]
    K_known = known.cameras.Ks[0].double().numpy()
    K = K_known.copy()
    K[0, 0], K[1, 1] = zoom * K[0, 0], zoom * aspect * K[1, 1]
    K[:2, 2] += offset
    K[0, 1] = skew
    v, u = np.mgrid[:height, :width] + 0.5
    y_seen = (v - K[1, 2]) / K[1, 1]
    x_seen = (u - K[0, 2] - skew * y_seen) / K[0, 0]
    x, y = x_seen.copy(), y_seen.copy()
    for _ in range(50 if distort else 0):  # the inverse, by fixed-point iteration
        x_now, y_now = distort(x, y)
        x, y = x + x_seen - x_now, y + y_seen - y_now
    maps = (K_known[0, 0] * x + K_known[0, 2] - 0.5, K_known[1, 1] * y + K_known[1, 2] - 0.5)
    folder.mkdir(parents=True)
    points, colors = known.points.double().numpy(), known.point_colors.double().numpy()
    errors = []
    for i, name in enumerate(known.names):
        photo = cv2.remap(known.images[i], *(m.astype(np.float32) for m in maps), cv2.INTER_CUBIC)
        Image.fromarray(photo).save(folder / name, compress_level=1)
        viewmat = known.cameras.viewmats[i].double().numpy()
        x, y, z = viewmat[:3, :3] @ points.T + viewmat[:3, 3:]
        x, y = distort(x / z, y / z) if distort else (x / z, y / z)
        u, v = K[0, 0] * x + skew * y + K[0, 2], K[1, 1] * y + K[1, 2]
        inside = (z > 0) & (u > 0) & (u < width) & (v > 0) & (v < height)
        seen = photo[v[inside].astype(int), u[inside].astype(int)]
        errors.append(np.abs(seen / 255 - colors[inside]).mean(1))
    return Views(
        names=known.names,
        viewmats=known.cameras.viewmats.double().numpy(),
        K=K,
        width=width,
        height=height,
        points=points[::4],
        colors=(255 * colors[::4]).round(),
        distort=distort,
        error=float(np.median(np.concatenate(errors))),
    )


def write_polycam(root: Path, known: Scene, kind: str = "corrected_") -> Views:
    """keyframes/ as in polyform's README: row-major t_ij, ARKit's axes (right, up, back)."""
    keyframes = root / "keyframes"
    views = retake(known, keyframes / f"{kind}images", aspect=0.96, offset=(5, -4))
    cameras = keyframes / f"{kind}cameras"
    cameras.mkdir()
    for name, pose in zip(views.names, views.camtoworlds @ FLIP, strict=True):
        content = {f"t_{i}{j}": pose[i, j] for i in range(3) for j in range(4)}
        content |= {"fx": views.K[0, 0], "fy": views.K[1, 1], "cx": views.K[0, 2]}
        content |= {"cy": views.K[1, 2], "width": views.width, "height": views.height}
        (cameras / f"{Path(name).stem}.json").write_text(json.dumps({**content, "blur_score": 9.0}))
    return views


def write_record3d(
    root: Path, known: Scene, per_frame: bool = False, photos="rgb", metadata="metadata.json"
) -> Views:
    """metadata.json and rgb/: K by columns, poses as quaternion x y z w, position, ARKit axes."""
    views = retake(known, root / photos, aspect=0.96, offset=(5, -4))
    for i, name in enumerate(views.names):
        (root / photos / name).rename(root / photos / f"{i}.png")
    views = replace(views, names=tuple(f"{i}.png" for i in range(len(views.names))))
    poses = views.camtoworlds @ FLIP
    quaternions = Rotation.from_matrix(poses[:, :3, :3]).as_quat()
    content = {
        **{"w": views.width, "h": views.height, "fps": 30, "dw": 25, "dh": 19},
        "K": views.K.T.reshape(-1).tolist(),
        "poses": np.concatenate([quaternions, poses[:, :3, 3]], 1).tolist(),
    }
    if per_frame:
        K = views.K
        content["perFrameIntrinsicCoeffs"] = [[K[0, 0], K[1, 1], K[0, 2], K[1, 2]]] * len(poses)
        content["K"] = [100, 0, 0, 0, 100, 0, 50, 50, 1]
    (root / metadata).write_text(json.dumps(content))
    return views


def write_llff(root: Path, known: Scene) -> Views:
    """poses_bounds.npy as LLFF's save_poses: columns down, right, back, position, (h, w, f)."""
    views = retake(known, root / "images")
    rows = []
    for pose in views.camtoworlds[:, :3]:
        right, down, forward, position = pose.T
        hwf = [views.height, views.width, views.K[0, 0]]
        matrix = np.stack([down, right, -forward, position, hwf], 1)
        rows.append([*matrix.ravel(), 0.5, 9.0])
    np.save(root / "poses_bounds.npy", np.array(rows))
    return views


def brown(k1=0.0, k2=0.0, p1=0.0, p2=0.0, k3=0.0, k4=0.0) -> Distort:
    """The polynomial model in the notation of OpenCV's documentation, with an r^8 term."""

    def distort(x, y):
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
        return (
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        )

    return distort


def fisheye(k1=0.0, k2=0.0, k3=0.0, k4=0.0) -> Distort:
    """The equidistant model."""

    def distort(x, y):
        r = np.maximum(np.hypot(x, y), 1e-12)
        t = np.arctan(r)
        scale = t * (1 + k1 * t**2 + k2 * t**4 + k3 * t**6 + k4 * t**8) / r
        return x * scale, y * scale

    return distort


TERMS = {"k1": -0.12, "k2": 0.05, "p1": 0.004, "p2": -0.006, "k3": -0.02}
ODD = {"aspect": 0.96, "offset": (5.0, -4.0)}  # a lens with nothing in the middle


def write_opensfm(root: Path, known: Scene, kind: str = "brown") -> Views:
    """reconstruction.json as in OpenSfM's documentation, with a second, smaller reconstruction."""
    if kind == "brown":
        views = retake(known, root / "images", **ODD, distort=brown(**TERMS))
    elif kind == "fisheye":
        views = retake(known, root / "images", distort=fisheye(0.02, -0.01))
    else:
        views = retake(known, root / "images", distort=brown(-0.12, 0.05))
    unit = max(views.width, views.height)
    camera = {"projection_type": kind, "width": views.width, "height": views.height}
    if kind == "brown":
        centre = (views.K[:2, 2] - [views.width / 2, views.height / 2]) / unit
        camera |= {"focal_x": views.K[0, 0] / unit, "focal_y": views.K[1, 1] / unit}
        camera |= {"c_x": centre[0], "c_y": centre[1], **TERMS}
    else:
        k1, k2 = (0.02, -0.01) if kind == "fisheye" else (-0.12, 0.05)
        camera |= {"focal": views.K[0, 0] / unit, "k1": k1, "k2": k2}
    shots = {
        name: {
            "camera": "v2 made by hand",
            "rotation": Rotation.from_matrix(viewmat[:3, :3]).as_rotvec().tolist(),
            "translation": viewmat[:3, 3].tolist(),
        }
        for name, viewmat in zip(views.names, views.viewmats, strict=True)
    }
    points = {
        str(i): {"coordinates": xyz, "color": rgb}
        for i, (xyz, rgb) in enumerate(
            zip(views.points.tolist(), views.colors.tolist(), strict=True)
        )
    }
    whole = {"cameras": {"v2 made by hand": camera}, "shots": shots, "points": points}
    part = {**whole, "shots": dict(list(shots.items())[:4]), "points": {}}
    (root / "reconstruction.json").write_text(json.dumps([part, whole]))
    return views


def _strings(value):
    """All numbers as strings, as boost's property trees write them."""
    if isinstance(value, dict):
        return {key: _strings(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_strings(inner) for inner in value]
    return value if isinstance(value, str) else str(value)


def write_alicevision(
    root: Path, known: Scene, version: tuple[int, int, int] = (1, 2, 6), model: str = "brown"
) -> Views:
    """cameras.sfm as jsonIO.cpp writes it at a version; pixel centres at integers."""
    terms = {"brown": ("k1", "k2", "k3", "p1", "p2"), "radial3": ("k1", "k2", "k3")}[model]
    views = retake(
        known,
        root / "images",
        **(ODD if version >= (1, 2) else {"offset": ODD["offset"]}),
        distort=brown(**{key: TERMS[key] for key in terms}),
    )
    fx, fy = views.K[0, 0], views.K[1, 1]
    centre = views.K[:2, 2] - 0.5
    if version >= (1, 2, 1):
        centre = centre - np.array([views.width, views.height]) / 2
    intrinsics = {
        **{"intrinsicId": 7, "width": views.width, "height": views.height, "serialNumber": ""},
        **{"sensorWidth": 23.5, "sensorHeight": 15.6, "type": model},
        "principalPoint": centre.tolist(),
        "distortionParams": [TERMS[key] for key in terms],
    }
    if version < (1, 2, 0):
        intrinsics["pxFocalLength"] = fx
    elif version < (1, 2, 2):
        intrinsics["pxFocalLength"] = [fx, fy]
    else:
        newest = version >= (1, 2, 11)
        intrinsics["focalLength"] = (fy if newest else fx) / views.width * 23.5
        intrinsics["pixelRatio"] = fx / fy if version < (1, 2, 5) else fy / fx
        if newest:
            distortion = {"radial3": "radialk3"}.get(model, model)
            intrinsics |= {"type": "pinhole", "distortionType": distortion}
    content = {
        "version": list(version),
        "views": [
            {
                **{"viewId": 100 + i, "poseId": 100 + i, "intrinsicId": 7, "metadata": {}},
                "path": f"/another/machine/{name}",
                **{"width": views.width, "height": views.height},
            }
            for i, name in enumerate(views.names)
        ],
        "intrinsics": [intrinsics],
        "poses": [
            {
                "poseId": 100 + i,
                "pose": {
                    "transform": {
                        "rotation": viewmat[:3, :3].T.ravel().tolist(),  # by columns
                        "center": camtoworld[:3, 3].tolist(),
                    },
                    "locked": 0,
                },
            }
            for i, (viewmat, camtoworld) in enumerate(
                zip(views.viewmats, views.camtoworlds, strict=True)
            )
        ],
        "structure": [
            {"landmarkId": i, "descType": "dspsift", "color": rgb, "X": xyz}
            for i, (xyz, rgb) in enumerate(
                zip(views.points.tolist(), views.colors.astype(int).tolist(), strict=True)
            )
        ],
    }
    (root / "cameras.sfm").write_text(json.dumps(_strings(content)))
    return views


def write_openmvg(root: Path, known: Scene, model: str = "pinhole_brown_t2") -> Views:
    """sfm_data.json as cereal writes it; pixel centres at integers."""
    keys = {
        "pinhole_brown_t2": ("disto_t2", ("k1", "k2", "k3", "p1", "p2")),
        "pinhole_radial_k3": ("disto_k3", ("k1", "k2", "k3")),
    }
    key, terms = keys[model]
    views = retake(
        known,
        root / "images",
        offset=ODD["offset"],
        distort=brown(**{term: TERMS[term] for term in terms}),
    )
    camera = {
        **{"width": views.width, "height": views.height, "focal_length": views.K[0, 0]},
        "principal_point": (views.K[:2, 2] - 0.5).tolist(),
        key: [TERMS[term] for term in terms],
    }
    n = len(views.names)
    content = {
        "sfm_data_version": "0.3",
        "root_path": "/another/machine",
        "views": [
            {
                "key": i,
                "value": {
                    "polymorphic_id": 1073741824,
                    "ptr_wrapper": {
                        "id": 2147483649 + i,
                        "data": {
                            **{"local_path": "", "filename": name, "id_view": i},
                            **{"width": views.width, "height": views.height},
                            **{"id_intrinsic": i % 2, "id_pose": i},
                        },
                    },
                },
            }
            for i, name in enumerate(views.names)
        ],
        "intrinsics": [
            {
                "key": i,
                "value": {
                    **({"polymorphic_id": 2147483649} if i == 0 else {"polymorphic_id": 1}),
                    **({"polymorphic_name": model} if i == 0 else {}),
                    "ptr_wrapper": {"id": 2147483649 + n + i, "data": camera},
                },
            }
            for i in range(2)
        ],
        "extrinsics": [
            {
                "key": i,
                "value": {
                    "rotation": viewmat[:3, :3].tolist(),
                    "center": camtoworld[:3, 3].tolist(),
                },
            }
            for i, (viewmat, camtoworld) in enumerate(
                zip(views.viewmats, views.camtoworlds, strict=True)
            )
        ],
        "structure": [
            {"key": i, "value": {"X": xyz, "observations": []}}
            for i, xyz in enumerate(views.points.tolist())
        ],
        "control_points": [],
    }
    (root / "sfm_data.json").write_text(json.dumps(content))
    return views


def write_bundler(root: Path, known: Scene, *, suffix: str = " 0 583.2", photos="images") -> Views:
    """bundle.out and list.txt as in Bundler's manual; the last photo has no pose."""
    views = retake(known, root / photos, distort=brown(-0.12, 0.05))
    lines = ["# Bundle file v0.3", f"{len(views.names) + 1} {len(views.points)}"]
    for viewmat in views.viewmats:
        lines.append(f"{views.K[0, 0]:.12g} -0.12 0.05")
        lines += [" ".join(f"{value:.12g}" for value in row[:3]) for row in (FLIP @ viewmat)[:3]]
        lines.append(" ".join(f"{value:.12g}" for value in (FLIP @ viewmat)[:3, 3]))
    lines += ["0 0 0", *["0 0 0"] * 4]
    for i, (xyz, rgb) in enumerate(zip(views.points, views.colors.astype(int), strict=True)):
        lines.append("{:.9g} {:.9g} {:.9g}".format(*xyz))
        lines.append("{} {} {}".format(*rgb))
        lines.append("2 0 17 3.25 -8.5 1 4 0.5 1.5" if i % 2 else "0")
    (root / "bundle.out").write_text("\n".join(lines) + "\n")
    listed = [f"./{name}{suffix}" for name in views.names] + ["./unposed.jpg"]
    (root / "list.txt").write_text("\n".join(listed) + "\n")
    return views


def write_nvm(root: Path, known: Scene, fixed: bool = False) -> Views:
    """scene.nvm as in VisualSFM's documentation; `r` maps distorted points to undistorted ones."""
    r = 0.15

    def distort(x, y):  # the root d of d (1 + r d^2) = distance, by Newton's method
        distance = np.hypot(x, y)
        d = distance.copy()
        for _ in range(30):
            d -= (d * (1 + r * d * d) - distance) / (1 + 3 * r * d * d)
        scale = d / np.maximum(distance, 1e-12)
        return x * scale, y * scale

    odd = ODD if fixed else {}
    views = retake(known, root / "photos of it", **odd, distort=None if fixed else distort)
    K = views.K
    head = f" FixedK {K[0, 0]} {K[0, 2]} {K[1, 1]} {K[1, 2]} 0" if fixed else ""
    lines = [f"NVM_V3{head}", "", str(len(views.names))]
    for name, viewmat, pose in zip(views.names, views.viewmats, views.camtoworlds, strict=True):
        wxyz = np.roll(Rotation.from_matrix(viewmat[:3, :3]).as_quat(), 1)
        values = [K[0, 0], *wxyz, *pose[:3, 3], 0 if fixed else r, 0]
        lines.append('photos"of"it\\' + name + " " + " ".join(f"{value:.12g}" for value in values))
    lines += ["", str(len(views.points))]
    for xyz, rgb in zip(views.points, views.colors.astype(int), strict=True):
        lines.append("{:.9g} {:.9g} {:.9g} {} {} {} 1 0 5 2.5 -3.5".format(*xyz, *rgb))
    lines += ["", "0", "0"]
    (root / "scene.nvm").write_text("\n".join(lines) + "\n")
    return views


FRAME = (2.5, Rotation.from_euler("xyz", [20, 130, -50], degrees=True).as_matrix(), (3.0, -2, 5))


def write_metashape(
    root: Path,
    known: Scene,
    kind: str = "frame",
    component: bool = True,
    points: str = "chunk",
    suffix: str = "",
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Views:
    """cameras.xml as Metashape 2 exports it; its world is the known one, moved by `shift`.

    points: the frame of the .ply beside, "chunk" or "world".
    """
    if kind == "frame":
        terms = {**TERMS, "k4": 0.03}
        views = retake(known, root / "photos", **ODD, skew=1.5, distort=brown(**terms))
        p1, p2 = terms["p2"], terms["p1"]  # Metashape's P1 belongs to r^2 + 2 x^2
        terms = {**terms, "p1": p1, "p2": p2}
    else:
        terms = {"k1": 0.02, "k2": -0.01, "k3": 0.003, "k4": -0.001}
        views = retake(known, root / "photos", **ODD, skew=-1.5, distort=fisheye(**terms))
    scale, R, t = FRAME
    numbers = {
        **{"f": views.K[1, 1], "b1": views.K[0, 0] - views.K[1, 1], "b2": views.K[0, 1]},
        **{"cx": views.K[0, 2] - views.width / 2, "cy": views.K[1, 2] - views.height / 2},
        **terms,
    }
    size = f'<resolution width="{views.width}" height="{views.height}"/>'
    calibration = "".join(f"<{key}>{value:.17g}</{key}>" for key, value in numbers.items())
    transform = (
        f'<transform><rotation locked="false">{_joined(R)}</rotation>'
        f"<translation>{_joined(np.add(t, shift))}</translation><scale>{scale}</scale></transform>"
    )
    cameras = []
    for i, (name, pose) in enumerate(zip(views.names, views.camtoworlds, strict=True)):
        inner = np.eye(4)
        inner[:3, :3], inner[:3, 3] = R.T @ pose[:3, :3], R.T @ (pose[:3, 3] - t) / scale
        cameras.append(
            f'<camera id="{i}" sensor_id="0" component_id="0" label="{Path(name).stem}{suffix}">'
            f"<transform>{_joined(inner)}</transform></camera>"
        )
    (root / "cameras.xml").write_text(
        f"""<?xml version="1.0" encoding="UTF-8"?>
<document version="2.0.0"><chunk label="Chunk 1" enabled="true">
<sensors next_id="1"><sensor id="0" label="unknown" type="{kind}">{size}
<property name="layer_index" value="0"/><calibration type="{kind}" class="initial">{size}
<f>100</f></calibration><calibration type="{kind}" class="adjusted">{size}
{calibration}</calibration></sensor></sensors>
<components next_id="1"><component id="0" label="Component 1">
{transform if component else ""}</component></components>
<cameras next_id="99" next_group_id="1"><group id="0" label="cam0">{"".join(cameras)}</group>
<camera id="98" sensor_id="0" label="blurred"><orientation>1</orientation></camera></cameras>
{"" if component else transform}</chunk></document>
"""
    )
    xyz = (views.points - t) @ R / scale if points == "chunk" else views.points + shift
    write_ply(root / "tie points.ply", xyz, views.colors)
    return views


def _joined(values: np.ndarray) -> str:
    return " ".join(f"{value:.17g}" for value in values.ravel())


def write_ply(file: Path, points: np.ndarray, colors: np.ndarray) -> None:
    """A point cloud as text."""
    head = ["ply", "format ascii 1.0", f"element vertex {len(points)}"]
    head += [f"property double {axis}" for axis in "xyz"]
    head += [f"property uchar {color}" for color in ("red", "green", "blue")]
    rows = np.column_stack([points, colors])
    lines = ["{:.12g} {:.12g} {:.12g} {:.0f} {:.0f} {:.0f}".format(*row) for row in rows]
    file.write_text("\n".join([*head, "end_header", *lines]) + "\n")


def write_realitycapture(root: Path, known: Scene, counted: bool = False) -> Views:
    """The csv of RealityCapture: 35 mm film, degrees, principal point by the longer side."""
    terms = {**TERMS, "k4": 0.03}
    views = retake(known, root / "images", offset=ODD["offset"], distort=brown(**terms))
    unit = max(views.width, views.height)
    px, py = (views.K[:2, 2] - [views.width / 2, views.height / 2]) / unit
    lines = [f"#cameras {len(views.names)}"] if counted else []
    lines.append("#name,x,y,alt,heading,pitch,roll,f,px,py,k1,k2,k3,k4,t1,t2")
    for name, pose in zip(views.names, views.camtoworlds @ FLIP, strict=True):
        # rows of R = Rz(-heading) Rx(pitch) Ry(roll), solved by hand
        R = pose[:3, :3]
        pitch = np.arcsin(R[2, 1])
        roll = np.arctan2(-R[2, 0], R[2, 2])
        heading = np.arctan2(R[0, 1], R[1, 1])
        values = [*pose[:3, 3], *np.degrees([heading, pitch, roll]), 36 * views.K[0, 0] / unit]
        values += [px, py, terms["k1"], terms["k2"], terms["k3"], terms.get("k4", 0)]
        values += [terms["p1"], terms["p2"]]
        lines.append(",".join([name, *(f"{value:.16e}" for value in values)]))
    (root / "export.csv").write_text("\n".join(lines) + "\n")
    write_ply(root / "export.ply", views.points, views.colors)
    return views


WRITERS = {
    "Polycam": write_polycam,
    "Record3D": write_record3d,
    "LLFF": write_llff,
    "Metashape": write_metashape,
    "RealityCapture": write_realitycapture,
    "OpenSfM": write_opensfm,
    "AliceVision": write_alicevision,
    "OpenMVG": write_openmvg,
    "Bundler": write_bundler,
    "VisualSFM": write_nvm,
}
