# The drop-in call with Difix3D's signature.
import pytest
from PIL import Image

import fixers
from fixers.difix import DifixCall


def test_one_line_swaps_difix(fixer):
    pipe = DifixCall(fixer())
    image, ref = Image.new("RGB", (50, 34), "red"), Image.new("L", (50, 34), 90)
    out = pipe(
        "remove degradation",
        image=image,
        ref_image=ref,
        num_inference_steps=1,
        timesteps=[199],
        guidance_scale=0.0,
    ).images[0]
    assert out.size == (50, 34)
    assert out.mode == "RGB"


def test_lists_and_mistakes():
    pipe = DifixCall(fixers.load("identity")).to("cpu")
    red, blue = Image.new("RGB", (5, 4), "red"), Image.new("RGBA", (7, 3), "blue")
    out = pipe(image=[red, blue], ref_image=[blue, red]).images
    assert [o.size for o in out] == [(5, 4), (7, 3)]
    assert out[0].getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(ValueError, match="do not pair"):
        pipe(image=[red, blue], ref_image=[red])
    with pytest.raises(ValueError, match="image="):
        pipe("prompt")
