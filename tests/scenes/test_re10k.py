# Chunks of RealEstate10K and the folder they are laid out in; chunks are made as torch writes them.
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from scenes.re10k import ProcessedScene, read_chunk, read_index, read_list, write_scene

WIDTH, HEIGHT, FRAMES = 32, 18, 3


def make_scene(key="0a1b", frames=FRAMES):
    """A scene as pixelSplat stores it, and its pictures."""
    rng = np.random.default_rng(len(key))
    pictures, encoded = [], []
    for _ in range(frames):
        pixels = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
        encoded.append(torch.tensor(list(buffer.getvalue()), dtype=torch.uint8))
        pictures.append(np.asarray(Image.open(buffer).convert("RGB")))
    cameras = torch.zeros(frames, 18)
    cameras[:, :4] = torch.tensor([0.9, 1.6, 0.5, 0.5])
    cameras[:, 6:] = torch.eye(4)[:3].flatten()
    cameras[:, 9] = torch.arange(frames) * 0.1  # x of the translation
    scene = {"key": key, "url": "", "timestamps": torch.arange(frames)}
    return scene | {"cameras": cameras, "images": encoded}, pictures


def test_a_chunk_becomes_a_folder_and_is_read_again(tmp_path):
    scene, pictures = make_scene()
    torch.save([scene, make_scene("other", 2)[0]], tmp_path / "000000.torch")
    first, second = read_chunk(tmp_path / "000000.torch")
    assert (first.key, second.key, len(second.images)) == ("0a1b", "other", 2)
    for as_png, ending in ((False, ".jpg"), (True, ".png")):
        metadata = write_scene(first, tmp_path / ending, as_png=as_png)
        own = ProcessedScene.read(metadata)
        assert len(own) == FRAMES and own.name == "0a1b"
        assert [path.name for path in own.paths] == [f"{i:05d}{ending}" for i in range(FRAMES)]
        for i in range(FRAMES):
            assert np.array_equal(np.asarray(own.image(i)), pictures[i])
        expected = torch.tensor([[28.8, 0, 16], [0, 28.8, 9], [0, 0, 1]])
        assert torch.allclose(own.Ks[1], expected)
        assert own.viewmats[2, 0, 3] == pytest.approx(0.2)
    moved = (tmp_path / ".jpg").rename(tmp_path / "moved")
    own = ProcessedScene.read(moved / "metadata" / "0a1b.json")
    assert np.array_equal(np.asarray(own.image(0)), pictures[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("cameras"), "scene 0 has no 'cameras'"),
        (lambda s: s.update(cameras=torch.zeros(2, 18)), r"cameras \[2, 18\] for 3 pictures"),
        (lambda s: s.update(cameras=torch.zeros(3, 12)), r"not \[F,18\]"),
        (lambda s: s["cameras"].fill_(float("nan")), "not finite"),
        (lambda s: s.update(key="../up"), "no file's name"),
    ],
    ids=["no cameras", "too few", "short", "nan", "key"],
)
def test_wrong_chunks_are_named(change, message, tmp_path):
    scene, _ = make_scene()
    change(scene)
    torch.save([scene], tmp_path / "bad.torch")
    with pytest.raises(ValueError, match=message) as error:
        list(read_chunk(tmp_path / "bad.torch"))
    assert "bad.torch" in str(error.value)


def test_truncated_chunks_are_named(tmp_path):
    torch.save([make_scene()[0]], tmp_path / "whole.torch")
    data = (tmp_path / "whole.torch").read_bytes()
    (tmp_path / "half.torch").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="is truncated"):
        list(read_chunk(tmp_path / "half.torch"))
    torch.save({"a": 1}, tmp_path / "other.torch")
    with pytest.raises(ValueError, match="holds no list of scenes"):
        list(read_chunk(tmp_path / "other.torch"))


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    scene, _ = make_scene()
    scene["images"][1] = scene["images"][1][:10]
    torch.save([scene], tmp_path / "bad.torch")
    (encoded,) = read_chunk(tmp_path / "bad.torch")
    with pytest.raises(ValueError, match="scene 0a1b: picture 1 cannot be read"):
        write_scene(encoded, tmp_path / "out")
    assert not (tmp_path / "out" / "metadata").exists()


def test_wrong_metadata_is_named(tmp_path):
    file = tmp_path / "a.json"
    for content in ("[", "{}", '{"frames": []}', '{"frames": [{"image_path": "x"}]}'):
        file.write_text(content)
        with pytest.raises(ValueError, match=r"a\.json"):
            ProcessedScene.read(file)
    with pytest.raises(FileNotFoundError, match="no such file"):
        ProcessedScene.read(tmp_path / "none.json")


def test_index_and_list(tmp_path):
    file = tmp_path / "index.json"
    file.write_text(json.dumps({"a": {"context": [1, 9], "target": [3, 4, 7]}, "b": None}))
    assert read_index(file) == {"a": ([1, 9], [3, 4, 7])}
    for wrong in ('{"a": {"context": [1]}}', "[]", '{"a": {"context": [], "target": [1]}}'):
        file.write_text(wrong)
        with pytest.raises(ValueError, match=r"index\.json"):
            read_index(file)
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "s.json").write_text("{}")
    (tmp_path / "full_list.txt").write_text("/elsewhere/train/metadata/s.json\n\n")
    assert read_list(tmp_path / "full_list.txt") == [tmp_path / "metadata" / "s.json"]
    (tmp_path / "full_list.txt").write_text("\n")
    with pytest.raises(ValueError, match="lists no scene"):
        read_list(tmp_path / "full_list.txt")
