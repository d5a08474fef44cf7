# The published commands, from a made capture of RealEstate10K's layout to tables and pages.
import csv
import json

import pytest
import torch

from examples.efficient_lvsm.config import DEFAULTS, read_config
from examples.efficient_lvsm.train import make_flags
from models.checkpoints.io import read
from tests.scenes.test_re10k import make_scene

FOLDER = "examples/efficient_lvsm"
CONFIG = ("--config", DEFAULTS)
INDEX = "inference.view_idx_file_path=index.json"
TINY = ("model.transformer.d=64", "model.transformer.d_head=32", "model.transformer.n_layer=2")
TINY += ("model.image_tokenizer.image_size=32", "model.target_pose_tokenizer.image_size=32")
TRAIN = (*TINY, "training.num_target_views=3", "training.batch_size_per_gpu=2")
TRAIN += ("training.losses.perceptual_loss_weight=0", "training.use_compile=false")
TRAIN += ("training.train_steps=2", "training.warmup=0", "training.num_workers=0")
TRAIN += ("training.use_amp=false", "training.num_samples_eval=2")


@pytest.fixture
def capture(tmp_path):
    chunks = tmp_path / "re10k"
    chunks.mkdir()
    scenes = [make_scene(key, 40)[0] for key in ("one", "two", "three")]
    torch.save(scenes, chunks / "000000.torch")
    index = {"one": {"context": [0, 30], "target": [10, 20, 30]}, "two": None}
    index["three"] = {"context": [1, 31], "target": [5]}
    (tmp_path / "index.json").write_text(json.dumps(index))
    return chunks


def read_settings(*overrides):
    return read_config([str(a) for a in (*CONFIG, *overrides)])


def test_training_evaluation_and_pages(tmp_path, capture, run_script, backbones_folder):
    flags = (*CONFIG, *TRAIN, "training.dataset_path=re10k", "training.checkpoint_dir=out/run")
    code, text = run_script(tmp_path, f"{FOLDER}/train.py", *flags)
    assert code == 0, text
    assert "3 scenes at 32x32" in text
    content = read(tmp_path / "out/run/lvsm-ckpt-last.pth")
    assert content is not None
    asked = ("inference.checkpoint_dir=out/run", "inference.dataset_path=re10k", "training.seed=1")
    asked += ("inference.view_idx_file_path=index.json", "inference.inference_out_dir=eval")
    asked += ("training.num_workers=0", f"training.backbones={backbones_folder}")
    asked += ("inference.render_video=true", "inference.render_video_config.num_frames=2")
    code, text = run_script(tmp_path, f"{FOLDER}/inference.py", *CONFIG, *asked)
    assert code == 0, text
    assert "2 of 3 scenes are in the index" in text and "1 of 4 targets are among" in text
    folders = [tmp_path / "eval" / name for name in ("000000", "000002")]
    for folder in folders:
        names = {path.name for path in folder.iterdir()}
        assert {"input.png", "gt_vs_pred.png", "metrics.json", "rendered_video.mp4"} <= names
    first = json.loads((folders[0] / "metrics.json").read_text())
    assert first["inputs"] == [0, 30]
    assert [row["view"] for row in first["per_view"]] == [10, 20, 30]
    assert [row["is_input"] for row in first["per_view"]] == [False, False, True]
    with (tmp_path / "eval" / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["Index"] for row in rows] == ["000000", "000002", "average"]
    for name in ("psnr", "ssim", "lpips", "exact_psnr", "exact_lpips_vgg"):
        values = [float(row[name]) for row in rows]
        assert values[2] == pytest.approx((values[0] + values[1]) / 2)
    page = (tmp_path / "eval" / "results_page_1.html").read_text()
    assert 'src="000000/gt_vs_pred.png"' in page and "rendered_video.mp4" in page
    assert 'href="results_page_1.html#s000002"' in (tmp_path / "eval" / "index.html").read_text()

    # it goes on where it was stopped, and not with other settings
    (folders[1] / "metrics.json").unlink()
    time = (folders[0] / "metrics.json").stat().st_mtime_ns
    code, text = run_script(tmp_path, f"{FOLDER}/inference.py", *CONFIG, *asked)
    assert code == 0 and "1 of 2 scenes are done already" in text
    assert (folders[1] / "metrics.json").exists()
    assert (folders[0] / "metrics.json").stat().st_mtime_ns == time
    # ... nor with other weights of the same name, or another index
    changed = (tmp_path / "index.json").read_text().replace("10, 20", "11, 20")
    (tmp_path / "other.json").write_text(changed)
    other = "inference.view_idx_file_path=other.json"
    weights = tmp_path / "out" / "run" / "lvsm-ckpt-best.pth"
    for more, message in (
        (("training.num_input_views=3",), "eval has results of inputs 2, not 3"),
        ((other,), "eval has results of scenes "),
        ((), "eval has results of weights "),
    ):
        if not more:
            content = torch.load(weights)
            next(iter(content["model"].values())).add_(1)
            torch.save(content, weights)
        code, text = run_script(tmp_path, f"{FOLDER}/inference.py", *CONFIG, *asked, *more)
        assert code == 2 and message in text, text
    code, text = run_script(tmp_path, f"{FOLDER}/utils/generate_html.py", "eval", "--output", "x")
    assert code == 2 and "--output x" in text


def test_efficiency_is_a_table_and_a_plot(tmp_path, run_script):
    flags = (*CONFIG, *TINY, "training.num_input_views=3", "training.num_target_views=2")
    flags += ("efficiency.repetitions=1", "efficiency.warmup=0")
    code, text = run_script(tmp_path, f"{FOLDER}/eval_efficiency.py", *flags)
    assert code == 0, text
    with (tmp_path / "incremental_result.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["v_input"], row["v_target"]) for row in rows] == [
        ("1", "2"),
        ("2", "2"),
        ("3", "2"),
    ]
    assert all(float(row["time"]) > 0 and float(row["memory"]) > 0 for row in rows)
    assert (tmp_path / "incremental_result.png").read_bytes()[:4] == b"\x89PNG"


def test_settings_become_flags(tmp_path):
    (tmp_path / "list.txt").write_text("one.json\n")
    own = tmp_path / "own.yaml"
    own.write_text(f"training:\n  dataset_path: {tmp_path / 'list.txt'}\n  lr: 2e-4\n")
    arguments = ["--config", str(own), "training.vgg19_path", "=", "vgg.mat", "training.warmup = 7"]
    flags = make_flags(read_config([*arguments, "training.dynamic_input_view_num=true"]))
    data, optimization = flags.data, flags.optimization
    assert (data.lists, data.captures) == (str(tmp_path / "list.txt"), "")
    assert (data.views, data.targets, data.target_has_input) == (8, 6, True)
    assert (data.inputs_least, data.inputs_most, data.least, data.most) == (2, 4, 25, 192)
    assert (optimization.tlr, optimization.warmup, optimization.sche) == (2e-4, 7, "constant")
    assert (optimization.tclip, optimization.tskip, optimization.fp16) == (5, 10, 2)
    assert (flags.losses.features, str(flags.losses.vgg19)) == ("vgg19", "vgg.mat")
    assert flags.losses.perceptual == 0.5
    model = flags.model
    assert (model.depth, model.width, model.head_dim, model.patch) == (12, 768, 64, 8)
    assert (flags.run.exp_name, str(flags.run.results)) == ("efficient_lvsm", "results")


def test_a_teacher_needs_its_folder(tmp_path):
    base = (f"training.dataset_path={tmp_path}", "training.losses.perceptual_loss_weight=0")
    base += ("training.enable_repa=true", "model.image_tokenizer.type=dinov3")
    with pytest.raises(ValueError, match="enable_repa needs"):
        make_flags(read_settings(*base))
    own = make_flags(read_settings(*base, "model.image_tokenizer.model_path=dino")).alignment
    assert (own.repa, str(own.teacher), own.repa_weight, own.repa_kind) == (
        *("8-2", "dino", 0.5, "sl1"),
    )
    assert own.projector_dim == 2048


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("training.lrr=3",), "no setting training.lrr; did you mean training.lr"),
        (("training.lr=fast",), "training.lr=fast must be a number"),
        (("training.use_amp=1",), "training.use_amp=1 must be true or false"),
        (("training.num_input_views=true",), "must be a whole number"),
        (("training.scheduler_type=exp",), "only constant or cosine or linear"),
        (("model.transformer.use_qk_norm=false",), "cannot be had here, only true"),
        (("training.lr",), "'training.lr' is no setting"),
        (("training.lr=[1",), "cannot be read as YAML"),
    ],
)
def test_wrong_settings_are_one_sentence(overrides, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        read_settings(*overrides)


def test_what_is_without_effect_is_told(caplog):
    config = read_settings("training.view_min=2", "demo.anything=5", "training.backup_code=true")
    assert config["training.view_min"] == 2
    (line,) = [r.getMessage() for r in caplog.records]
    assert line == "without effect here: demo.anything, training.backup_code, training.view_min"


def test_wrong_inputs_are_one_sentence(tmp_path, capture, run_script):
    run = tmp_path
    (tmp_path / "none.yaml").write_text("- 1\n")
    (tmp_path / "far.json").write_text('{"one": {"context": [0, 90], "target": [3]}}')
    (tmp_path / "other.json").write_text('{"four": {"context": [0, 9], "target": [3]}}')
    (tmp_path / "cut").mkdir()
    whole = (capture / "000000.torch").read_bytes()
    (tmp_path / "cut" / "000000.torch").write_bytes(whole[: len(whole) // 2])
    weights = tmp_path / "tiny.pt"
    from models.efficient_lvsm import EfficientLVSM, tiny
    from models.efficient_lvsm.adapter import LAYOUT

    torch.save(LAYOUT.export(EfficientLVSM(tiny())), weights)
    paths = ("inference.dataset_path=re10k", "inference.checkpoint_dir=tiny.pt")
    for script, flags, message in (
        ("train.py", (), "give --config FILE.yaml"),
        ("train.py", ("--config", "none.yaml"), "none.yaml holds no settings"),
        (
            "train.py",
            (*CONFIG, "training.dataset_path=none"),
            "training.dataset_path=none does not",
        ),
        ("train.py", (*CONFIG, "training.dataset_path=re10k"), "needs training.vgg19_path=FILE"),
        ("train.py", (*CONFIG, *TRAIN, "training.dataset_path=cut"), "000000.torch is truncated"),
        (
            "train.py",
            (*CONFIG, *TRAIN, "training.dataset_path=re10k", "training.lr=-1"),
            "training.lr=-1",
        ),
        ("inference.py", (*CONFIG, *paths, "inference.max_scenes=0", INDEX), "must be at least 1"),
        (
            "inference.py",
            (*CONFIG, *paths, "inference.view_idx_file_path=far.json"),
            "one has 40 frames; the index (inference.view_idx_file_path) asks for 90",
        ),
        (
            "inference.py",
            (*CONFIG, *paths, "inference.view_idx_file_path=other.json"),
            "none of the 3 scenes is in the index",
        ),
    ):
        code, text = run_script(run, f"{FOLDER}/{script}", *flags)
        assert code == 2 and message in text, text
    assert not (tmp_path / "results" / "efficient_lvsm_evaluation" / "000000").exists()
