# Efficient-LVSM beside the original's vectors.
import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks.parity.comparison import (
    Comparison,
    Row,
    named_weights,
    noise,
    picture,
    read_arrays,
)
from evaluation.reference_metrics import measure_clamped_psnr, measure_ssim
from models.efficient_lvsm import EfficientLVSM
from models.efficient_lvsm.adapter import LAYOUT
from models.efficient_lvsm.model import join
from models.layers.patches import patchify
from models.layers.rays import pixel_rays, plucker
from scenes.normalize import compute_mean_pose_normalization, transform_viewmats
from scenes.re10k import make_Ks
from splats.paths import interpolate_pairs
from training.efficient_lvsm.losses import (
    Similarity,
    VGG19Perceptual,
    average_views,
    measure_similarity,
)
from training.efficient_lvsm.objective import Objective, Repa
from training.efficient_lvsm.pictures import prepare_photo
from training.efficient_lvsm.selection import evaluated_frames, select_frames, select_targets
from training.lr_schedule import LRSchedule

VIEWS, TEACHER = 7, 768
PINHOLE = ((0, 0), (1, 1), (0, 2), (1, 2))  # fx, fy, cx, cy in K


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
        Ks = make_Ks(torch.from_numpy(cameras[f"{scene}_fxfycxcy"]))
        rays = plucker(*pixel_rays(camtoworlds, Ks, (width, height)))
        names = (f"{scene}.image.{i}" for i in range(VIEWS))
        photos = torch.stack([picture(name, (height, width)) for name in names])
        return cls(2 * photos[None] - 1, rays[None], camtoworlds, Ks)


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
    for name, order in (("listed", False), ("ordered", True)):
        some = [0, 3, 1]
        poses, Ks = interpolate_pairs(
            views.camtoworlds[some].double().numpy(), views.Ks[some].numpy(), 5, order=order
        )
        ours = torch.from_numpy(poses[:, :3])
        table.values(f"path: {name}, poses", ours, theirs[f"path_{name}_c2w"])
        values = torch.from_numpy(np.stack([Ks[:, i, j] for i, j in PINHOLE], 1))
        table.values(f"path: {name}, cameras", values, theirs[f"path_{name}_fxfycxcy"])
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


def compare_choices(folder: Path, table: Comparison) -> None:
    """Frames, targets, prepared photos and learning rates."""
    meta = json.loads((folder / "meta.json").read_text())
    theirs = read_arrays(folder, "selection")
    span = meta["min_frame_dist"], meta["max_frame_dist"]
    ours = np.full_like(theirs["selected"], -1)
    for row, (seed, frames, views) in enumerate(
        zip(*(theirs[name].tolist() for name in ("seed", "frames", "views")), strict=True)
    ):
        frames = select_frames(frames, views, random.Random(seed), *span)
        if frames is not None:
            ours[row, : len(frames)] = frames
    table.tokens("choices: frames", torch.from_numpy(ours), theirs["selected"])
    batches = [
        [select_targets(8, 6, rng) for _ in range(3)] for rng in map(random.Random, range(4))
    ]
    table.tokens("choices: targets", torch.tensor(batches), theirs["targets_seed_0_3"])
    for inputs in (1, 2, 3, 5):
        name = f"eval_context_1_9_target_3_4_7_inputs_{inputs}"
        ours = torch.tensor(evaluated_frames((1, 9), (3, 4, 7), inputs))
        table.tokens(f"choices: evaluation, {inputs} inputs", ours, theirs[name])
    theirs = read_arrays(folder, "preprocess")
    Ks = make_Ks(torch.from_numpy(theirs["frames_fxfycxcy"]))[[1, 9, 3, 4, 7]]
    with Image.open(folder / "frame.png") as image:
        for name, square in (("crop", True), ("full", False)):
            ready = [prepare_photo(image, K, meta["image_size"], square=square) for K in Ks]
            table.values(f"photos: {name}", ready[0][0], theirs[f"{name}_image"])
            cameras = torch.stack([K for _, K in ready])
            values = torch.stack([cameras[:, i, j] for i, j in PINHOLE], 1)
            table.values(f"photos: {name}, cameras", values, theirs[f"{name}_fxfycxcy"])
    poses = np.linalg.inv(theirs["w2c"][[1, 9, 3, 4, 7]])
    viewmats = transform_viewmats(compute_mean_pose_normalization(poses), np.linalg.inv(poses))
    table.values(
        "photos: poses", torch.from_numpy(np.linalg.inv(viewmats)), theirs["c2w_normalised"]
    )
    theirs, plan = read_arrays(folder, "schedule"), meta["schedule"]
    for name, kind in (("constant", "constant"), ("cosine", "cos"), ("linear", "lin00")):
        rates = LRSchedule(kind, plan["steps"] + 1, plan["warmup"], wp0=0, wpe=0)
        inside = theirs["step"] <= plan["steps"]  # beyond its end the original's cosine rises
        steps = theirs["step"][inside].tolist()
        ours = torch.tensor([plan["lr"] * rates.rate(step) for step in steps])
        table.values(f"learning rate: {name}", ours, theirs[name][inside])


def compare_losses(folder: Path, model: EfficientLVSM, table: Comparison) -> None:
    """Losses of pictures and of tokens, and one whole step's gradients."""
    meta, theirs = json.loads((folder / "meta.json").read_text()), read_arrays(folder, "loss")
    network = VGG19Perceptual()
    weights = named_weights(folder, "vgg")
    own = {name.removeprefix("vgg."): tensor for name, tensor in weights.items()}
    network.load_state_dict({name: own[name] for name in network.state_dict()})
    pictures = {
        kind: torch.stack([picture(f"loss.{kind}.{i}", tuple(meta["square"])) for i in range(2)])
        for kind in ("prediction", "target")
    }
    features = network.extract(pictures["prediction"])[1:]
    first = torch.stack([f.flatten()[:64] for f in features])
    table.values("losses: features", first, theirs["vgg_first"])
    errors = torch.stack(network.errors(*pictures.values()))
    table.values("losses: perceptual, parts", errors, theirs["perceptual_raw"])
    values = {
        "l2_loss": (pictures["prediction"] - pictures["target"]).square().mean(),
        "perceptual": network(*pictures.values()),
    }
    for name, value in values.items():
        table.number(f"losses: {name}", value, theirs[name])
    for kind in ("sl1", "l2", "cos"):
        repa, losses = load_repa(folder, model, kind), []
        for name, projector in repa.projectors.items():
            stream, block, layer = name.split("_")
            views = 2 if stream == "input" else 3
            student = noise(f"repa.student.{stream}.{layer}", (views, 10, model.config.width))
            teacher = noise(f"repa.label.{stream}.{block}", (views, 10, TEACHER))
            losses.append(measure_similarity(projector(student), teacher, kind))
            table.values(f"losses: {kind} {name}", losses[-1], theirs[f"repa_{kind}_{name}"])
        table.number(f"losses: {kind}", average_views(losses), theirs[f"repa_{kind}"])
    compare_step(folder, model, network, table)


def compare_metrics(folder: Path, table: Comparison) -> None:
    """Metrics of an evaluation."""
    theirs = read_arrays(folder, "metrics")
    height, width = json.loads((folder / "meta.json").read_text())["square"]
    for i, deviation in enumerate((0.05, 0.4)):
        truth = picture(f"metric.truth.{i}", (height, width))
        error = noise(f"metric.error.{i}", (3, height, width))
        blurred = F.avg_pool2d(truth[None], 5, stride=1, padding=2)[0]
        for end, answer in (("", truth + deviation * error), ("_blur", blurred)):
            for name, measure in (("psnr", measure_clamped_psnr), ("ssim", measure_ssim)):
                value = torch.tensor(measure(answer, truth))
                table.number(f"metrics: {name}{end} {i}", value, theirs[f"{name}{end}"][i])


def load_repa(folder: Path, model: EfficientLVSM, kind: Similarity) -> Repa:
    """The projectors of a parity folder."""
    meta = json.loads((folder / "meta.json").read_text())
    repa = Repa(meta["repa_pairs"], model.config.width, TEACHER, meta["projector_dim"], kind)
    weights = named_weights(folder, "repa_projector")
    for name, projector in repa.projectors.items():
        start = f"repa_projector.{name.replace('_', '.')}."
        own = {n.removeprefix(start): t for n, t in weights.items() if n.startswith(start)}
        projector.load_state_dict(own)
    return repa


@torch.enable_grad()
def compare_step(
    folder: Path, model: EfficientLVSM, network: VGG19Perceptual, table: Comparison
) -> None:
    """The losses and gradients of one whole step."""
    theirs, repa = read_arrays(folder, "loss"), load_repa(folder, model, "sl1")
    views = Views.read(folder, "square", read_arrays(folder, "cameras"))
    tokens = views.rays.shape[-1] * views.rays.shape[-2] // model.config.patch**2
    teachers = {
        stream: {
            block: noise(f"train.label.{stream}.{block}", (count, tokens, TEACHER))
            for block in repa.pairs[stream]
        }
        for stream, count in (("input", 2), ("target", 3))
    }
    model.requires_grad_(True)
    losses = Objective(network)(
        model,
        views.photos[:, :2],
        views.rays[:, :2],
        views.rays[:, 4:],
        (views.photos[:, 4:] + 1) / 2,
        repa,
        {s: {int(b): t for b, t in own.items()} for s, own in teachers.items()},
    )
    names = {"loss": "loss", "mse": "l2_loss", "psnr": "psnr"}
    names |= {"perceptual": "perceptual_loss", "repa": "proj_loss"}
    for ours, name in names.items():
        table.number(f"step: {ours}", losses[ours], theirs[f"train_{name}"])
    losses["loss"].backward()
    norms = {LAYOUT.foreign_name(n): p.grad.norm() for n, p in model.named_parameters()}
    for name, projector in repa.projectors.items():
        for n, p in projector.named_parameters():
            norms[f"repa_projector.{name.replace('_', '.')}.{n}"] = p.grad.norm()
    model.requires_grad_(False)
    order = json.loads((folder / "keys.json").read_text())["train_grad_names"]
    ours = torch.stack([norms[name] for name in order])
    error = (ours / torch.from_numpy(theirs["train_grad_norms"]) - 1).abs().max()
    table.rows.append(Row("step: gradients' norms (relative)", error.item(), 1e-3))
    table.number("step: gradient's norm", ours.norm(), theirs["train_grad_total"], 1e-3)


@torch.no_grad()
def compare(folder: Path) -> list[Row]:
    """All comparisons that a folder's files allow."""
    model, table = load_model(folder), Comparison()
    compare_cameras(folder, table)
    views = Views.read(folder, "wide", read_arrays(folder, "cameras"))
    compare_layers(folder, model, views, table)
    compare_modules(folder, model, table)
    compare_renders(folder, model, table)
    compare_choices(folder, table)
    compare_losses(folder, model, table)
    compare_metrics(folder, table)
    return table.rows
