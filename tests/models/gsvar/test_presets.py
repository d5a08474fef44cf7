# The presets build, and have the sizes they claim (millions of parameters, without the bridge).
import pytest

from models.gsvar import PRESETS, loading

MILLIONS = {
    "original-d24": (1101.9 + 109.0, (512, 512)),
    "original-d16": (371.5 + 109.0, (512, 512)),
    "small": (20.9, (256, 256)),
    "tiny": (5.0, (128, 128)),
    "mini": (10.06, (192, 256)),
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_sizes_they_claim(name):
    millions, size = MILLIONS[name]
    config = PRESETS[name]()
    model = loading.empty(config, bridge=False)
    count = sum(p.numel() for p in model.parameters()) / 1e6
    assert count == pytest.approx(millions, rel=0.01)
    assert config.image_size == size
