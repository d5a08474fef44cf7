# The commands as published, on a layout as DL3DV-Benchmark's: curate, resume, list, read.
import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from gen_data import gen_data, gen_data_json
from gen_data.gen_data import Options
from gen_data.gen_data_json import Options as ListOptions
from gen_data.tasks import Task, make_procedural_tasks, run_task
from tests.conftest import GUARD
from tests.gen_data.conftest import HEIGHT, VIEWS, WIDTH
from triplets.manifest import read

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "scenes"


def command(script, flags, cwd=ROOT):
    return subprocess.run(
        [sys.executable, str(ROOT / script), *flags.split()],
        cwd=cwd, capture_output=True, text=True, timeout=GUARD, env=os.environ | {"TRACEBACK": ""},
    )  # fmt: skip


def test_the_published_sparse_command_from_captures_to_triplets(benchmark, tmp_path, caplog):
    flags = (
        f"--base_path {benchmark} --idx_start 0 --idx_end 35 --save_iter 30 --render_iter 30 "
        "--image_folder images_4 --strategy sparse --train_every 10"
    )
    done = command("gen_data/gen_data.py", flags)
    assert done.returncode == 1, done.stderr
    assert "1 of 3 scenes failed" in done.stderr and "is not a capture" in done.stderr
    for name in ("0a", "0b"):
        folder = benchmark / name / "gs_recon_sparse_10"
        assert (folder / "point_cloud/iteration_30/point_cloud.ply").is_file()
        assert len(list((folder / "test/ours_30/renders").iterdir())) == 10
        assert Image.open(folder / "train/ours_30/gt/00001.png").size == (48, 32)
        assert f"{name}: gs_recon_sparse_10: sparse: 2 train, 10 test" in done.stderr

    stamp = (benchmark / "0a/gs_recon_sparse_10/done.json").stat().st_mtime_ns
    same = Options(
        benchmark, idx_end=2, save_iter=(30,), render_iter=(30,), image_folder="images_4",
        strategy="sparse", train_every=10,
    )  # fmt: skip
    with caplog.at_level(logging.INFO):
        gen_data.main(same)
    assert "2 of 2 scenes are finished already" in caplog.text
    assert (benchmark / "0a/gs_recon_sparse_10/done.json").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="was made with other settings"):
        gen_data.main(replace(same, render_iter=(9,)))

    listed = command("data/gen_data_json.py", f"--base_path {benchmark} --use_sparse", tmp_path)
    assert listed.returncode == 0, listed.stderr
    file = tmp_path / "data/data_sparse.json"
    split = json.loads((tmp_path / "data/split_DL3DV-10K-Benchmark.json").read_text())
    assert split == {"train": ["0a"], "val": ["0b"]}
    for part, scene in (("train", "0a"), ("val", "0b")):
        triplets = read(file, (part,))
        assert [t.key for t in triplets] == [f"{scene}_sparse_10_{i:05d}" for i in range(10)]
        for t in triplets:
            assert all(path.is_file() for path in t.files)
            assert t.alpha is not None and t.camera is not None
            assert t.truth.read_bytes() not in [r.path.read_bytes() for r in t.references]
    entry = json.loads(file.read_text())["train"]["0a_sparse_10_00000"]
    assert entry["render"].startswith("../DL3DV-10K-Benchmark/0a/gs_recon_sparse_10/test/")
    assert {"render", "gt", "ref", "alpha", "camera", "references"} == set(entry)


@pytest.mark.skipif(not (SHARED / "fountain").is_dir(), reason="needs ../shared/scenes")
def test_a_real_capture_at_images_4(tmp_path):
    shutil.copytree(SHARED / "fountain", tmp_path / "base/fountain/gaussian_splat")
    base = tmp_path / "base"
    options = Options(base, render_iter=(2,), image_folder="images_4", depth=False)
    task = Task(base, base / "fountain", gen_data.make_recipe(options))
    run_task(task, 0, lambda done, total: None)
    folder = base / "fountain/gs_recon/train/ours_2"
    names = sorted(file.name for file in (folder / "renders").iterdir())
    assert names == [f"{i:05d}.png" for i in range(11)]
    photo = Image.open(next((SHARED / "fountain/images").iterdir()))
    small = Image.open(folder / "gt/00000.png")
    assert abs(small.width - photo.width / 4) <= 1 and abs(small.height - photo.height / 4) <= 1


def test_procedural_scenes_are_made_by_seed_whatever_their_number(captures, tmp_path):
    def tasks(first, count, views=VIEWS):
        options = Options(
            tmp_path, procedural=count, seed=first, strategy="random", render_iter=(2,),
            densify="mcmc", cap_max=300, depth=False,
        )  # fmt: skip
        recipe = gen_data.make_recipe(options)
        return make_procedural_tasks(tmp_path, recipe, "cpu", count, (views, WIDTH, HEIGHT))

    assert list(tasks(0, 3)) == ["procedural_000000", "procedural_000001", "procedural_000002"]
    name = "procedural_000001"
    assert tasks(0, 3)[name] == tasks(1, 1)[name]
    run_task(tasks(0, 3)[name], 0, lambda done, total: None)
    photos = [sorted((p / "images").iterdir()) for p in (tmp_path / name, captures[1])]
    assert [f.read_bytes() for f in photos[0]] == [f.read_bytes() for f in photos[1]]
    renders = list((tmp_path / name / "gs_recon_random_1/test/ours_2/renders").iterdir())
    assert len(renders) == VIEWS - 2
    with pytest.raises(ValueError, match=rf"{name} has 12 views of 48x32, not 9 of"):
        tasks(0, 3, views=9)


def test_a_read_only_data_set_needs_another_output_path(benchmark, tmp_path):
    benchmark.chmod(0o555)
    with pytest.raises(PermissionError, match=r"cannot write .*--output_path"):
        gen_data.main(Options(benchmark, render_iter=(2,)))
    benchmark.chmod(0o755)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"base_path": Path("none")}, "--base_path none does not exist"),
        ({"workers": 0}, "--workers 0"),
        ({"shard": "3/2"}, "--shard 3/2"),
        ({"idx_start": 3}, "--idx_start 3 is beyond"),
        ({"device": "gpu"}, "--device gpu"),
        ({"procedural": -1}, "--procedural -1"),
        ({"render_iter": ()}, "--render_iter"),
        ({"strategy": "sparse", "train_every": 0}, "--train_every 0"),
    ],
)
def test_mistakes_are_one_sentence_before_any_work(benchmark, fields, why):
    with pytest.raises((ValueError, OSError), match=why):
        gen_data.main(Options(**{"base_path": benchmark} | fields))
    assert not list(benchmark.glob("*/gs_recon*"))


@pytest.fixture
def curated(results, tmp_path, monkeypatch):
    """Both scenes with several results; the working directory is beside them."""
    base = tmp_path / "DL3DV-10K-Benchmark"
    shutil.copytree(results, base)
    monkeypatch.chdir(tmp_path)
    return base


def kinds(file, split="train"):
    """What the keys of a list name, but for scene and frame."""
    return {t.key.rpartition("_")[0].partition("_")[2] for t in read(file, (split,))}


UF, UF_2, SP, SP_2 = "underfitting_1000", "underfitting_2", "sparse_10_3", "sparse_10_2"


@pytest.mark.parametrize(
    ("flags", "file", "expected"),
    [
        ({"use_underfitting": True}, "data_underfitting.json", {UF}),
        ({"use_sparse": True}, "data_sparse.json", {SP}),
        ({"use_underfitting": True, "use_sparse": True}, "data.json", {UF, SP}),
        ({}, "data.json", {UF, UF_2, SP, SP_2, "sparse_5", "cross_1"}),
        ({"use_sparse": True, "train_every": (5,)}, "data_sparse.json", {"sparse_5"}),
        ({"use_underfitting": True, "iterations": (2,)}, "data_underfitting.json", {UF_2}),
        ({"strategies": ("cross", "sparse")}, "data.json", {SP, SP_2, "sparse_5", "cross_1"}),
    ],
)
def test_flags_choose_what_is_listed(curated, flags, file, expected):
    gen_data_json.main(ListOptions(curated, **flags))
    path = curated.parent / "data" / file
    assert kinds(path) == kinds(path, "val") == expected
    assert {t.key[:2] for t in read(path, ("train",))} == {"0a"}


def test_a_split_file_and_an_output_of_one_s_own(curated):
    Path("mine.json").write_text('{"train": ["0b"], "val": ["0a"]}')
    own = {"split_file": Path("mine.json"), "output": Path("lists/x.json"), "dialect": "difix"}
    gen_data_json.main(ListOptions(curated, use_sparse=True, candidates=1, **own))
    assert json.loads(Path("lists/x.json").read_text()).keys() == {"train", "test"}
    for split, scene in (("train", "0b"), ("test", "0a")):
        triplets = read("lists/x.json", (split,))
        assert {t.key[:2] for t in triplets} == {scene}
        assert {len(t.references) for t in triplets} == {1}
    assert not Path("data").exists()


def test_warping_goes_scene_by_scene_and_what_fails_is_left_out(curated):
    (curated / "0b/gs_recon_sparse_10/train/ours_3/depth/00000.npz").unlink()
    with pytest.raises(SystemExit) as stop:
        gen_data_json.main(ListOptions(curated, use_sparse=True, warp=True))
    assert stop.value.code == 1
    triplets = read("data/data_sparse.json", ("train",))
    assert all(r.warped.is_file() and r.mask.is_file() for t in triplets for r in t.references)
    assert "val" not in json.loads(Path("data/data_sparse.json").read_text())


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ({"use_underfitting": True, "iterations": (7,)}, r"no finished result.*gs_recon at 1000"),
        ({"use_sparse": True, "train_every": (40,)}, r"no finished result.*gs_recon_sparse_10 at"),
        ({"candidates": 0}, "--candidates 0"),
        ({"ref_every": 0}, "--ref_every 0"),
    ],
)
def test_nothing_to_list_is_told(curated, flags, why):
    with pytest.raises(ValueError, match=why):
        gen_data_json.main(ListOptions(curated, **flags))
    assert not Path("data").exists()
