# test_tile.py and test_varsr.py: the published commands on small weights, their files, and
# mistakes.
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.gsvar import GSVAR, GSVARConfig, loading

ROOT = Path(__file__).parent.parent
PUBLISHED = [
    (script, bridge, ref, extra)
    for script, extra in (
        ("test_tile.py", ()),
        ("test_tile.py", ("--fuse=1",)),
        ("test_varsr.py", ("--fuse=1",)),
    )
    for bridge in (True, False)
    for ref in (True, False)
]


def picture(path: Path, size=(40, 30), seed=0) -> str:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)).save(path)
    return str(path)


@pytest.fixture
def dataset(tmp_path) -> Path:
    entries = {
        f"scene_underfitting_1000_{i:05d}": {
            "render": picture(tmp_path / f"d/{i}.png", seed=i),
            "gt": picture(tmp_path / f"d/{i}_gt.png", seed=i + 10),
            "ref": picture(tmp_path / f"d/{i}_ref.png", seed=i + 20),
        }
        for i in range(3)
    }
    path = tmp_path / "data_underfitting.json"
    path.write_text(json.dumps({"train": {}, "val": entries}))
    return path


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """results/<exp>/*.pth in the original's layout, with the published names."""
    folder = tmp_path_factory.mktemp("results")
    torch.manual_seed(0)
    config = GSVARConfig(
        depth=2, width=32, heads=2, patch_nums="1_2_3_4", prefix_channels=(8, 8, 16, 16),
        refiner_width=32, refiner_blocks=1, vqvae_width=16, vqvae_multipliers=(1, 1, 2, 2),
        vqvae_blocks=1, vqvae_groups=8, latent_channels=8, vocabulary=64,
    )  # fmt: skip
    model = GSVAR(config)
    model.vqvae.add_bridge()
    with torch.no_grad():  # every part matters, unlike at the start of a training
        for p in model.parameters():
            if p.dim() > 1:
                p.copy_(torch.randn_like(p) / p[0].numel() ** 0.5)
    for name, file in (
        ("VAE_bridge_w_ref", "vae-ckpt-last.pth"),
        ("VAE_bridge_wo_ref", "vae-ckpt-last.pth"),
        ("GS_VARSR_wo_ref", "ar-ckpt-last.pth"),
    ):
        loading.save_original(model, folder / name / file, epoch=5, iteration=70)
    return folder


@pytest.fixture
def call(run_script):
    """call(script, *arguments) -> exit code, and what was said."""
    return partial(run_script, ROOT)


@pytest.mark.parametrize(("script", "bridge", "ref", "extra"), PUBLISHED)
def test_the_published_commands_run(call, dataset, results, tmp_path, script, bridge, ref, extra):
    kind = "w_ref" if ref else "wo_ref"
    file = f"VAE_bridge_{kind}/vae-ckpt-last.pth" if bridge else "GS_VARSR_wo_ref/ar-ckpt-last.pth"
    weights = results / file
    out = tmp_path / "DL3DV-val/underfitting"
    code, said = call(
        *(script, f"--var_test_path={weights}", "--depth=2", "--use_lora=False", *extra),
        *([f"--vae_model_path={weights}"] if bridge else []),
        *(f"--testset_path={out}", f"--json_path={dataset}", "--device=cpu"),
        *(f"--use_ref={ref}", f"--use_bridge={bridge}"),
    )
    assert code == 0, said
    exp = weights.parent.name + ("_org" if script == "test_varsr.py" else "")
    folder = out / "VARPrediction" / exp / "5_70"
    keys = [f"scene_underfitting_1000_{i:05d}" for i in range(3)]
    for key in keys:
        assert Image.open(folder / f"{key}.png").size == (40, 30)
        assert (folder / f"comparison/{key}.png").is_file()
        for kind in ("renders", "gt", *(["ref"] if ref else [])):
            assert (out / kind / f"{key}.png").is_file()
    assert (folder / "report/index.html").is_file()
    text = (folder / "metrics.txt").read_text()
    assert text.startswith("eval_img_num: 3\nPSNR: ")
    assert "FID: n/a" in text
    result = json.loads((folder / "metrics.json").read_text())
    assert set(result["per_image"]) == set(keys)
    paths = (out / f"gt/{keys[0]}.png", folder / f"{keys[0]}.png", out / f"renders/{keys[0]}.png")
    truth, fixed, render = (np.asarray(Image.open(path)) / 255 for path in paths)
    row = result["per_image"][keys[0]]
    for name, image in (("psnr", fixed), ("render_psnr", render)):
        expected = -10 * np.log10(np.mean((image - truth) ** 2))
        assert row[name] == pytest.approx(expected, abs=1e-4)


def test_shards_predict_their_own_and_the_last_measures_all(call, dataset, tmp_path):
    flags = ("--fixer=identity", f"--json_path={dataset}", f"--testset_path={tmp_path / 't'}")
    folder = tmp_path / "t/VARPrediction/identity/0_0"
    code, said = call("test_tile.py", *flags, "--shard=2/2")
    assert code == 0
    assert "2 predictions of other shards are missing" in said
    assert len(list(folder.glob("*.png"))) == 1
    assert not (folder / "metrics.json").exists()
    assert call("test_tile.py", *flags, "--shard=1/2")[0] == 0
    assert len(json.loads((folder / "metrics.json").read_text())["per_image"]) == 3
    code, said = call("test_tile.py", *flags, "--shard=3/2")
    assert code == 2
    assert "--shard 3/2 must be i/n" in said


def test_one_test_at_a_time_writes_to_a_folder(call, dataset, tmp_path, run_elsewhere):
    folder = tmp_path / "VARPrediction" / "identity" / "0_0"
    flags = (f"--json_path={dataset}", f"--testset_path={tmp_path}", "--fixer=identity")
    with run_elsewhere(folder) as process:
        for more in ((), ("--gen_img=False",)):
            code, said = call("test_tile.py", *flags, *more)
            assert code == 2
            assert f"{folder} is in use by another run (process {process.pid} on " in said
        assert call("test_tile.py", *flags, "--shard=1/1")[0] == 0  # shards share it


def test_metrics_alone_and_resuming(call, dataset, tmp_path):
    flags = ("--fixer=identity", f"--json_path={dataset}", f"--testset_path={tmp_path / 't'}")
    folder = tmp_path / "t/VARPrediction/identity/0_0"
    code, said = call("test_tile.py", *flags, "--gen_img=False")
    assert code == 2
    assert "no such prediction (3 are missing)" in said
    assert call("test_tile.py", *flags, "--eval_img_num=2")[0] == 0
    assert len(list(folder.glob("*.png"))) == 2
    first = sorted(folder.glob("*.png"))[0]
    Image.new("RGB", (40, 30)).save(first)
    assert call("test_tile.py", *flags, "--resume=True", "--metric_space=y")[0] == 0
    assert len(list(folder.glob("*.png"))) == 3
    assert np.asarray(Image.open(first)).max() == 0  # kept
    result = json.loads((folder / "metrics.json").read_text())
    assert result["metric_space"] == "y"
    others = [row["gain_psnr"] for key, row in result["per_image"].items() if key != first.stem]
    assert others == [0, 0]  # identity gains nothing


def test_mistakes_are_one_sentence_and_write_nothing(call, dataset, results, tmp_path):
    out = tmp_path / "out"
    vae = results / "VAE_bridge_w_ref/vae-ckpt-last.pth"
    ar = results / "GS_VARSR_wo_ref/ar-ckpt-last.pth"
    content = json.loads(dataset.read_text())
    keys = list(content["val"])
    damaged = str(tmp_path / "damaged.png")
    Path(damaged).write_bytes(b"no photo")

    def variant(change) -> Path:
        changed = json.loads(dataset.read_text())
        change(changed["val"])
        path = tmp_path / "variant.json"
        path.write_text(json.dumps(changed))
        return path

    cases = [
        ([f"--var_test_path={vae}", "--depth=24"], dataset, "has depth 2, not --depth=24"),
        ([f"--var_test_path={ar}", "--use_bridge=True"], dataset, "stage-2 file"),
        ([f"--var_test_path={tmp_path / 'no.pth'}"], dataset, "no.pth: no such checkpoint"),
        (["--fixer=identity"], tmp_path / "none.json", "none.json"),
        (["--fixer=identity", "--eval_img_num=0"], dataset, "--eval_img_num"),
        (["--fixer=identity", "--batch_size=0"], dataset, "--batch_size"),
        (
            ["--fixer=identity"],
            lambda e: e[keys[1]].update(render=picture(tmp_path / "big.png", (50, 30))),
            "is 50x30",
        ),
        (
            [f"--var_test_path={ar}"],
            lambda e: e[keys[1]].pop("ref"),
            f"1 of 3 entries have no reference (ref_image or ref), first {keys[1]!r}",
        ),
        (
            [f"--var_test_path={ar}"],
            lambda e: [v.pop("ref") for v in e.values()],
            "--use_ref=False",
        ),
        (
            ["--fixer=identity"],
            lambda e: e[keys[2]].update(
                {k: picture(tmp_path / "1.png", (1, 1)) for k in e[keys[2]]}
            ),
            "1x1 pixels; measuring needs at least 11",
        ),
        (
            ["--fixer=identity"],
            lambda e: e[keys[2]].update(ref=damaged),
            f"{keys[2]}: {damaged} is not a photo",
        ),
        (["--fixer=identity", "--device=tpu9"], dataset, "--device tpu9"),
        (["--fixer=identity", "--use_reff=1"], dataset, "did you mean --use_ref?"),
        (["--fixer=identity"], lambda e: e[keys[0]].pop("gt"), "no target_image or gt"),
    ]
    for arguments, source, why in cases:
        path = variant(source) if callable(source) else source
        places = (f"--json_path={path}", f"--testset_path={out}")
        code, said = call("test_tile.py", *arguments, *places)
        assert code == 2, (arguments, said)
        assert why in said, (why, said)
        assert "Traceback" not in said
        assert not out.exists()


def test_a_reference_of_another_size_is_resized_and_said(call, dataset, tmp_path, caplog):
    content = json.loads(dataset.read_text())
    key = next(iter(content["val"]))
    content["val"][key]["ref"] = picture(tmp_path / "ref.png", (80, 66))
    dataset.write_text(json.dumps(content))
    places = (f"--json_path={dataset}", f"--testset_path={tmp_path}")
    code, said = call("test_tile.py", "--fixer=identity", *places)
    assert code == 0, said
    notice = f"1 references of 3 entries are resized, first that of {key} from 80x66 to 40x30"
    assert caplog.text.count(notice) == 1


def test_metrics_alone_need_no_weights_when_epoch_and_iter_are_given(
    call, dataset, results, tmp_path
):
    weights = results / "VAE_bridge_w_ref/vae-ckpt-last.pth"
    flags = (f"--json_path={dataset}", f"--testset_path={tmp_path / 'x'}", "--device=cpu")
    assert call("test_tile.py", f"--var_test_path={weights}", *flags)[0] == 0
    folder = tmp_path / "x/VARPrediction/VAE_bridge_w_ref/5_70"
    first = json.loads((folder / "metrics.json").read_text())
    gone = tmp_path / "VAE_bridge_w_ref/vae-ckpt-gone.pth"
    again = ("--gen_img=False", "--epoch=5", "--iter=70")
    code, said = call("test_tile.py", f"--var_test_path={gone}", *flags, *again)
    assert code == 0, said
    second = json.loads((folder / "metrics.json").read_text())
    assert second["mean"]["psnr"] == first["mean"]["psnr"]
    assert second["per_image"].keys() == first["per_image"].keys()


def test_mode_and_mixing_blocks_are_heeded(call, dataset, results, tmp_path):
    weights = results / "VAE_bridge_w_ref/vae-ckpt-last.pth"
    flags = (f"--json_path={dataset}", f"--var_test_path={weights}", "--device=cpu", "--limit=1")
    pictures = {}
    for name, more in (
        ("tile", ()),
        ("all", ("--fusion_block_idx", "0", "1", "2", "23")),
        ("one", ("--fusion_block_idx", "0")),
        ("resize", ("--mode=resize",)),
    ):
        code, said = call("test_tile.py", *flags, f"--testset_path={tmp_path / name}", *more)
        assert code == 0, said
        (path,) = (tmp_path / name / "VARPrediction/VAE_bridge_w_ref/5_70").glob("*.png")
        pictures[name] = np.asarray(Image.open(path))
    np.testing.assert_array_equal(pictures["all"], pictures["tile"])
    assert (pictures["one"] != pictures["tile"]).any()
    assert (pictures["resize"] != pictures["tile"]).any()
    code, said = call("test_tile.py", *flags, "--fusion_block_idx", "7")
    assert code == 2
    assert "none of the blocks [7] lies in 0..1" in said


def test_baselines_do_without_references_and_the_sheet_too(call, dataset, tmp_path):
    content = json.loads(dataset.read_text())
    for entry in list(content["val"].values())[1:]:
        entry.pop("ref")
    dataset.write_text(json.dumps(content))
    flags = (f"--json_path={dataset}", f"--testset_path={tmp_path / 'y'}")
    code, said = call("test_varsr.py", "--fixer=classical", *flags)
    assert code == 0, said
    assert len(list((tmp_path / "y/ref").glob("*.png"))) == 1
    sheets = (tmp_path / "y/VARPrediction/classical_org/0_0/comparison").glob("*.png")
    widths = [Image.open(path).width for path in sorted(sheets)]
    assert widths[0] > widths[1] == widths[2]


def test_kept_predictions_must_be_made_alike(call, dataset, results, tmp_path):
    weights = results / "VAE_bridge_w_ref/vae-ckpt-last.pth"
    flags = (
        *("test_tile.py", f"--var_test_path={weights}", f"--json_path={dataset}", "--device=cpu"),
        f"--testset_path={tmp_path / 'out'}",
    )
    code, said = call(*flags, "--use_bridge=True", "--limit=1")
    assert code == 0, said
    code, said = call(*flags, "--use_bridge=True", "--resume=True")
    assert code == 0, said
    code, said = call(*flags, "--use_bridge=False", "--resume=True")
    assert code == 2
    assert "were made with --use_bridge=True, not False" in said
    code, said = call(*flags, "--use_bridge=False")
    assert code == 0, said


def test_several_or_warped_references_are_what_the_fixer_gets(call, dataset, results, tmp_path):
    content = json.loads(dataset.read_text())
    for i, entry in enumerate(content["val"].values()):
        entry["references"] = [
            {"image": entry["ref"], "warped": picture(tmp_path / f"d/{i}_w.png", seed=i + 30)},
            {"image": entry["gt"], "warped": picture(tmp_path / f"d/{i}_x.png", seed=i + 40)},
        ]
    dataset.write_text(json.dumps(content))
    weights = results / "GS_VARSR_wo_ref/ar-ckpt-last.pth"
    predictions = {}
    for name, flags in (
        ("one", []),
        ("two", ["--num_refs=2"]),
        ("warped", ["--use_warped=True"]),
    ):
        out = tmp_path / name
        code, said = call(
            *("test_tile.py", f"--var_test_path={weights}", f"--json_path={dataset}", "--limit=1"),
            *(f"--testset_path={out}", "--device=cpu", *flags),
        )
        assert code == 0, said
        predictions[name] = next(out.glob("VARPrediction/*/*/*.png")).read_bytes()
        shown = next((out / "ref").glob("*.png"))
        expected = "d/0_w.png" if name == "warped" else "d/0_ref.png"
        ours, theirs = (np.asarray(Image.open(f)) for f in (shown, tmp_path / expected))
        assert (ours == theirs).all()
    assert len(set(predictions.values())) == 3
