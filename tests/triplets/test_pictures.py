# Pictures: one resize for images and planes, and what a triplet is in memory.
import numpy as np
import pytest
import torch
from PIL import Image

from triplets.guides import Guides, Pictures
from triplets.manifest import Reference, Triplet
from triplets.pictures import read_image, read_size, resize, resize_planes, size_text


@pytest.mark.parametrize("shape", [(9, 12, 3), (2, 9, 12, 1), (2, 3, 9, 12, 3)])
def test_one_resize_for_all_numbers_of_axes(shape):
    images = torch.rand(shape)
    small = resize(images, 5, 8)
    assert small.shape == (*shape[:-3], 5, 8, shape[-1])
    first = images.reshape(-1, *shape[-3:])[0]
    torch.testing.assert_close(small.reshape(-1, 5, 8, shape[-1])[0], resize(first, 5, 8))
    assert resize(images, 9, 12) is images
    planes = resize_planes(first.permute(2, 0, 1)[None] * 2 - 1, (5, 8))
    torch.testing.assert_close(
        resize(first, 5, 8), (planes[0].permute(1, 2, 0) + 1) / 2, atol=1e-5, rtol=0
    )


def save(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


def test_pictures_of_a_triplet_have_the_render_s_size(tmp_path):
    rng = np.random.default_rng(0)
    pixels = {
        name: rng.integers(0, 256, shape).astype(np.uint8)
        for name, shape in (
            *((name, (6, 8, 3)) for name in ("render", "gt", "warped")),
            ("photo", (12, 16, 3)),
            ("alpha", (6, 8)),
        )
    }
    mask = np.zeros((6, 8), np.uint8)
    mask[:, 4:] = 255
    files = {name: save(tmp_path / f"{name}.png", p) for name, p in (pixels | {"m": mask}).items()}
    reference = Reference(files["photo"], warped=files["warped"], mask=files["m"])
    triplet = Triplet("k", files["render"], files["gt"], None, (reference,), files["alpha"])
    assert read_size(files["photo"]) == (16, 12) and size_text((16, 12)) == "16x12"

    plain = Pictures.read(triplet, Guides())
    assert plain.alpha is None and plain.references.shape == (1, 6, 8, 3)
    assert torch.equal(plain.reference, resize(read_image(files["photo"]), 6, 8))

    warped = Pictures.read(triplet, Guides(1, True, True))
    assert torch.equal(warped.reference[:, :4], warped.render[:, :4])  # not valid there
    assert torch.equal(warped.reference[:, 4:], read_image(files["warped"])[:, 4:])
    assert torch.equal(warped.alpha, torch.from_numpy(pixels["alpha"]).float() / 255)

    assert Pictures.read(triplet, Guides(0)).references is None
    with pytest.raises(ValueError, match=r"photo\.txt"):
        (tmp_path / "photo.txt").write_text("x")
        read_size(tmp_path / "photo.txt")


def test_a_render_s_own_transparency_is_its_alpha(tmp_path):
    pixels = np.random.default_rng(0).integers(1, 256, (6, 8, 4)).astype(np.uint8)
    render = save(tmp_path / "render.png", pixels)
    truth = save(tmp_path / "gt.png", pixels[..., :3])
    own = torch.from_numpy(pixels).float() / 255

    triplet = Triplet("k", render, truth, None, ())
    read = Pictures.read(triplet, Guides(0, alpha=True))
    assert torch.equal(read.alpha, own[..., 3])
    assert torch.equal(read.render, own[..., :3] * own[..., 3:])  # over black, as splats render
    assert Pictures.read(triplet, Guides(0)).alpha is None

    file = save(tmp_path / "alpha.png", pixels[..., 0])
    named = Pictures.read(Triplet("k", render, truth, None, (), file), Guides(0, alpha=True))
    assert torch.equal(named.alpha, own[..., 0])
