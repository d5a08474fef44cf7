# Fix and distil: a fixer that knows the truth helps, one that lies is found out, a run goes on.
import itertools
import json
import math
import os
import signal
from dataclasses import replace
from functools import partial

import pytest
import torch
from gsplat.strategy import DefaultStrategy

import fixers
from fixers.fixer import Needs
from generators import Generated, RenderThenFix
from generators.confidence import find_contradictions
from generators.efficient_lvsm import EfficientLVSMViews
from generators.guides import render_one
from models.efficient_lvsm import EfficientLVSM, tiny
from reconstruction import Config, EvaluationConfig, FixConfig, optimise
from reconstruction.rendering import compute_support, render_view
from reconstruction.rounds.gate import choose_aside, decide
from reconstruction.rounds.record import TRIALS, Round, Trial, Verdict
from reconstruction.trainer import Trainer
from runtime import memory
from scenes.cameras import Cameras
from scenes.nearest import measure_pose_distances
from scenes.scene import Split
from splats.gaussians import from_points
from splats.rasterize import rasterize


class Answers:
    """A fixer that answers by a function of the renders, and counts its calls."""

    needs = Needs(references=True, warped=True)

    def __init__(self, answer):
        self.answer, self.calls = answer, 0

    def fix(self, renders, references=None, *, confidence=None, alphas=None):
        self.calls += 1
        return self.answer(renders)


def render_then_fix(fixer, fixing) -> RenderThenFix:
    """As the trainer makes it of the rounds' settings."""
    return RenderThenFix(
        fixer,
        references=fixing.references,
        select_by=fixing.reference_by,
        confident=fixing.confident,
        settings={"fixer": "test"},
    )


@pytest.fixture(scope="module")
def settings() -> Config:
    strategy = DefaultStrategy(refine_start_iter=200)
    return Config(
        max_steps=120, eval_steps=(120,), save_steps=(120,), strategy=strategy, sh_degree=1
    )


FIX = FixConfig(fix_steps=(40, 80), gate_least=4, novel_share=0.5)
SHOWN = EvaluationConfig(save_video=False)


def nearby(camera, count):
    """The camera, moved sideways by 0.1 each time."""
    moved = []
    for i in range(count):
        viewmats = camera.viewmats.clone()
        viewmats[:, 0, 3] += 0.1 * i
        moved.append(Cameras(viewmats, camera.Ks, camera.sizes))
    return moved


def run(scene, settings, folder, fixer, fixing=FIX, **changes):
    optimise(
        scene,
        settings,
        result_dir=folder,
        evaluation=SHOWN,
        generator=None if fixer is None else render_then_fix(fixer, fixing),
        fixing=fixing,
        **changes,
    )
    saved = torch.load(folder / "ckpts" / "ckpt_119_rank0.pt", weights_only=True)
    numbers = json.loads((folder / "stats" / "val_step0119.json").read_text())
    return json.loads(saved["rounds"]), numbers


def test_rounds_with_an_honest_fixer_are_recorded_and_measured(scene, settings, tmp_path):
    all_kept = replace(FIX, gate="off")
    rounds, numbers = run(scene, settings, tmp_path, fixers.load("identity"), all_kept)
    assert [r["step"] for r in rounds] == [40, 80]
    assert [r["verdict"] for r in rounds] == ["kept", "kept"]
    assert all(r["views"] == 2 and r["references"] for r in rounds)
    assert not any(r["potential"] for r in rounds)
    assert {"rendering", "fixing", "references"} <= set(rounds[0]["seconds"])
    assert numbers["post_psnr"] == pytest.approx(numbers["psnr"])
    assert (tmp_path / "renders" / "val" / "119" / "Post" / "0000.png").is_file()


def test_each_round_sets_other_views_aside():
    train = tuple(range(0, 60, 2))
    first, second = (choose_aside(train, FixConfig(), number) for number in (0, 1))
    assert len(first) == len(second) == 3
    assert not set(first) & set(second)
    assert set(first + second) < set(train)
    assert not choose_aside(train[:9], FixConfig(), 0)


def test_a_liar_is_found_out_and_rolled_back(scene, settings, tmp_path):
    settings = replace(settings, eval_steps=(45, 120), save_steps=(45, 120))  # 45: during a trial
    _, plain = run(scene, settings, tmp_path / "plain", None)
    loud = replace(FIX, confident=False, novel_share=0.9, fade=False, beside=False)
    loud = replace(loud, distil="picture")
    liar = Answers(lambda renders: renders.flip(-1))  # red and blue change places
    rounds, gated = run(scene, settings, tmp_path / "gated", liar, replace(loud, gate_least=2))
    assert [r["verdict"] for r in rounds] == ["rolled back"]  # once is enough
    for step in (44, 119):  # bit by bit the run without fixing
        files = (tmp_path / name / "ckpts" / f"ckpt_{step}_rank0.pt" for name in ("plain", "gated"))
        without, gone_back = (torch.load(file, weights_only=True)["splats"] for file in files)
        assert all(torch.equal(value, gone_back[name]) for name, value in without.items())
    _, open_ = run(scene, settings, tmp_path / "open", liar, replace(loud, gate="off"))
    assert open_["psnr"] < plain["psnr"] - 1
    assert gated["psnr"] == plain["psnr"]


@pytest.mark.parametrize(("without", "verdict"), [(20.1, "rolled back"), (20.04, "kept")])
def test_a_round_must_not_lose_more_than_chance(without, verdict):
    record = Round(40, 80, aside=[3], gate_before=19.0)
    for views, psnr in zip(TRIALS, (20.0, without), strict=True):
        if decide(record, FIX) is Verdict.OPEN:
            record.trials.append(Trial(views, psnr))
    assert decide(record, FIX) == verdict


def test_what_one_fixed_view_invents_the_others_contradict(scene, settings):
    """Alike changes of all views pass; a patch in one of them does not."""
    grey = torch.full((len(scene.points), 3), 0.5)
    truth = from_points(scene.points, grey, opacity=0.9)
    cameras = nearby(scene.cameras[0], 3)
    views = [render_one(partial(render_view, truth, config=settings), c) for c in cameras]
    whole = Cameras.concatenate(cameras)
    alike = [view.color * 0.6 for view in views]
    for wrong, seen in find_contradictions(whole, views, alike):
        assert seen.float().mean() > 0.1
        assert wrong.sum() < 0.02 * seen.sum()
    invented = [image.clone() for image in alike]
    invented[1][12:24, 20:36] = torch.tensor([1.0, 0.0, 0.0])
    pairs = find_contradictions(whole, views, invented)
    wrong, seen = pairs[1]
    patch = torch.zeros_like(wrong)
    patch[12:24, 20:36] = True
    assert wrong[patch & seen].float().mean() > 0.9
    assert wrong[~patch].float().mean() < 0.1
    assert sum(w.sum() for w, _ in pairs) > wrong.sum()  # whom it contradicts is in doubt too
    alone = find_contradictions(whole[:1], views[:1], invented[:1])
    assert not any(part.any() for part in alone[0])


def test_a_fixer_of_its_own_mind_in_each_view_is_refused(scene, settings, tmp_path):
    generator = torch.Generator().manual_seed(0)

    def noisy(renders):  # each view with a large pattern of its own
        noise = torch.rand(len(renders), 3, 5, 7, generator=generator)
        size = renders.shape[1:3]
        return torch.nn.functional.interpolate(noise, size, mode="nearest").permute(0, 2, 3, 1)

    few = replace(FIX, gate_least=100, targets="interp", novel_views=2)
    rounds, _ = run(scene, settings, tmp_path, Answers(noisy), few)
    assert all(not r["aside"] for r in rounds)
    assert sum(r["refused"] for r in rounds) > sum(r["views"] for r in rounds)
    assert all(r["consistent"] < 0.7 for r in rounds)


def test_with_few_views_photos_that_did_not_guide_refuse_a_round(scene, settings, tmp_path):
    few = replace(FIX, gate_least=100, targets="perturb", novel_views=6)
    _, plain = run(scene, settings, tmp_path / "plain", None)
    rounds, numbers = run(
        scene,
        settings,
        tmp_path / "few",
        Answers(lambda r: torch.lerp(r, r.roll(3, 2), 0.03)),
        few,
    )
    assert [r["verdict"] for r in rounds] == ["refused"]
    assert all("photos that did not guide it agree worse by" in r["why"] for r in rounds)
    assert numbers["psnr"] == pytest.approx(plain["psnr"], abs=0.3)  # on photos alone
    off = replace(few, gate="off")
    rounds, _ = run(
        scene,
        settings,
        tmp_path / "off",
        Answers(lambda r: torch.lerp(r, r.roll(3, 2), 0.03)),
        off,
    )
    assert [r["verdict"] for r in rounds] == ["kept", "kept"]


def test_a_fixer_leaves_a_gpu_that_is_full_and_comes_back(scene, settings, tmp_path, monkeypatch):
    class Moving(Answers):
        def to(self, device):
            places.append(str(device))

    places, moving = [], Moving(lambda renders: renders)
    run(scene, settings, tmp_path / "a", moving)
    assert set(places) == {"cpu"}
    stayed = len(places)
    monkeypatch.setattr(memory, "is_memory_short", lambda device: True)
    places.clear()
    rounds, _ = run(scene, settings, tmp_path / "b", moving)
    assert len(places) > stayed  # it left after each use
    assert all(r["memory"] > 0 for r in rounds)


def test_nan_from_a_fixer_costs_its_round_only(scene, settings, tmp_path):
    rounds, numbers = run(scene, settings, tmp_path, Answers(lambda r: r * math.nan))
    assert [r["verdict"] for r in rounds] == ["refused", "refused"]
    assert "NaN" in rounds[0]["why"]
    assert math.isfinite(numbers["psnr"])


def test_a_run_stopped_in_a_round_repeats_it(scene, settings, tmp_path):
    sure = replace(FIX, gate="off")
    whole, _ = run(scene, settings, tmp_path / "whole", Answers(lambda r: r * 0.95), sure)
    assert len(whole) == 2

    def once(renders, state={"left": 1}):  # noqa: B006
        if state["left"] == 0:
            raise KeyboardInterrupt
        state["left"] -= 1
        return renders * 0.95

    folder = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        run(scene, settings, folder, Answers(once), sure)
    assert (folder / "resume.pt").is_file()
    again, _ = run(scene, settings, folder, Answers(lambda r: r * 0.95), sure)
    for ours, theirs in zip(again, whole, strict=True):
        assert {**ours, "seconds": 0, "memory": 0} == {**theirs, "seconds": 0, "memory": 0}
    files = [tmp_path / name / "ckpts" / "ckpt_119_rank0.pt" for name in ("whole", "stopped")]
    states = [torch.load(file, weights_only=True)["splats"] for file in files]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_the_truth_helps(scene, settings, tmp_path):
    few = replace(scene, split=Split("json", (1, 4, 7), (0, 2, 3, 5, 6, 8), "few"))
    _, plain = run(few, settings, tmp_path / "plain", None)
    truth = torch.stack([few.image(i) for i in few.split.test])
    knowing = Answers(lambda renders: truth[: len(renders)])
    sure = replace(FIX, fix_steps=(40,), confident=False, gate="off", fade=False)
    _, distilled = run(few, settings, tmp_path / "fixed", knowing, sure)
    assert distilled["psnr"] > plain["psnr"] + 0.3


def test_the_control_is_the_run_without_and_both_share_their_first_steps(
    scene, settings, tmp_path, caplog
):
    honest = fixers.load("identity")
    caplog.set_level("INFO")
    settings = replace(settings, eval_steps=(60, 120))
    run(scene, settings, tmp_path / "both", honest, control=True)
    _, plain = run(scene, settings, tmp_path / "plain", None)
    stats = tmp_path / "both" / "vanilla" / "stats" / "val_step0119.json"
    assert json.loads(stats.read_text())["psnr"] == plain["psnr"]
    tables = [message.splitlines() for message in caplog.messages if message.startswith("way")]
    words = ["way", "vanilla", "distilled", "renders fixed"]
    for table, lines in zip(tables, (3, 4), strict=True):  # at steps 60 and 120
        assert [line.split("  ")[0] for line in table] == words[:lines]
        assert all(" +0.00 " in line for line in table[1:])
    run(scene, settings, tmp_path / "alone", honest)
    states = [
        torch.load(tmp_path / name / "ckpts" / "ckpt_119_rank0.pt", weights_only=True)["splats"]
        for name in ("both", "alone")
    ]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    headings = (
        "Best and worst view, by gain in PSNR",
        "vanilla",
        "Rounds",
        "Gain of each view",
        "confidence",
    )
    _, before = run(scene, settings, tmp_path / "both", honest, control=True)  # finished already
    page = (tmp_path / "both" / "report" / "index.html").read_text()
    assert all(words in page for words in headings)
    assert page.index("ground truth beside") < page.index("worth it") < page.index(">Rounds<")
    assert before["post_psnr"] == before["psnr"]
    assert not list((tmp_path / "both").rglob("rounds/*.pt"))


def test_support_is_high_where_photos_agree_and_nothing_where_none_looks(scene, settings):
    colors = (scene.points > 0).float()  # each far from grey
    splats = from_points(scene.points, colors, opacity=0.9, scale=0.7, sh_degree=0)
    with torch.no_grad():
        seen = rasterize(splats, scene.cameras).colors.clamp(0, 1)
    agreeing = replace(scene, images=tuple((x * 255).byte().numpy() for x in seen))
    opposite = replace(scene, images=tuple(255 - image for image in agreeing.images))
    sure, unsure = (compute_support(splats, s, settings) for s in (agreeing, opposite))
    assert sure.shape == (splats.count,) and sure.min() >= 0 and sure.max() <= 1
    assert sure.max() > 0.7  # most lie hidden in the heap
    assert unsure.max() < 0.1
    splats["means"].data[:10] += 1e4
    assert compute_support(splats, agreeing, settings)[:10].max() == 0


class NearestPhotos:
    """A generator that knows only photos and cameras: the two nearest photos, blended."""

    title = "nearest photos"
    uses_references = True
    starts_from_renders = False

    def __init__(self, fails_at: int | None = None):
        self.settings, self.calls, self.fails_at = {"generator": "nearest photos"}, 0, fails_at

    def generate(self, references, cameras, *, render=None):
        self.calls += 1
        if self.calls == self.fails_at:
            raise KeyboardInterrupt
        nearest = measure_pose_distances(cameras, references.cameras).argsort(1)[:, :2].tolist()
        return [
            Generated(
                (references.images[i] + references.images[j]) / 2,
                torch.full(references.images[i].shape[:2], 0.2),
                references=(references.names[i], references.names[j]),
            )
            for i, j in nearest
        ]


def generate(scene, settings, folder, generator):
    fixing = replace(FIX, gate="quick")
    optimise(
        scene, settings, result_dir=folder, evaluation=SHOWN, generator=generator, fixing=fixing
    )
    return torch.load(folder / "ckpts" / "ckpt_119_rank0.pt", weights_only=True)


def test_a_generator_without_renders_has_rounds_a_report_and_a_resume(scene, settings, tmp_path):
    whole = generate(scene, settings, tmp_path / "whole", NearestPhotos())
    rounds = json.loads(whole["rounds"])
    assert [r["step"] for r in rounds] == [40, 80]
    assert all(r["verdict"] == "kept" for r in rounds)
    assert all(r["gate_after"] and r["agrees"] is None for r in rounds)
    for r in rounds:
        assert len(r["references"]) > 1
        assert not {scene.names[i] for i in r["aside"]} & set(r["references"])
    novel = tmp_path / "whole" / "renders" / "novel" / "39"
    assert {file.name for file in novel.iterdir()} == {"Pred", "Alpha", "Fixed", "Confidence"}
    stats = json.loads((tmp_path / "whole" / "stats" / "val_step0119.json").read_text())
    assert stats["post_psnr"] > 5
    assert "Rounds" in (tmp_path / "whole" / "report" / "index.html").read_text()
    with pytest.raises(KeyboardInterrupt):
        generate(scene, settings, tmp_path / "stopped", NearestPhotos(fails_at=2))
    again = generate(scene, settings, tmp_path / "stopped", NearestPhotos())
    for name, value in whole["splats"].items():
        assert torch.equal(value, again["splats"][name]), name


def test_a_stopped_run_with_views_of_efficient_lvsm_goes_on(scene, settings, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = EfficientLVSM(tiny()).eval().requires_grad_(False)
    ungated = replace(FIX, gate="off", novel_views=2, post="never")
    short = replace(settings, max_steps=100)

    def run_to_end(folder):
        views = EfficientLVSMViews(model, views=3)
        optimise(scene, short, result_dir=folder, evaluation=SHOWN, generator=views, fixing=ungated)
        return torch.load(folder / "ckpts" / "ckpt_99_rank0.pt", weights_only=True)["splats"]

    def stop(*_):
        raise KeyboardInterrupt

    whole = run_to_end(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        steps = itertools.count()
        step = Trainer.step
        patch.setattr(Trainer, "step", lambda *a: stop() if next(steps) == 60 else step(*a))
        run_to_end(tmp_path / "stopped")
    assert (tmp_path / "stopped" / "resume.pt").exists()
    again = run_to_end(tmp_path / "stopped")
    for name, value in whole.items():
        assert torch.equal(value, again[name]), name


@pytest.mark.parametrize("stop", [44, 63, 75])
def test_a_run_stopped_in_a_trial_goes_on_bit_for_bit(scene, settings, tmp_path, monkeypatch, stop):
    """In the first trial, in the second, and after them."""
    patient = replace(FIX, fix_steps=(40,), gate_stretch=0.2)  # trials of 16 steps
    fixer = Answers(lambda renders: renders * 0.95)
    whole, _ = run(scene, settings, tmp_path / "whole", fixer, patient)
    steps = itertools.count(1)
    original = Trainer.step

    def step(trainer, *arguments):
        if next(steps) == stop:
            os.kill(os.getpid(), signal.SIGINT)
        return original(trainer, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        with pytest.raises(KeyboardInterrupt):
            run(scene, settings, tmp_path / "stopped", fixer, patient)
    again, _ = run(scene, settings, tmp_path / "stopped", fixer, patient)
    for ours, theirs in zip(again, whole, strict=True):
        assert {**ours, "seconds": 0, "memory": 0} == {**theirs, "seconds": 0, "memory": 0}
    files = [tmp_path / name / "ckpts" / "ckpt_119_rank0.pt" for name in ("whole", "stopped")]
    states = [torch.load(file, weights_only=True)["splats"] for file in files]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
