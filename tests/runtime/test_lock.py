# Two runs in one folder: the second is refused, and a lock goes with its process.
import signal
import socket

import pytest

from runtime.lock import NAME, locked_folder


def test_the_second_is_refused_and_told_by_whom(tmp_path, run_elsewhere):
    folder = tmp_path / "run"
    with run_elsewhere(folder) as process:
        with pytest.raises(ValueError) as error, locked_folder(folder, "choose another --folder"):
            pytest.fail("was not refused")
        assert str(error.value) == (
            f"{folder} is in use by another run (process {process.pid} on "
            f"{socket.gethostname()}): wait for it, stop it, or choose another --folder"
        )
    with locked_folder(folder, ""):
        (folder / "result").touch()
    assert [file.name for file in folder.iterdir()] == ["result"]


def test_a_killed_process_leaves_no_lock(tmp_path, run_elsewhere):
    with run_elsewhere(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / NAME).exists()
        with locked_folder(tmp_path, ""):
            assert f"process {process.pid} " not in (tmp_path / NAME).read_text()
    assert tmp_path.is_dir() and not any(tmp_path.iterdir())


def test_a_folder_that_got_nothing_is_removed(tmp_path):
    with pytest.raises(RuntimeError), locked_folder(tmp_path / "a" / "b", ""):
        raise RuntimeError
    assert not (tmp_path / "a" / "b").exists()
