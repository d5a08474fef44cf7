# A splat format is an entry in FORMATS; loading, saving and starting a run then know it.
import pytest
import torch

import splats
from reconstruction import Start
from splats.files import read_confidence
from splats.formats import checkpoint, ply
from splats.formats.registry import FORMATS, Format
from tests.splats.formats.test_checkpoint import same, some_splats


@pytest.fixture
def toy(monkeypatch):
    """Files that are a .ply under another name."""

    def write(path, content, step):
        ply.write(path, content)

    monkeypatch.setitem(FORMATS, ".toy", Format(ply.read, write, ("toys/splats_*.toy",)))


def test_a_new_format_is_written_and_read(toy, tmp_path):
    content = some_splats(7)
    splats.save(tmp_path / "a.toy", content)
    assert same(splats.load(tmp_path / "a.toy"), content)
    with pytest.raises(ValueError, match=r"end its name in \.compressed\.ply, .* or \.toy"):
        splats.save(tmp_path / "a.obj", content)
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match=r"is not splats; give \.ckpt, .*\.toy"):
        splats.load(tmp_path / "a.txt")


def test_a_run_starts_from_the_newest(toy, tmp_path):
    checkpoint.write(tmp_path / "ckpts/ckpt_9_rank0.pt", some_splats(3), 9)
    assert Start.newest(tmp_path).step == 10
    splats.save(tmp_path / "toys/splats_19.toy", some_splats(7))
    start = Start.newest(tmp_path)
    assert start.splats.count == 7 and start.step == 0
    with pytest.raises(ValueError, match=r"is splats, but not a checkpoint; give it as --ply"):
        Start.from_checkpoint(tmp_path / "toys/splats_19.toy")


def test_a_run_starts_from_any_format(tmp_path):
    content = some_splats(7)
    for name in ("a.spz", "a.glb", "a.compressed.ply"):
        splats.save(tmp_path / name, content)
        start = Start.from_ply(tmp_path / name)
        assert start.splats.count == 7 and start.splats.sh_degree == 3 and start.step == 0


def test_only_checkpoints_have_a_confidence(toy, tmp_path):
    content, values = some_splats(4), torch.rand(4)
    for name in ("a.toy", "a.ply"):
        splats.save(tmp_path / name, content)
        assert read_confidence(tmp_path / name) is None
    checkpoint.write(tmp_path / "a.ckpt", content, 1, confidence=values)
    assert torch.equal(read_confidence(tmp_path / "a.ckpt"), values)
