# Lists of triplets by --json_path: several, and some of them more often.
import json
from collections import Counter

import pytest

from training.lists import read_held_out, read_lists


def test_a_list_may_count_several_times_in_training(triplets, tmp_path):
    content = json.loads(triplets.read_text())
    other = triplets.with_name("other.json")
    other.write_text(
        json.dumps({s: {f"x{k}": v for k, v in e.items()} for s, e in content.items()})
    )
    once, thrice = (
        read_lists(f"{triplets},{other}", ("train",)),
        read_lists(f"{triplets},{other}*3", ("train",)),
    )
    counts = Counter(t.key for t in thrice)
    assert {t.key for t in once} == set(counts)
    assert {counts[k] for k in counts if k.startswith("x")} == {3}
    assert {counts[k] for k in counts if not k.startswith("x")} == {1}
    assert len(read_lists(f"{other}*3", ("val",))) == len(content["val"])


@pytest.mark.parametrize("times", ["", "0", "x", "-1", "1.5"])
def test_what_counts_no_times_is_refused(triplets, times):
    with pytest.raises(ValueError, match=r"--json_path: .*\*N wants a number of at least 1"):
        read_lists(f"{triplets}*{times}", ("train",))


def write(folder, name, content):
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def test_only_lists_without_a_val_split_are_validated_elsewhere(triplets, tmp_path):
    content = json.loads(triplets.read_text())
    held, note = read_held_out(str(triplets))
    assert len(held) == len(content["val"]) and not note
    without = write(tmp_path, "without.json", {"train": content["train"]})
    assert read_held_out(str(without)) == (
        [],
        f"{without} has no val split: validating on training entries, which says little about new "
        "ones",
    )
    held, note = read_held_out(f"{without}*3, {triplets}")
    assert len(held) == len(content["val"])
    assert note == f"{without} has no val split: validating on entries of the other lists"
    first = next(iter(content["val"]))
    faults = {
        "is empty": {},
        "must map keys to entries": [1],
        "has no render or image|has no image or render": {"x": {"gt": "a.png"}},
        "must be an object": {"x": 3},
    }
    for text, val in faults.items():
        faulty = write(tmp_path, "faulty.json", {"train": content["train"], "val": val})
        with pytest.raises(ValueError, match=text):
            read_held_out(str(faulty))
        if val:
            with pytest.raises(ValueError, match=text):
                read_held_out(f"{triplets},{faulty}")
        else:  # such as of scenes that were all left to training
            assert read_held_out(f"{triplets},{faulty}") == (read_held_out(str(triplets))[0], "")
    twice = write(tmp_path, "twice.json", {"val": {first: content["val"][first]}})
    with pytest.raises(ValueError, match="is there twice"):
        read_held_out(f"{triplets},{twice}")


def test_a_folder_of_pairs_may_have_no_val_split(tmp_path):
    (tmp_path / "train_A").mkdir()
    held, note = read_held_out(str(tmp_path))
    assert not held and "has no val split" in note
    (tmp_path / "val_A").mkdir()
    with pytest.raises(ValueError, match="has no val_A and val_B"):
        read_held_out(str(tmp_path))
