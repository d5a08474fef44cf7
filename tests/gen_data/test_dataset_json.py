# Triplet lists: three dialects, relative paths, and mistakes in one sentence.
import json

import pytest
from PIL import Image

from gen_data.dataset_json import Triplet, read, write


@pytest.fixture
def pictures(tmp_path):
    for name in ("a", "b", "c"):
        Image.new("RGB", (4, 3)).save(tmp_path / f"{name}.png")
    return tmp_path


def listed(folder, content):
    path = folder / "data.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    "entry",
    [
        {"image": "a.png", "target_image": "b.png", "ref_image": "c.png", "prompt": "x"},
        {"render": "a.png", "gt": "b.png", "ref": "c.png"},
    ],
)
@pytest.mark.parametrize("split", ["val", "test"])
def test_dialects_mean_the_same(pictures, entry, split):
    path = listed(pictures, {"train": {}, split: {"k": entry}})
    (triplet,) = read(path, ("val", "test"))
    assert triplet == Triplet("k", pictures / "a.png", pictures / "b.png", pictures / "c.png")


def test_the_working_directory_comes_first(pictures, tmp_path_factory, monkeypatch):
    here = tmp_path_factory.mktemp("here")
    Image.new("RGB", (4, 3)).save(here / "a.png")
    monkeypatch.chdir(here)
    path = listed(pictures, {"val": {"k": {"image": "a.png", "target_image": "b.png"}}})
    (triplet,) = read(path, ("val",))
    assert triplet.render.resolve() == here / "a.png"
    assert triplet.truth == pictures / "b.png"
    assert triplet.reference is None


def test_folders_of_fixer_and_several_sources(pictures):
    for side in "AB":
        (pictures / f"set/test_{side}").mkdir(parents=True)
        Image.new("RGB", (4, 3)).save(pictures / f"set/test_{side}/f.png")
    path = listed(pictures, {"test": {"k": {"image": "a.png", "target_image": "b.png"}}})
    keys = [t.key for t in read(f"{path},{pictures / 'set'}", ("val", "test"))]
    assert keys == ["k", "f"]


def test_a_byte_order_mark_is_no_obstacle(pictures):
    path = listed(pictures, {"test": {"k": {"image": "a.png", "target_image": "b.png"}}})
    path.write_text(path.read_text(), "utf-8-sig")
    assert [t.key for t in read(path, ("test",))] == ["k"]


def test_what_is_written_is_read_back(pictures):
    triplets = [
        Triplet("k", pictures / "a.png", pictures / "b.png"),
        Triplet("l", pictures / "a.png", pictures / "b.png", pictures / "c.png"),
    ]
    write(pictures / "out.json", {"train": [], "test": triplets})
    assert read(pictures / "out.json", ("test",)) == triplets


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"val": {}}, "is empty"),
        ({"train": {"k": {}}}, "no split val or test"),
        ([1], "no split"),
        ({"val": [1]}, "must map keys"),
        ({"val": {"k": 3}}, "'k' must be an object"),
        ({"val": {"k": {"image": "a.png"}}}, "'k' has no target_image or gt"),
        ({"val": {"k": {"image": 3, "gt": "b.png"}}}, "'k' has a image that is no path"),
        ({"val": {"../k": {"image": "a.png", "gt": "b.png"}}}, "cannot be a file name"),
        ({"val": {"k": {"image": "no.png", "gt": "b.png"}}}, "1 of its pictures .* no.png"),
    ],
)
def test_mistakes_name_file_entry_and_key(pictures, content, why):
    with pytest.raises((ValueError, FileNotFoundError), match=why) as error:
        read(listed(pictures, content), ("val", "test"))
    assert "data.json" in str(error.value)


def test_no_json_and_no_file(pictures):
    (pictures / "x.json").write_text("{")
    with pytest.raises(ValueError, match=r"x.json is no JSON"):
        read(pictures / "x.json", ("val",))
    (pictures / "x.json").write_text('{"val": {"k": {}, "k": {}}}')
    with pytest.raises(ValueError, match=r"x.json: the key 'k' is there twice"):
        read(pictures / "x.json", ("val",))
    with pytest.raises(FileNotFoundError, match=r"none.json.*--json_path"):
        read(pictures / "none.json", ("val",))
