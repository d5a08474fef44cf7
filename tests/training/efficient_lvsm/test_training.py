# The tiny network learns one scene, from the command line; what it writes is read again.
import csv
import json
import signal
from dataclasses import replace

import pytest
import torch

from models.checkpoints import registry
from models.efficient_lvsm import EfficientLVSM, tiny
from runtime.interrupts import Stopped
from scenes import load
from scenes.re10k import ProcessedScene, read_chunk, write_scene
from tests.scenes.test_re10k import make_scene
from tests.training.test_stopping import signal_in
from training.efficient_lvsm.codec import OriginalLayout
from training.efficient_lvsm.commands import find_captures, train_views
from training.efficient_lvsm.flags import parse
from training.efficient_lvsm.samples import PosedPhotos, ProcessedPhotos, Views, ViewSamples
from training.efficient_lvsm.stage import ViewStage
from training.stage import Broken

COMMON = ("--preset=tiny", "--features=none", "--views=6", "--targets=4", "--least=6", "--most=12")
COMMON += ("--batch_size=4", "--tblr=3e-3", "--fp16=0", "--tclip=5", "--workers=0", "--device=cpu")


def run(captures, results, *more):
    train_views(parse([f"--captures={captures}", f"--results={results}", *COMMON, *more]))
    lines = list(csv.DictReader((results / "VARSR" / "metrics.csv").read_text().splitlines()))
    return [line for line in lines if line["kind"] == "val"]


def test_it_learns_one_scene(captures, tmp_path):
    """Half a minute of one core: 3 dB more than the nearest input."""
    steps = ("--patch=4", "--steps=500", "--repeats=4000", "--wp=0.05", "--eval_freq=1000")
    first, last = run(captures, tmp_path, *steps, "--log_every=1")
    assert float(last["psnr"]) > float(last["nearest_psnr"]) + 3
    assert float(last["psnr"]) > float(first["psnr"])
    lines = (tmp_path / "VARSR" / "metrics.jsonl").read_text().splitlines()
    losses = [row["loss"] for row in map(json.loads, lines) if row["kind"] == "train"]
    assert sum(losses[-50:]) / 50 < 0.75 * losses[0]
    config, model = registry.load(tmp_path / "VARSR" / "lvsm-ckpt-last.pth")
    assert config == replace(tiny(), patch=4) and isinstance(model, EfficientLVSM)


def test_a_stopped_run_goes_on_bit_for_bit(captures, tmp_path, monkeypatch):
    flags = ("--repeats=8", "--eval_freq=99", "--inputs_most=4", "--wp=0", "--steps=4")
    run(captures, tmp_path / "whole", *flags)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        signal_in(patch, ViewStage, "after_step", 2, signal.SIGTERM)
        run(captures, tmp_path / "parts", *flags)
    run(captures, tmp_path / "parts", *flags)
    whole, parts = (
        torch.load(tmp_path / name / "VARSR" / "lvsm-ckpt-last.pth")["model"]
        for name in ("whole", "parts")
    )
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())


def test_processed_scenes_are_trained_on_too(tmp_path):
    encoded, _ = make_scene(frames=40)
    torch.save([encoded], tmp_path / "0.torch")
    metadata = [
        write_scene(scene, tmp_path / "train") for scene in read_chunk(tmp_path / "0.torch")
    ]
    (tmp_path / "train" / "full_list.txt").write_text("".join(f"{path}\n" for path in metadata))
    lists = f"--lists={tmp_path / 'train' / 'full_list.txt'}"
    flags = (lists, "--image_size=16", "--steps=2", "--repeats=8", "--eval_freq=8", "--wp=0")
    (val,) = run("", tmp_path / "out", *flags)
    assert float(val["psnr"]) > 0
    photos = ProcessedPhotos(ProcessedScene.read(metadata[0]), tuple(range(40)), 16, 8)
    few = photos.without(range(0, 40, 8))
    assert len(few) == 35 and few.frames[7] == 9
    assert torch.equal(few.choose([7, 3])[0], photos.choose([9, 4])[0])
    metadata[0].parent.parent.joinpath("images/0a1b/00009.jpg").unlink()
    samples = ViewSamples([few], views=30, targets=4, least=30, most=34)
    broken = samples.collate([samples[0, 0]])
    assert isinstance(broken, Broken) and "00009.jpg: no such picture" in broken.reason


def test_weights_of_another_size_are_refused(tmp_path):
    torch.manual_seed(0)
    model = EfficientLVSM(tiny())
    content = OriginalLayout().encode(model, optimizer={}, args={}, epoch=1, step=2)
    other = EfficientLVSM(tiny())
    OriginalLayout().load_weights(other, content, tmp_path / "a.pth")
    assert all(map(torch.equal, model.parameters(), other.parameters()))
    with pytest.raises(ValueError, match=r"a.pth is of another size"):
        deeper = EfficientLVSM(replace(tiny(), depth=3))
        OriginalLayout().load_weights(deeper, content, tmp_path / "a.pth")


def test_samples_are_drawn_by_their_seed(captures):
    scene = load(captures / "town", progress=False)
    photos = PosedPhotos.from_scene(scene, range(40), 32, 8)
    samples = ViewSamples([photos], views=6, targets=4, least=6, most=12)
    first, again, other = samples[0, 3], samples[0, 3], samples[0, 4]
    assert all(map(torch.equal, first[1:], again[1:]))
    assert not torch.equal(first[1], other[1])
    batch = samples.collate([first, other])
    assert isinstance(batch, Views) and batch.photos.shape == (2, 6, 3, 32, 32)
    rays = batch.rays("default")
    assert torch.equal(batch.pick(rays)[1, 2], rays[1, batch.targets[1, 2]])
    assert batch.camtoworlds[..., :3, 3].abs().amax((1, 2)).sub(1 / 1.35).abs().max() < 1e-5
    with pytest.raises(ValueError, match="the longest has 40 frames"):
        ViewSamples([photos], views=6, targets=4, least=60, most=80)


def test_cameras_at_one_place_are_named(captures):
    scene = load(captures / "town", progress=False)
    photos = PosedPhotos.from_scene(scene, range(20), 32, 8, "stuck")
    photos.camtoworlds[:, :3, 3] = 1.0
    samples = ViewSamples([photos], views=6, targets=4, least=6, most=12)
    broken = samples.collate([samples[0, 1]])
    assert isinstance(broken, Broken) and broken.key == "stuck" and "one place" in broken.reason


def test_folders_of_captures(captures, tmp_path):
    assert find_captures(str(captures)) == [captures / "town"]
    assert find_captures(f"{captures / 'town'},{captures}") == [captures / "town"] * 2
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        find_captures(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ((), "--captures names"),
        (("--captures=x", "--views=0"), "--views=0 must be at least 1"),
        (("--captures=x", "--test_every=1"), "--test_every=1 must be at least 2"),
        (("--captures=x", "--inputs_least=3"), "--inputs_least=3, --inputs_most=2"),
        (("--captures=x", "--most=5"), "--most=5 must be more than --least=25"),
        (("--captures=x", "--preset=huge"), "--preset=huge: choose original, mini, tiny"),
        (("--captures=x", "--features=vgg19"), "--features=vgg19 needs --vgg19"),
        (("--captures=x", "--image_size=100"), "--image_size=100 must be a multiple of 8"),
    ],
)
def test_wrong_flags_are_one_sentence(wrong, message):
    with pytest.raises(ValueError, match=message):
        train_views(parse(["--preset=tiny", *wrong]))


def test_layers_computed_again_have_the_same_gradients():
    torch.manual_seed(0)
    model = EfficientLVSM(tiny())
    inputs = torch.rand(1, 2, 3, 16, 16), torch.rand(1, 2, 6, 16, 16), torch.rand(1, 1, 6, 16, 16)
    gradients = []
    for model.recomputed in (False, True):
        model.zero_grad()
        model(*inputs).square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(map(torch.equal, *gradients))


def test_sizes_of_a_network(captures, tmp_path):
    sizes = ("--depth=1", "--width=32", "--head_dim=16", "--patch=4", "--image_size=16")
    run(captures, tmp_path, *sizes, "--steps=1", "--repeats=8", "--eval_freq=8", "--recompute=True")
    config, _ = registry.load(tmp_path / "VARSR" / "lvsm-ckpt-last.pth")
    assert (config.depth, config.width, config.heads, config.patch) == (1, 32, 2, 4)
    with pytest.raises(ValueError, match="--depth=3: the size of a network is that of --load"):
        train_views(parse(["--captures=x", "--depth=3", "--load=a.pth"]))


def test_targets_that_are_no_inputs(captures):
    photos = PosedPhotos.from_scene(load(captures / "town", progress=False), range(40), 32, 8)
    sizes = {"views": 6, "targets": 3, "least": 6, "most": 12}
    samples = ViewSamples([photos], target_has_input=False, **sizes)
    assert all(samples[0, seed][-1].tolist() == [3, 4, 5] for seed in range(4))
    with pytest.raises(ValueError, match="--inputs_most=3 and --targets=4 are more than --views=6"):
        flags = ("--views=6", "--targets=4", "--inputs_most=3", "--target_has_input=False")
        train_views(parse(["--captures=x", *flags]))
