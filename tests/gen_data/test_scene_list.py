# Which scenes are worked on: csv or folders, ranges, shards; and which train and which are for val.
import json
import logging

import pytest

from gen_data.scene_list import find_capture_folder, list_scenes, select_scenes
from gen_data.scene_split import draw_split, split_scenes
from runtime.shards import Shard


def test_the_csv_names_the_scenes_sorted(tmp_path):
    (tmp_path / "zzz").mkdir()
    (tmp_path / "benchmark-meta.csv").write_text("batch,hash\n1K,b\n2K,a\n,\n")
    assert list_scenes(tmp_path) == ["a", "b"]


def test_without_a_csv_the_folders_are_the_scenes(tmp_path):
    for name in ("b", "a", ".hidden", "results"):
        (tmp_path / name).mkdir()
    (tmp_path / "file.txt").touch()
    assert list_scenes(tmp_path, exclude=tmp_path / "results") == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "why"),
    [("name\nx\n", "column `hash`"), ("hash\n../x\n", "no folder's name")],
)
def test_a_broken_csv_is_named(tmp_path, text, why):
    (tmp_path / "benchmark-meta.csv").write_text(text)
    with pytest.raises(ValueError, match=f"benchmark-meta.csv .*{why}"):
        list_scenes(tmp_path)


def test_no_folder_and_no_scenes(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--base_path .*none does not exist"):
        list_scenes(tmp_path / "none")
    with pytest.raises(ValueError, match="has no scenes"):
        list_scenes(tmp_path)


def test_captures_of_dl3dv_lie_a_folder_deeper(tmp_path):
    (tmp_path / "a/gaussian_splat").mkdir(parents=True)
    assert find_capture_folder(tmp_path, "a") == tmp_path / "a/gaussian_splat"
    assert find_capture_folder(tmp_path, "b") == tmp_path / "b"


def test_ranges_exclude_their_end_and_may_reach_beyond_the_list():
    names = list("abcdefg")
    assert select_scenes(names, 1, 3) == ["b", "c"]
    assert select_scenes(names, 5, 140) == ["f", "g"]
    assert select_scenes(names, 0, None) == names
    with pytest.raises(ValueError, match="--idx_start 7 is beyond"):
        select_scenes(names, 7, None)
    with pytest.raises(ValueError, match="--idx_start 3 --idx_end 3"):
        select_scenes(names, 3, 3)


def test_shards_share_a_range_without_gap_or_overlap():
    names = [f"{i:02d}" for i in range(11)]
    parts = [select_scenes(names, 1, None, Shard.parse(f"{i}/3")) for i in (1, 2, 3)]
    assert sorted(name for part in parts for name in part) == names[1:]
    assert select_scenes(names[:2], 0, None, Shard(3, 3)) == []
    for wrong in ("0/3", "4/3", "3", "a/b", "1/"):
        with pytest.raises(ValueError, match="--shard"):
            Shard.parse(wrong)


def test_of_140_scenes_120_train_and_of_two_one():
    names = [f"{i:03d}" for i in range(140)]
    split = draw_split(names[::-1])
    assert split == {"train": names[:120], "val": names[120:]}
    assert [len(part) for part in draw_split(["b", "a"]).values()] == [1, 1]
    assert draw_split(["a"]) == {"train": ["a"], "val": []}
    assert len(draw_split(names[:14])["val"]) == 2


def test_a_split_is_drawn_once_and_then_obeyed(tmp_path, caplog):
    file = tmp_path / "data/split_x.json"
    names = [f"{i:03d}" for i in range(14)]
    curated = ["000", "013"]
    assert split_scenes(file, names, curated) == {"train": ["000"], "val": ["013"]}
    assert json.loads(file.read_text())["train"] == names[:12]  # all scenes, curated or not
    file.write_text(json.dumps({"train": ["013"], "val": ["005"]}))
    with caplog.at_level(logging.WARNING):
        assert split_scenes(file, names, curated) == {"train": ["013"], "val": []}
    assert "1 scenes are left out" in caplog.text and "000" in caplog.text


def test_a_part_without_curated_scenes_is_avoided(tmp_path):
    names = [f"{i:03d}" for i in range(140)]
    parts = split_scenes(tmp_path / "s.json", names, names[:10])
    assert parts == {"train": names[:9], "val": names[9:10]}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is no JSON"),
        ('{"train": ["a"]}', "needs two lists"),
        ('{"train": [1], "val": []}', "needs two lists"),
        ('{"train": ["a"], "val": ["a"]}', "lists a both"),
    ],
)
def test_a_broken_split_file_is_named(tmp_path, text, why):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ValueError, match=f"s.json {why}"):
        split_scenes(tmp_path / "s.json", ["a"], ["a"])
