# The published command on a made chunk.
import torch

from scenes.re10k import ProcessedScene, read_list
from tests.scenes.test_re10k import make_scene

SCRIPT = "examples/efficient_lvsm/utils/process_data.py"


def test_chunks_are_processed_once(tmp_path, run_script):
    (tmp_path / "raw" / "test").mkdir(parents=True)
    torch.save([make_scene()[0], make_scene("two")[0]], tmp_path / "raw" / "test" / "0.torch")
    torch.save([make_scene("three")[0]], tmp_path / "raw" / "test" / "1.torch")
    flags = ("--base_path", "raw", "--output_dir", "out", "--mode", "test", "--num_processes", 1)
    code, text = run_script(tmp_path, SCRIPT, *flags)
    assert code == 0 and "3 scenes of 2 chunks" in text
    files = read_list(tmp_path / "out" / "test" / "full_list.txt")
    assert [ProcessedScene.read(file).name for file in files] == ["0a1b", "two", "three"]
    times = [file.stat().st_mtime_ns for file in files]
    code, text = run_script(tmp_path, SCRIPT, "--data_dir", "raw", *flags[2:])
    assert code == 0 and times == [file.stat().st_mtime_ns for file in files]


def test_mistakes_are_one_sentence(tmp_path, run_script):
    (tmp_path / "raw").mkdir()
    for flags, message in (
        (("--base_path", "none"), "none is not a folder (--base_path)"),
        (("--base_path", "raw"), "raw has no chunks train/*.torch"),
        (("--base_path", "raw", "--num_processes", 0), "--num_processes 0 must be at least 1"),
    ):
        code, text = run_script(tmp_path, SCRIPT, *flags)
        assert code == 2 and message in text
    (tmp_path / "raw" / "0.torch").write_bytes(b"nothing")
    code, text = run_script(tmp_path, SCRIPT, "--base_path", "raw")
    assert code == 2 and "0.torch is truncated" in text
    assert not (tmp_path / "raw" / "processed" / "train" / "full_list.txt").exists()
