# Validation: the means it says, the same as by hand, and pictures that cannot be read.
import logging
from dataclasses import replace

import pytest
import torch

from evaluation.metrics import Metrics
from training.validation import TripletValidation, predict_by_fixing
from triplets import manifest
from triplets.pictures import read_image


@pytest.fixture(scope="module")
def metrics():
    return Metrics(None, torch.device("cpu"))


def halfway(shown):
    return (shown.render + shown.truth) / 2


def test_the_means_are_those_of_the_pictures(triplets, metrics):
    held = manifest.read(triplets, ("val",))
    values, pictures = TripletValidation(held, metrics, references=2).measure(halfway)
    rows = []
    for one in held:
        render, truth = read_image(one.render), read_image(one.truth)
        rows.append((metrics((render + truth) / 2, truth), metrics(render, truth)))
    for name in ("psnr", "ssim"):
        for prefix, which in (("", 0), ("render_", 1)):
            mean = sum(row[which][name] for row in rows) / len(rows)
            assert values[f"{prefix}{name}"] == pytest.approx(mean, rel=1e-5)
    assert values["psnr"] > values["render_psnr"] + 5
    # render, answer, truth and a reference side by side
    assert {k: tuple(p.shape) for k, p in pictures.items()} == {
        one.key: (64, 4 * 64, 3) for one in held
    }


def test_windows_are_the_middles(triplets, metrics):
    (one, _) = manifest.read(triplets, ("val",))
    validation = TripletValidation([one], metrics, references=1, window=(32, 16))
    shown = validation.read(one)
    assert torch.equal(shown.render, read_image(one.render)[16:48, 24:40])
    assert torch.equal(shown.truth, read_image(one.truth)[16:48, 24:40])
    assert torch.equal(shown.references[0], read_image(one.reference)[16:48, 24:40])
    assert shown.alpha is None


def test_alpha_reaches_the_fixer(triplets, metrics):
    (one, _) = manifest.read(triplets, ("val",))
    one = replace(one, alpha=one.truth)
    given = []

    class Recorder:
        def fix(self, renders, references=None, *, confidence=None, alphas=None):
            given.append(alphas)
            return renders

    TripletValidation([one], metrics).measure(predict_by_fixing(Recorder().fix))
    TripletValidation([one], metrics, alpha=True).measure(predict_by_fixing(Recorder().fix))
    TripletValidation([replace(one, alpha=None)], metrics, alpha=True).measure(
        predict_by_fixing(Recorder().fix)
    )
    assert [a is None for a in given] == [True, False, True]
    assert torch.equal(given[1], read_image(one.truth)[None, ..., 0])
    shown = TripletValidation([one], metrics, alpha=True, window=(32, 16)).read(one)
    assert torch.equal(shown.alpha, read_image(one.truth)[16:48, 24:40, 0])


def broken(one, folder):
    """The entry with a truth whose header is whole and whose pixels are not."""
    file = folder / "cut.png"
    data = one.truth.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    return replace(one, truth=file), file


def test_a_picture_that_cannot_be_read_is_named_or_left_out(triplets, metrics, tmp_path, caplog):
    held = manifest.read(triplets, ("val",))
    bad, file = broken(held[0], tmp_path)
    with pytest.raises(ValueError, match=f"^{bad.key}: {file}"):
        TripletValidation([bad, held[1]], metrics).measure(halfway)
    with caplog.at_level(logging.WARNING):
        values, _ = TripletValidation([bad, held[1]], metrics, skip_bad=True).measure(halfway)
    assert f"left out {bad.key}: {file}" in caplog.text
    assert values == TripletValidation([held[1]], metrics).measure(halfway)[0]
    with pytest.raises(ValueError, match="no entry is left"):
        TripletValidation([bad], metrics, skip_bad=True).measure(halfway)
