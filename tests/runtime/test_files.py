import sys

import numpy as np
import pytest
import torch

from runtime.command import run_command
from runtime.files import atomic_path, make_writable_folder


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "new" / "file.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("first")
        assert not target.exists() and temporary.suffix == ".txt"
    assert target.read_text() == "first"
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half of the sec")
        raise RuntimeError
    assert target.read_text() == "first"
    assert [p.name for p in target.parent.iterdir()] == ["file.txt"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    assert make_writable_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    below = locked / "new" / "sub"
    for folder in (tmp_path / "file", tmp_path / "file" / "below", locked, below):
        with pytest.raises(PermissionError, match=f"cannot write to the folder {folder}"):
            make_writable_folder(folder)
    assert not list(locked.iterdir())


@pytest.mark.parametrize(
    ("error", "text", "code"),
    [
        (ValueError("--flag 3 is odd; give 2"), "error: --flag 3 is odd; give 2\n", 2),
        (FileNotFoundError(2, "No such file", "a.txt"), "error: a.txt: No such file\n", 2),
        (ValueError("a\nb"), "error: a b\n", 2),
        (KeyboardInterrupt(), "\nstopped\n", 130),
    ],
)
def test_a_users_mistake_is_one_sentence(error, text, code, capsys, monkeypatch):
    monkeypatch.delenv("TRACEBACK", raising=False)

    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        run_command(main)
    assert (stop.value.code, capsys.readouterr().err) == (code, text)


def test_a_bug_keeps_its_traceback(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: sys.maxsize / 0)
    monkeypatch.setenv("TRACEBACK", "1")
    with pytest.raises(ValueError, match="shown"):
        run_command(lambda: (_ for _ in ()).throw(ValueError("shown")))


def test_a_lack_of_memory_says_what_to_do(capsys, monkeypatch):
    monkeypatch.delenv("TRACEBACK", raising=False)
    for huge in (lambda: torch.empty(2**60), lambda: np.empty(2**56)):
        with pytest.raises(SystemExit) as stop:
            run_command(huge)
        assert stop.value.code == 2 and "use smaller photos" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="shape"):
        run_command(lambda: torch.zeros(2) @ torch.zeros(3, 3, 3).reshape(2, 2))
