import json

import pytest

from scenes.split import make_split

NAMES = tuple(f"a/{i:02d}.jpg" for i in range(10))
NAMED = tuple(
    f"image_{role}_{i:06d}.png" for role, n in (("eval", 3), ("train", 4)) for i in range(n)
)


def test_gsplat_and_difix_read_test_every_the_opposite_way():
    gsplat, difix = make_split(NAMES, "gsplat", 4), make_split(NAMES, "difix", 4)
    assert gsplat.test == (0, 4, 8) == difix.train
    assert gsplat.train == (1, 2, 3, 5, 6, 7, 9) == difix.test
    assert "held out" in gsplat.text and "7 train, 3 test" in gsplat.text


def test_difix_special_values():
    by_name = make_split(NAMED, "difix", 1)
    assert by_name.test == (0, 1, 2) and by_name.train == (3, 4, 5, 6)
    everything = make_split(NAMES, "difix", 0)
    assert everything.train == tuple(range(10)) and everything.test == ()


def test_detection():
    assert make_split(NAMED).rule == "filename"
    assert make_split(NAMES).rule == "gsplat" and make_split(NAMES).test == (0, 8)
    assert make_split(NAMED[3:], test_every=2).rule == "gsplat"  # only _train_ names


@pytest.mark.parametrize(
    "lists",
    [
        {"train": ["a/01.jpg", "02.jpg"], "test": ["03"]},
        {"train": ["01", "02"], "val": ["a/03.jpg"]},
        {"train_ids": [1, 2], "test_ids": [3]},
    ],
)
def test_lists(tmp_path, lists):
    file = tmp_path / "split.json"
    file.write_text(json.dumps(lists))
    split = make_split(NAMES, None, split_file=file)
    assert (split.rule, split.train, split.test) == ("json", (1, 2), (3,))
    assert "7 unused" in split.text


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[", "is not JSON"),
        ("[]", "needs two lists"),
        ('{"train": ["01"], "test": ["01"]}', "both as train and as test"),
        ('{"train": ["elsewhere"], "test": ["01"]}', "no view to train on"),
    ],
)
def test_bad_lists(tmp_path, content, sentence):
    file = tmp_path / "split.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=sentence):
        make_split(NAMES, "json", split_file=file)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("gsplat", 1), "--test-every 1"),
        (("gsplat", 0), "--test-every 0"),
        (("gsplat", -3), "--test-every -3"),
        (("difix", 1), "no view to train on"),
        (("filename", 8), "name photos with _train_ and _eval_"),
        (("json", 8), "needs --split-file"),
        (("half", 8), "choose one of gsplat, difix"),
    ],
)
def test_splits_that_cannot_be(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_split(NAMES, *arguments)


def test_all_may_have_no_test_view():
    assert make_split(NAMES, "all").test == ()
