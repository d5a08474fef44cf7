# The U-Net as a registered fixer: any size, its files, and what it reads.
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

import fixers
from fixers import Needs
from models.unet import UNet, read_config, save, tiny
from runtime.arguments import naming_flags


def write(path, **sizes):
    torch.manual_seed(0)
    net = UNet(replace(tiny(), **sizes))
    for p in net.parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=0.1)
    save(net, path)
    return path


@pytest.mark.parametrize("size", [(1, 1), (31, 33), (40, 24)])
def test_any_size_comes_back_changed_at_its_size(tmp_path, size):
    fixer = fixers.load("unet", checkpoint=write(tmp_path / "unet.safetensors"), device="cpu")
    renders = torch.rand(2, *size, 3)
    fixed = fixer.fix(renders, renders[:, None])
    assert fixed.shape == renders.shape and 0 <= fixed.min() <= fixed.max() <= 1
    assert not torch.equal(fixed, renders)
    assert torch.equal(fixed, fixer.fix(renders))  # the render takes a missing reference's place
    one = fixer.fix(renders[1:])
    torch.testing.assert_close(one, fixed[1:])


def test_a_new_network_returns_the_render(tmp_path):
    save(UNet(tiny()), tmp_path / "unet.safetensors")
    fixer = fixers.load("unet", checkpoint=tmp_path / "unet.safetensors", device="cpu")
    renders = torch.rand(1, 20, 24, 3)
    torch.testing.assert_close(fixer.fix(renders), renders)


@pytest.mark.parametrize(
    ("sizes", "needs"),
    [
        ({"views": 1}, Needs()),
        ({"views": 2}, Needs(references=True, warped=True)),
        ({"views": 2, "alpha": True, "warped": False}, Needs(references=True, alpha=True)),
    ],
)
def test_the_file_says_what_it_needs_before_it_is_loaded(tmp_path, sizes, needs):
    path = write(tmp_path / "unet.safetensors", **sizes)
    kind, build = fixers.FIXERS["unet"]
    options = kind(checkpoint=path)
    assert options.needs() == needs == build(options, "cpu").needs


def test_alpha_is_read_where_it_is_known(tmp_path):
    path = write(tmp_path / "unet.safetensors", alpha=True)
    fixer = fixers.load("unet", checkpoint=path, device="cpu")
    renders, half = torch.rand(1, 16, 16, 3), torch.full((1, 16, 16), 0.5)
    assert torch.equal(fixer.fix(renders), fixer.fix(renders, alphas=half))
    assert not torch.equal(fixer.fix(renders), fixer.fix(renders, alphas=half * 2))


def test_weights_that_are_not_there_or_of_another_kind_are_refused(tmp_path):
    with pytest.raises(ValueError, match="needs weights"):
        fixers.load("unet")
    with pytest.raises(ValueError, match="with --weights"), naming_flags(checkpoint="--weights"):
        fixers.load("unet")
    with pytest.raises(FileNotFoundError, match=r"no\.safetensors: no such"):
        fixers.load("unet", checkpoint=tmp_path / "no.safetensors")
    from fixers.gsvar import SHIPPED

    with pytest.raises(ValueError, match=r"is no unet\.safetensors"):
        fixers.load("unet", checkpoint=SHIPPED)


def test_older_files_have_fewer_sizes(tmp_path):
    path = tmp_path / "unet.safetensors"
    config = replace(tiny(), blocks=2, alpha=True)
    metadata = {"views": "2", "channels": "8_16", "alpha": "True"}
    save_file(UNet(config).state_dict(), path, metadata)
    assert read_config(path) == config
    assert fixers.load("unet", checkpoint=path, device="cpu").needs.warped
