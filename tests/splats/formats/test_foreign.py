# Checkpoints as Inria's trainer and nerfstudio's splatfacto save them.
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

import splats
from reconstruction import Start
from splats.formats import checkpoint
from tests.splats.formats.test_checkpoint import raw, same, some_splats


def inria(content, lr=0.1) -> tuple:
    """`GaussianModel.capture()` and the iteration, with a learning rate and an extent of NumPy."""
    values = {name: torch.nn.Parameter(value) for name, value in raw(content).items()}
    n = content.count
    groups = [{"lr": lr, "name": "xyz", "params": [0]}]
    captured = (
        3,
        values["means"],
        values["sh0"],
        values["shN"],
        values["scales"],
        values["quats"],
        torch.nn.Parameter(values["opacities"][:, None]),
        torch.zeros(n),
        torch.zeros(n, 1),
        torch.zeros(n, 1),
        {"state": {}, "param_groups": groups},
        np.float64(3.2),
    )
    return captured, 30_000


@pytest.mark.parametrize("lr", [0.1, np.float64(1.6e-6), np.float32(0.5)])
def test_a_checkpoint_of_inria_s_trainer(tmp_path, lr):
    content = some_splats(6)
    torch.save(inria(content, lr), tmp_path / "chkpnt30000.pth")
    assert same(splats.load(tmp_path / "chkpnt30000.pth"), content)
    start = Start.from_checkpoint(tmp_path / "chkpnt30000.pth")
    assert start.step == 30_000 and same(start.splats, content)
    assert same(splats.load(tmp_path), content)  # as a result folder


@pytest.mark.parametrize("prefix", ["_model.gauss_params.", "_model.", "_model.module."])
def test_a_checkpoint_of_splatfacto(tmp_path, prefix):
    content = some_splats(6)
    values = raw(content)
    names = {"features_dc": "sh0", "features_rest": "shN"}
    state = OrderedDict(
        (prefix + theirs, values[names.get(theirs, theirs)])
        for theirs in ("means", "scales", "quats", "features_dc", "features_rest", "opacities")
    )
    state[prefix + "features_dc"] = values["sh0"][:, 0]
    state[prefix + "opacities"] = values["opacities"][:, None]
    state["datamanager.train_camera_optimizer.pose_adjustment"] = torch.zeros(4, 6)
    schedulers = {"means": {"last_epoch": 7, "_last_lr": [np.float64(1e-4)]}}
    saved = {"step": 29_999, "pipeline": state, "optimizers": {}, "schedulers": schedulers}
    folder = tmp_path / "nerfstudio_models"
    folder.mkdir()
    torch.save(saved, folder / "step-000029999.ckpt")
    assert same(splats.load(folder / "step-000029999.ckpt"), content)
    assert same(splats.load(tmp_path), content)
    assert Start.newest(tmp_path).step == 30_000


def test_other_models_are_no_splats(tmp_path):
    torch.save(
        {"step": 1, "pipeline": {"_model.field.weight": torch.zeros(2)}}, tmp_path / "a.ckpt"
    )
    with pytest.raises(ValueError, match=r"a\.ckpt is not a checkpoint of splats"):
        splats.load(tmp_path / "a.ckpt")
    torch.save(((1, 2), 3), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth is not a checkpoint of splats"):
        splats.load(tmp_path / "a.pth")


def test_numpy_scalars_and_paths_are_read_as_numbers_and_text(tmp_path):
    content = {"step": 7, "splats": raw(some_splats()), "loss": np.float32(0.25)}
    content |= {"count": np.int64(-3), "big": np.array([1.5], ">f8")[0], "done": np.bool_(True)}
    content["data"] = Path("captures") / "garden"
    torch.save(content, tmp_path / "a.pt")
    back = checkpoint.load(tmp_path / "a.pt")
    assert (back["loss"], back["count"], back["big"], back["done"]) == (0.25, -3, 1.5, True)
    assert back["data"] == "captures/garden"
    assert checkpoint.read(tmp_path / "a.pt")[1] == 7


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.zeros(3), "holds NumPy arrays, not only tensors; save it again as tensors"),
        (range(3), "contains code, not only tensors; refused: it names .*range"),
    ],
)
def test_what_else_a_checkpoint_holds_is_named(tmp_path, value, expected):
    torch.save({"step": 7, "splats": raw(some_splats()), "x": value}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=rf"a\.pt {expected}"):
        checkpoint.load(tmp_path / "a.pt")
