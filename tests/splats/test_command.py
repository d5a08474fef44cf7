# python -m splats convert IN OUT.
import subprocess
import sys

import pytest

import splats
from splats import __main__ as command
from tests.conftest import GUARD, ROOT
from tests.splats.formats.test_checkpoint import same, some_splats


def convert(monkeypatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["splats", "convert", *map(str, words)])
    command.main()


def test_a_result_folder_becomes_a_file(tmp_path, monkeypatch, caplog):
    content = some_splats(5)
    splats.save(tmp_path / "run/ckpts/ckpt_9_rank0.pt", content)
    with caplog.at_level("INFO"):
        convert(monkeypatch, tmp_path / "run", tmp_path / "a.ply")
        convert(monkeypatch, tmp_path / "run", tmp_path / "a.splat")
    assert "a.ply: 5 Gaussians, SH degree 3, 0.00 MB\n" in caplog.text
    assert "a.splat: 5 Gaussians, SH degree 0, 0.00 MB; precision: 8 bits" in caplog.text
    assert same(splats.load(tmp_path / "a.ply"), content)


def test_harmonics_are_cut_off_and_targets_replaced_on_request(tmp_path, monkeypatch):
    content = some_splats(5)
    splats.save(tmp_path / "a.pt", content)
    convert(monkeypatch, tmp_path / "a.pt", tmp_path / "b.glb", "--sh", 1)
    assert splats.load(tmp_path / "b.glb").sh_degree == 1
    with pytest.raises(ValueError, match=r"b\.glb exists; choose another name or give --overwrite"):
        convert(monkeypatch, tmp_path / "a.pt", tmp_path / "b.glb")
    convert(monkeypatch, tmp_path / "a.pt", tmp_path / "b.glb", "--overwrite")
    assert splats.load(tmp_path / "b.glb").sh_degree == 3


def test_the_log_says_what_happened(tmp_path, monkeypatch, caplog):
    splats.save(tmp_path / "run/ckpts/ckpt_9_rank0.pt", some_splats(5, 1))
    with caplog.at_level("INFO"):
        convert(monkeypatch, tmp_path / "run", tmp_path / "a.splat", "--sh", 2)
    assert f"reading {tmp_path}/run/ckpts/ckpt_9_rank0.pt" in caplog.text
    assert "--sh 2 changes nothing: the splats have SH degree 1" in caplog.text
    assert "a.splat: 5 Gaussians, SH degree 0" in caplog.text


def test_targets_that_are_no_file_are_refused(tmp_path, monkeypatch):
    splats.save(tmp_path / "a.pt", some_splats(5))
    (tmp_path / "b.ply").mkdir()
    with pytest.raises(IsADirectoryError, match=r"b\.ply is a folder; give the name of a file"):
        convert(monkeypatch, tmp_path / "a.pt", tmp_path / "b.ply", "--overwrite")
    with pytest.raises(ValueError, match=r"/\.spz is only an ending; give a name before it"):
        convert(monkeypatch, tmp_path / "a.pt", tmp_path / ".spz")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("convert", "a.ply", "b.obj"), "cannot save splats as b.obj; end its name in"),
        (("convert", "none.ply", "b.spz"), "no such file or folder: none.ply"),
        (("convert", "none.ply", "b.ksplat"), "cannot save splats as b.ksplat"),
        (("show",), "there is no command show; see python -m splats --help"),
    ],
)
def test_mistakes_are_one_sentence(monkeypatch, words, message):
    monkeypatch.setattr(sys, "argv", ["splats", *words])
    with pytest.raises((ValueError, OSError), match=message):
        command.main()


def test_mistakes_exit_with_2(tmp_path):
    (tmp_path / "a.spz").write_bytes(b"no splats")
    done = subprocess.run(
        [sys.executable, "-m", "splats", "convert", tmp_path / "a.spz", tmp_path / "b.ply"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=GUARD,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "a.spz is damaged or not of its format" in done.stderr
    assert not (tmp_path / "b.ply").exists()
