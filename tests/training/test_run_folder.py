# A run's checkpoints: which there are, which is gone on from, and what a failure leaves.
import logging
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from training.run_folder import RunFolder, add_name

PREFIX = "ar"


def content(step: int) -> dict:
    return {"trainer": {"x": torch.full((500,), float(step))}, "resume": {"step": step}}


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder(tmp_path / "run", PREFIX, keep=2)


def names(folder):
    return sorted(file.name.removeprefix("ar-ckpt-") for file in folder.path.iterdir())


def filled(folder, steps=(10, 20, 30)):
    for step in steps:
        folder.save(content(step), best=step == 20, mark=f"{step // 10:04d}_{step:07d}")
    return folder


def test_nothing_is_found_in_a_new_folder(folder):
    assert folder.newest() is None
    folder.path.mkdir()
    assert folder.newest() is None
    folder.clear()


def test_last_best_and_earlier_ones(folder):
    filled(folder)
    assert names(folder) == ["best.pth", "ep_0002_0000020.pth", "ep_0003_0000030.pth", "last.pth"]
    file, loaded = folder.newest()
    assert file == folder.last
    assert torch.equal(loaded["trainer"]["x"], content(30)["trainer"]["x"])
    assert torch.load(folder.best, weights_only=True)["resume"]["step"] == 20
    folder.save(content(35))
    assert folder.newest()[1]["resume"]["step"] == 35
    assert torch.load(folder.best, weights_only=True)["resume"]["step"] == 20
    assert [torch.load(f, weights_only=True)["resume"]["step"] for f in folder.earlier()] == [
        20,
        30,
    ]


def test_names_of_the_same_content_take_no_space(folder):
    folder.save(content(10), best=True, mark="0001_0000010")
    files = folder.last, folder.best, *folder.earlier()
    assert len(files) == 3
    assert len({file.stat().st_ino for file in files}) == 1
    folder.save(content(20))
    assert folder.last.stat().st_ino != folder.best.stat().st_ino
    assert folder.best.stat().st_nlink == 2


def test_where_links_cannot_be_made_there_are_copies(tmp_path):
    """Another file system, as /dev/shm mostly is, takes no link."""
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("one file system only")
    (tmp_path / "a").write_bytes(b"abc")
    target = other / f"named-{os.getpid()}"
    try:
        add_name(tmp_path / "a", target)
        assert target.read_bytes() == b"abc"
        assert not list(other.glob(f".named-{os.getpid()}*"))
    finally:
        target.unlink(missing_ok=True)


@pytest.mark.parametrize(("keep", "left"), [(0, []), (1, [50]), (3, [30, 40, 50]), (9, None)])
def test_older_ones_are_pruned(tmp_path, keep, left):
    folder = filled(RunFolder(tmp_path, PREFIX, keep), (10, 20, 30, 40, 50))
    steps = [torch.load(f, weights_only=True)["resume"]["step"] for f in folder.earlier()]
    assert steps == ([10, 20, 30, 40, 50] if left is None else left)


def test_pruning_goes_by_the_steps_also_in_a_copy(tmp_path):
    """A copied folder has other times; and steps grow beyond the names' zeros."""
    folder = filled(RunFolder(tmp_path, PREFIX, 9), (9_999_980, 9_999_990, 10_000_000))
    for at, file in enumerate(reversed(folder.earlier())):
        os.utime(file, (1000 + at, 1000 + at))
    folder = RunFolder(tmp_path, PREFIX, 2)
    folder.save(content(10_000_010), mark="1000001_10000010")
    steps = [torch.load(f, weights_only=True)["resume"]["step"] for f in folder.earlier()]
    assert steps == [10_000_000, 10_000_010]


def test_the_original_s_files_are_not_pruned(folder):
    folder.path.mkdir()
    theirs = folder.path / "ar-ckpt-ep_0003.pth"
    torch.save({"epoch": 3}, theirs)
    filled(folder)
    assert theirs.exists()
    assert len(folder.earlier()) == 3


def truncated(file):
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def emptied(file):
    file.write_bytes(b"")


def garbled(file):
    file.write_bytes(b"\x80garbage" * 50)


def a_zip(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("hello", "world")


def a_tensor(file):
    torch.save(torch.ones(3), file)


@pytest.mark.parametrize("damage", [truncated, emptied, garbled, a_zip])
def test_damaged_checkpoints_are_passed_over_and_said(folder, damage, caplog):
    filled(folder)
    for file in (folder.last, folder.earlier()[-1]):
        copied = file.with_name("copy")
        shutil.copyfile(file, copied)  # the names are links to one file
        copied.replace(file)
        damage(file)
    with caplog.at_level(logging.WARNING):
        file, loaded = folder.newest()
    assert loaded["resume"]["step"] == 20
    assert file == folder.earlier()[0]
    for bad in (folder.last, folder.earlier()[-1]):
        assert f"{bad}" in caplog.text
    for bad in (*folder.earlier(), folder.best):
        bad.unlink()
    assert folder.newest() is None


def test_the_furthest_is_taken_whatever_its_name(folder):
    filled(folder)
    folder.last.unlink()  # its other names are the same file
    torch.save(content(25), folder.last)
    assert folder.newest()[0] == folder.earlier()[-1]
    folder.last.unlink()
    assert folder.newest()[1]["resume"]["step"] == 30


def test_a_mapped_checkpoint_outlives_the_next_save(folder):
    folder.save(content(1))
    _, loaded = folder.newest()
    folder.save(content(2))
    assert torch.equal(loaded["trainer"]["x"], content(1)["trainer"]["x"])


@pytest.mark.parametrize("write", [lambda f: torch.save({"trainer": {}}, f), a_tensor])
def test_files_of_others_are_refused_and_left(folder, write):
    folder.path.mkdir()
    write(folder.last)
    with pytest.raises(ValueError, match="no checkpoint that this run can go on from") as error:
        folder.newest()
    assert str(folder.last) in str(error.value)
    assert "--exp_name" in str(error.value)
    assert folder.last.exists()
    torch.save(content(4), folder.path / "ar-ckpt-ep_0001_0000004.pth")
    assert folder.newest()[1]["resume"]["step"] == 4


def test_other_stages_are_not_touched(folder):
    other = RunFolder(folder.path, "vae")
    other.save(content(5), best=True, mark="0001_0000005")
    filled(folder)
    assert other.newest()[1]["resume"]["step"] == 5
    folder.clear()
    assert folder.newest() is None
    assert sorted(f.name[:3] for f in folder.path.iterdir()) == ["vae"] * 3


FULL = """
import resource, sys
from pathlib import Path
import torch
from training.run_folder import RunFolder

folder = RunFolder(Path(sys.argv[1]), "ar")
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    folder.save({"x": torch.zeros(100000), "resume": {"step": 99}}, best=True, mark="0009_0000099")
except OSError as error:
    print(type(error).__name__, error)
"""


def test_a_full_disk_leaves_the_checkpoint_before(folder):
    filled(folder)
    before = {file: file.read_bytes() for file in folder.path.iterdir()}
    done = subprocess.run(
        [sys.executable, "-c", FULL, folder.path],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    (message,) = done.stdout.splitlines()
    assert message.startswith("OSError")
    assert str(folder.last) in message
    assert "the one before is whole" in message
    assert {file: file.read_bytes() for file in folder.path.iterdir()} == before
    assert folder.newest()[1]["resume"]["step"] == 30


KILLED = """
import os, sys
from pathlib import Path
import torch
from training.run_folder import RunFolder

class Deadly:
    def __reduce__(self):
        os.kill(os.getpid(), 9)

RunFolder(Path(sys.argv[1]), "ar").save({"x": torch.ones(9), "y": Deadly()})
"""


def test_what_a_killed_save_left_goes_with_the_next(folder):
    filled(folder)
    before = names(folder)
    arguments = [sys.executable, "-c", KILLED, folder.path]
    done = subprocess.run(arguments, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -9
    assert len(names(folder)) == len(before) + 1
    assert folder.newest()[1]["resume"]["step"] == 30
    folder.save(content(40))
    assert names(folder) == before
