# Triplet lists: three dialects, relative paths, and mistakes in one sentence.
import json

import pytest
from PIL import Image

from triplets.manifest import Reference, Triplet, View, read, write


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


CAMERA = View(
    tuple(tuple(float(i == j) for j in range(4)) for i in range(4)),
    ((5.0, 0.0, 2.0), (0.0, 5.0, 1.5), (0.0, 0.0, 1.0)),
    4,
    3,
)


@pytest.mark.parametrize("dialect", ["difix", "gsvar", "splatent"])
@pytest.mark.parametrize("relative", [False, True])
def test_candidates_cameras_and_alpha_are_kept(pictures, dialect, relative):
    a, b, c = (pictures / f"{name}.png" for name in "abc")
    references = (Reference(c, CAMERA, warped=a, mask=b), Reference(a, CAMERA))
    triplet = Triplet("k", a, b, references=references, alpha=c, camera=CAMERA)
    assert triplet.reference == c
    write(pictures / "out.json", {"train": [], "val": [triplet]}, dialect, relative=relative)
    assert read(pictures / "out.json", ("val",)) == [triplet]
    entry = json.loads((pictures / "out.json").read_text())["val"]["k"]
    path = entry[{"difix": "image", "gsvar": "render", "splatent": "feature"}[dialect]]
    assert path == ("a.png" if relative else str(a))
    assert entry["references"][0]["warped"] == path


@pytest.mark.parametrize("references", [[], ["r0.pt"], ["r1.pt", "r0.pt"]])
def test_splatent_s_latents_are_read_and_written(tmp_path, references):
    for name in ("a", "b", "r0", "r1"):
        (tmp_path / f"{name}.pt").touch()
    entry = {"feature": "a.pt", "target_feature": "b.pt", "ref_features": references}
    entry["prompt"] = "remove degradation"
    (triplet,) = read(listed(tmp_path, {"test": {"000000": entry}}), ("test",))
    assert triplet.is_latent and triplet.truth == tmp_path / "b.pt"
    assert [r.path for r in triplet.references] == [tmp_path / name for name in references]
    write(tmp_path / "out.json", {"test": [triplet]}, "splatent", relative=True)
    assert json.loads((tmp_path / "out.json").read_text())["test"]["000000"] == entry


def test_splatent_s_older_single_reference(tmp_path):
    for name in ("a", "b", "r"):
        (tmp_path / f"{name}.pt").touch()
    entry = {"feature": "a.pt", "target_feature": "b.pt", "ref_feature": "r.pt"}
    (triplet,) = read(listed(tmp_path, {"train": {"000000": entry}}), ("train",))
    assert triplet.reference == tmp_path / "r.pt"


def test_a_plain_reference_is_the_only_candidate(pictures):
    triplet = Triplet("k", pictures / "a.png", pictures / "b.png", pictures / "c.png")
    assert triplet.references == (Reference(pictures / "c.png"),)
    with pytest.raises(ValueError, match="'k' must be the first"):
        Triplet("k", pictures / "a.png", pictures / "b.png", pictures / "c.png", (Reference("d"),))


@pytest.mark.parametrize(
    ("addition", "why"),
    [
        ({"references": 3}, "references of 'k' must be a list"),
        ({"ref_features": "a.pt"}, "ref_features of 'k' must be a list of paths"),
        ({"references": [3]}, "references of 'k' must be a list"),
        ({"references": [{}]}, "'k' has no image"),
        ({"references": [{"image": "no.png"}]}, "1 of its pictures .* no.png"),
        ({"ref": "a.png", "references": [{"image": "c.png"}]}, "'k' has a reference that is not"),
        ({"alpha": 3}, "'k' has a alpha that is no path"),
        ({"alpha": "no.png"}, "1 of its pictures .* no.png"),
        ({"camera": 3}, "camera of 'k' must be an object"),
        ({"camera": {"viewmat": [[1]]}}, "camera of 'k' needs viewmat, a 4x4"),
        ({"camera": {"viewmat": [["x"] * 4] * 4}}, "viewmat with values that are no finite"),
        ({"camera": {"viewmat": [[1] * 4] * 4, "K": [[1] * 3] * 3}}, "needs width"),
    ],
)
def test_mistakes_in_candidates_and_cameras(pictures, addition, why):
    content = {"val": {"k": {"render": "a.png", "gt": "b.png"} | addition}}
    with pytest.raises((ValueError, FileNotFoundError), match=why) as error:
        read(listed(pictures, content), ("val",))
    assert "data.json" in str(error.value)


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


@pytest.mark.parametrize("start", ["/elsewhere/set", "D:\\data\\set"])
def test_a_list_written_elsewhere_finds_its_pictures(pictures, tmp_path, caplog, start):
    (pictures / "moved" / "x").mkdir(parents=True)
    for name in "abc":
        (pictures / f"{name}.png").rename(pictures / "moved" / "x" / f"{name}.png")
    slash = "\\" if "\\" in start else "/"
    names = zip(("image", "target_image", "ref_image"), "abc", strict=True)
    entry = {key: slash.join((start, "x", f"{name}.png")) for key, name in names}
    path = listed(tmp_path, {"val": {"k": entry, "l": entry}})
    with caplog.at_level("INFO"):
        triplets = read(path, ("val",), root=pictures / "moved")
    inside = pictures / "moved" / "x"
    assert triplets[1].files == [inside / "a.png", inside / "b.png", inside / "c.png"]
    assert caplog.text.count("are read from") == 1 and "set/ are read" in caplog.text
    with pytest.raises(FileNotFoundError, match="6 of its pictures are not there"):
        read(path, ("val",))


def test_backslashes_are_slashes(pictures):
    (pictures / "x").mkdir()
    (pictures / "a.png").rename(pictures / "x" / "a.png")
    entry = {"image": r"x\a.png", "target_image": r".\b.png"}
    (triplet,) = read(listed(pictures, {"val": {"k": entry}}), ("val",))
    assert triplet.render == pictures / "x" / "a.png"
