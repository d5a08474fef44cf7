# Atomic files, writable folders, strict JSON.
import errno
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from runtime.files import atomic_path, make_writable_folder, write_json


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


def write_text(file: Path) -> None:
    file.write_text("x" * 100_000)


def write_array(file: Path) -> None:
    with file.open("wb") as stream:
        np.zeros(100_000).tofile(stream)


def write_checkpoint(file: Path) -> None:
    torch.save(torch.zeros(100_000), file)


@pytest.mark.parametrize("write", [write_text, write_array, write_checkpoint])
def test_a_full_disk_is_named_with_the_file(tmp_path, write):
    target = tmp_path / "file.bin"
    with pytest.raises(OSError) as error, atomic_path(target) as temporary:
        temporary.unlink()
        temporary.symlink_to("/dev/full")
        write(temporary)
    assert str(error.value) == f"{target} cannot be written: no space left on the disk"
    assert error.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())


def test_errors_name_the_target_or_the_other_file(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for target, reason in (("folder", "is a directory"), ("file/below", "file exists")):
        message = f"^{tmp_path / target} cannot be written: {reason}$"
        with pytest.raises(OSError, match=message), atomic_path(tmp_path / target) as temporary:
            temporary.touch()
    with pytest.raises(FileNotFoundError) as error, atomic_path(tmp_path / "new"):
        (tmp_path / "missing").read_text()
    assert error.value.filename == str(tmp_path / "missing")
    inner = tmp_path / "folder"
    message = f"^{inner} cannot be written"
    with (
        pytest.raises(IsADirectoryError, match=message),
        atomic_path(tmp_path / "new"),
        atomic_path(inner),
    ):
        pass


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


def test_json_is_strict_and_whole(tmp_path, caplog):
    data = {
        "psnr": math.inf,
        "views": [{"ssim": np.float32(0.5), "lpips": None}, (1, np.nan)],
        "path": Path("a/b"),
        "count": torch.tensor(3),
        "name": "Ångström <1>",
    }
    file = write_json(tmp_path / "stats" / "val.json", data)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    read = json.loads(file.read_text(encoding="utf-8"), parse_constant=refuse)
    assert read == {
        "psnr": None,
        "views": [{"ssim": 0.5, "lpips": None}, [1, None]],
        "path": "a/b",
        "count": 3,
        "name": "Ångström <1>",
    }
    assert "/psnr" in caplog.text and "/views/1/1" in caplog.text


def test_json_that_fails_leaves_the_old_file(tmp_path):
    file = write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    assert json.loads(file.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]
