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
    assert make_split(NAMED[3:]).rule == "gsplat"  # only _train_ names


def test_test_every_alone_means_the_published_rule_of_difix():
    for names in (NAMES, NAMED):
        assert make_split(names, test_every=3) == make_split(names, "difix", 3)
    assert make_split(NAMED, test_every=1).test == (0, 1, 2)


def test_a_name_that_two_photos_share_is_ambiguous(tmp_path):
    names, file = ("a/0.jpg", "a/1.jpg", "b/0.jpg"), tmp_path / "split.json"
    file.write_text(json.dumps({"train": ["0.jpg"], "test": ["1.jpg"]}))
    with pytest.raises(ValueError, match=r"0\.jpg is ambiguous, a/0\.jpg or b/0\.jpg"):
        make_split(names, split_file=file)
    # in full, each is itself; one that is not there is not mistaken for either
    file.write_text(json.dumps({"train": ["b/0.jpg", "c/0.jpg"], "test": ["1.jpg"]}))
    split = make_split(names, split_file=file)
    assert (split.train, split.test) == ((2,), (1,)) and "1 name of no photo" in split.text


def test_a_split_file_is_not_ignored():
    with pytest.raises(ValueError, match=r"--split gsplat does not use --split_file lists\.json"):
        make_split(NAMES, "gsplat", split_file="lists.json")


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
        (("gsplat", 1), "--test_every 1"),
        (("gsplat", 0), "--test_every 0"),
        (("gsplat", -3), "--test_every -3"),
        (("difix", 1), "no view to train on"),
        (("filename", 8), "name photos with _train_ and _eval_"),
        (("json", 8), "needs --split_file"),
        (("half", 8), "choose one of gsplat, difix"),
    ],
)
def test_splits_that_cannot_be(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_split(NAMES, *arguments)


def test_the_capture_may_state_its_split():
    stated = {NAMES[0]: "train", NAMES[3]: "test", NAMES[4]: "train"}
    split = make_split(NAMES, stated=stated)
    assert (split.rule, split.train, split.test) == ("capture", (0, 4), (3,))
    assert "7 unused" in split.text
    assert make_split(NAMES, "gsplat", stated=stated).rule == "gsplat"
    with pytest.raises(ValueError, match="--split capture needs a capture that states a split"):
        make_split(NAMES, "capture")


def test_views_of_one_photo_stay_together(tmp_path):
    names = tuple(f"{photo}_{view}" for photo in "abcd" for view in range(3))
    photos = tuple(name[0] for name in names)
    split = make_split(names, "gsplat", 3, photos=photos)
    assert split.test == (0, 1, 2, 9, 10, 11) and split.train == (3, 4, 5, 6, 7, 8)
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"train": ["a", "b"], "test": ["d"]}))
    assert make_split(names, split_file=file, photos=photos).test == (9, 10, 11)
    stated = dict.fromkeys(names[:6], "train") | dict.fromkeys(names[6:], "test")
    assert make_split(names, stated=stated, photos=photos).test == (6, 7, 8, 9, 10, 11)


def test_all_may_have_no_test_view():
    assert make_split(NAMES, "all").test == ()
