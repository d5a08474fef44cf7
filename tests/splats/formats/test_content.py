# Files of splats whose names say something else, and folders with such files.
import pytest

import splats
from tests.splats.formats.test_checkpoint import same, some_splats


@pytest.mark.parametrize("kind", [".ply", ".glb", ".spz", ".sog", ".pt"])
def test_a_wrong_ending_is_named(tmp_path, kind):
    splats.save(tmp_path / f"a{kind}", some_splats(5, 0))
    content = (tmp_path / f"a{kind}").read_bytes()
    for ending in {".ply", ".splat", ".spz", ".pth", ".gltf", ".sog"} - {kind}:
        if (kind, ending) in ((".glb", ".gltf"), (".pt", ".pth")):
            continue
        (tmp_path / f"b{ending}").write_bytes(content)
        with pytest.raises(ValueError, match=rf"b\{ending} is a \{kind} by its content; rename it"):
            splats.load(tmp_path / f"b{ending}")


def test_an_empty_file_is_named(tmp_path):
    for ending in (".ply", ".spz", ".pt", ".compressed.ply"):
        (tmp_path / f"a{ending}").touch()
        with pytest.raises(ValueError, match=rf"a\{ending} is empty; copy or export it again"):
            splats.load(tmp_path / f"a{ending}")


def test_a_plain_ply_may_be_called_compressed(tmp_path):
    splats.save(tmp_path / "a.ply", some_splats(5))
    (tmp_path / "a.ply").rename(tmp_path / "a.compressed.ply")
    assert same(splats.load(tmp_path / "a.compressed.ply"), some_splats(5))


def test_the_only_file_of_a_folder_is_read_and_several_are_named(tmp_path):
    splats.save(tmp_path / "a.glb", some_splats(5))
    (tmp_path / "notes.txt").touch()
    assert splats.load(tmp_path).count == 5
    splats.save(tmp_path / "b.glb", some_splats(5))
    with pytest.raises(FileNotFoundError, match=r"several .* \(a\.glb, b\.glb\); name the file"):
        splats.load(tmp_path)
