# Lists of triplets by --json_path: several, and some of them more often.
import json
from collections import Counter

import pytest

from training.lists import read_lists


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
