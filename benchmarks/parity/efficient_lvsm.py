# Efficient-LVSM beside the original's vectors.
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.parity.comparison import (
    Comparison,
    Row,
    named_weights,
    noise,
    picture,
    read_arrays,
)
from models.efficient_lvsm import EfficientLVSM
from models.efficient_lvsm.adapter import LAYOUT
from models.efficient_lvsm.model import join
from models.layers.patches import patchify
from models.layers.rays import pixel_rays, plucker
from scenes.normalize import compute_mean_pose_normalization, transform_viewmats

VIEWS = 7


@dataclass(frozen=True)
class Views:
    """The views of one of the vectors' scenes: photos [1,V,3,H,W] in [-1,1], rays [1,V,6,H,W],
    camera-to-world matrices [V,4,4] of the normalised cameras, Ks [V,3,3]."""

    photos: Tensor
    rays: Tensor
    camtoworlds: Tensor
    Ks: Tensor

    @classmethod
    def read(cls, folder: Path, scene: str, cameras: dict[str, np.ndarray]) -> "Views":
        """A scene's views, with the original's own normalised cameras."""
        meta = json.loads((folder / "meta.json").read_text())
        height, width = meta["wide" if scene == "wide" else "square"]
        camtoworlds = torch.from_numpy(cameras[f"{scene}_c2w_normalised"])
        Ks = make_intrinsics(torch.from_numpy(cameras[f"{scene}_fxfycxcy"]))
        rays = plucker(*pixel_rays(camtoworlds, Ks, (width, height)))
        names = (f"{scene}.image.{i}" for i in range(VIEWS))
        photos = torch.stack([picture(name, (height, width)) for name in names])
        return cls(2 * photos[None] - 1, rays[None], camtoworlds, Ks)


def make_intrinsics(values: Tensor) -> Tensor:
    """[...,3,3] of focal lengths and principal points [...,4]."""
    Ks = torch.eye(3, dtype=values.dtype).repeat(*values.shape[:-1], 1, 1)
    Ks[..., 0, 0], Ks[..., 1, 1], Ks[..., 0, 2], Ks[..., 1, 2] = values.unbind(-1)
    return Ks


def load_model(folder: Path) -> EfficientLVSM:
    """The model of a parity folder, read through the adapter."""
    return LAYOUT.load(folder, named_weights(folder, "model"))


def compare_cameras(folder: Path, table: Comparison) -> None:
    """Normalisation and rays."""
    theirs = read_arrays(folder, "cameras")
    for scene in ("square", "wide", "second"):
        camtoworlds = theirs[f"{scene}_c2w"].astype(np.float64)
        similarity = compute_mean_pose_normalization(camtoworlds)
        viewmats = transform_viewmats(similarity, np.linalg.inv(camtoworlds))
        ours = torch.from_numpy(np.linalg.inv(viewmats))
        table.values(f"cameras: {scene}", ours, theirs[f"{scene}_c2w_normalised"])
    views = Views.read(folder, "wide", theirs)
    size = views.photos.shape[-1], views.photos.shape[-2]
    origins, directions = pixel_rays(views.camtoworlds, views.Ks, size)
    table.values("rays: directions", directions[0], theirs["wide_ray_d_0"])
    table.values("rays: origin", origins[0], theirs["wide_ray_o_0"].reshape(3, -1)[:, 0])
    for kind, name, every in (
        ("default", "wide_plucker_0", 1),
        ("nearest", "wide_custom_plucker_0", 4),
        ("augmented", "wide_aug_plucker_0", 4),
    ):
        ours = plucker(origins[0], directions[0], kind)[..., ::every, ::every]
        table.values(f"rays: {kind}", ours, theirs[name])


def compare_layers(folder: Path, model: EfficientLVSM, views: Views, table: Comparison) -> None:
    """Tokens and streams of a photo and of a target."""
    theirs, patch = read_arrays(folder, "layers"), model.config.patch
    photo = patchify(torch.cat((views.photos, views.rays), 2)[:, :1], patch)
    target = patchify(views.rays[:, 4:5], patch)
    table.values("tokens: photo", model.photo_tokens(photo)[0], theirs["input_tokens"])
    table.values("tokens: target", model.target_tokens(target)[0], theirs["target_tokens"])
    streams: list[Tensor] = []
    contexts = model.encode(views.photos[:, :2], views.rays[:, :2], streams)
    table.values(
        "streams: encoder", torch.stack([s[0, 0] for s in streams]), theirs["encoder_stream"]
    )
    for layer, (keys, values) in enumerate(contexts):
        for kind, ours in (("k", keys), ("v", values)):
            expected = theirs[f"cache_{kind}_{layer}"]
            table.values(f"cache: {kind} {layer}", ours[0, 0].transpose(0, 1), expected)
    streams.clear()
    model.decode(views.rays[:, 4:5], join(contexts), streams)
    table.values(
        "streams: decoder", torch.stack([s[0, 0] for s in streams]), theirs["target_stream"]
    )


def compare_modules(folder: Path, model: EfficientLVSM, table: Comparison) -> None:
    """Single modules on noise."""
    theirs, config = read_arrays(folder, "modules"), model.config
    width, heads, d = config.width, config.heads, config.head_dim
    x = noise("rms.x", (2, 5, heads, d))
    x[1] *= 1e-3
    first = model.decoder[0]
    own = first.attention
    table.values("modules: rms norm", own.qk_norm.normalize(x) * own.q_weight, theirs["rms_norm"])
    ours = model.encoder[0].attention(noise("self.x", (2, 9, width)))
    table.values("modules: self-attention", ours, theirs["self_attention"])
    keys, values = first.cross.project(noise("cross.kv", (2, 11, width)))
    ours = first.cross(noise("cross.q", (2, 7, width)), keys, values)
    table.values("modules: cross-attention", ours, theirs["cross_attention"])
    table.values("modules: its keys", keys.transpose(1, 2), theirs["cross_k"])
    table.values("modules: its values", values.transpose(1, 2), theirs["cross_v"])
    table.values("modules: mlp", first.mlp(noise("mlp.x", (2, 3, width))), theirs["mlp"])
    x = noise("block.x", (2, 9, width))
    table.values("modules: encoder block", model.encoder[1](3 + x), theirs["encoder_block"])
    ours = model.encoder[1](0.01 * x)
    table.values("modules: encoder block, small", ours, theirs["encoder_block_small"])
    block = model.decoder[1]
    context = block.cross.project(block.norm_cross(noise("block.input", (1, 22, width))))
    ours = block(noise("block.target", (2, 11, width))[None], context)[0]
    table.values("modules: decoder block", ours, theirs["decoder_block"])


def compare_renders(folder: Path, model: EfficientLVSM, table: Comparison) -> None:
    """Whole renders, and views added one at a time."""
    cameras = read_arrays(folder, "cameras")
    scenes = {name: Views.read(folder, name, cameras) for name in ("square", "wide", "second")}
    for name in ("square", "wide"):
        views, theirs = scenes[name], read_arrays(folder, f"render_{name}")
        targets = views.rays[:, 4:]
        for count in (1, 2, 4):
            ours = model(views.photos[:, :count], views.rays[:, :count], targets)[0]
            table.values(f"render: {name} {count}", ours, theirs[f"render_{count}"])
        apart = model.encode(views.photos[:, :4], views.rays[:, :4])

        def render(order: list[int], apart=apart, targets=targets) -> Tensor:
            picked = [tuple(t[:, order] for t in context) for context in apart]
            return model.decode(targets, join(picked))[0]

        for count in range(1, 5):
            expected = theirs[f"incremental_{count}"]
            ours = render(list(range(count)))
            ours = ours if ours.shape == expected.shape else ours[..., ::4, ::4]
            table.values(f"render: {name}, {count} added", ours, expected)
        if name == "square":
            for kind, order in (("2_then_01", [2, 0, 1]), ("0_twice", [0, 0])):
                expected, ours = theirs[f"incremental_{kind}"], render(order)
                ours = ours if ours.shape == expected.shape else ours[..., ::4, ::4]
                table.values(f"render: added {kind}", ours, expected)
            both = [scenes["square"], scenes["second"]]
            photos, rays = (torch.cat([getattr(v, k) for v in both]) for k in ("photos", "rays"))
            ours = model(photos[:, :2], rays[:, :2], rays[:, 4:6])
            table.values("render: batch", ours, theirs["render_batch2"])


@torch.no_grad()
def compare(folder: Path) -> list[Row]:
    """All comparisons that a folder's files allow."""
    model, table = load_model(folder), Comparison()
    compare_cameras(folder, table)
    views = Views.read(folder, "wide", read_arrays(folder, "cameras"))
    compare_layers(folder, model, views, table)
    compare_modules(folder, model, table)
    compare_renders(folder, model, table)
    return table.rows
