# How a round is judged: by training views that were set aside, and by photos that did not guide it.
from __future__ import annotations

from collections.abc import Sequence

from generators import Generated
from reconstruction.rounds.record import FIXED, PHOTOS, Round, Verdict
from reconstruction.rounds.settings import FixConfig

CLEARLY_BETTER = 1.002  # agreement with photos: less than 0.2 % better says nothing for a round
MOST_LOSS = 0.05  # dB on the views set aside, to photos alone: less may be chance
LEAST_CONSISTENCY = 0.5  # share of a generated view that another one must not contradict
CONTRADICTED = 0.98  # agreement of the fixed final renders with photos, below which they are worse
MOST_WORSE = 1.02  # how much farther from a photo that did not guide it a view may be than a render


def choose_aside(train: Sequence[int], settings: FixConfig, number: int) -> list[int]:
    """Indices of the views that round `number` does without: spread over the capture, others in
    each round; none where there are few."""
    if settings.gate == "off" or len(train) < settings.gate_least:
        return []
    count = max(2, round(len(train) * settings.gate_share))
    gap = len(train) / count
    return sorted({train[int((i + 0.5) * gap + number) % len(train)] for i in range(count)})


def is_trustworthy(view: Generated, *, unproven: bool = True) -> bool:
    """Whether neither the photo that checks a view nor its neighbour contradicts it; `unproven`:
    also if no photo could check it."""
    if view.agreement is None and not unproven:
        return False
    if view.agreement is not None and view.agreement * MOST_WORSE < 1:
        return False
    return view.consistency is None or view.consistency >= LEAST_CONSISTENCY


def refuse(record: Round, settings: FixConfig) -> str:
    """Why nothing of a round is to be trained on; empty if it is to be."""
    if not record.views:
        return "photos, or each other, contradict all views, or no photo could check them"
    unproven = record.agreement is not None and record.agreement < CLEARLY_BETTER
    if unproven and settings.gate != "off":
        return f"photos that did not guide it {describe_agreement(record.agreement)}"
    return ""


def is_hopeless(record: Round) -> bool:
    """Whether a round tells that further ones are not worth their time: it was not kept, for
    another reason than that its views were not finite."""
    tried = record.views or record.refused
    return bool(tried) and record.verdict in (Verdict.REFUSED, Verdict.ROLLED_BACK)


def decide(record: Round, settings: FixConfig) -> Verdict:
    """The verdict of the trials so far; OPEN where it takes another one."""
    fixed, photos = record.psnr_after(FIXED), record.psnr_after(PHOTOS)
    if fixed is None:
        return Verdict.OPEN
    if settings.gate == "quick" and fixed >= record.gate_before:
        return Verdict.KEPT
    if photos is None:
        return Verdict.OPEN
    return Verdict.KEPT if fixed >= photos - MOST_LOSS else Verdict.ROLLED_BACK


def explain(record: Round, settings: FixConfig) -> str:
    """What spoke for a verdict, for the report."""
    if record.trials:
        texts = {
            FIXED: f"the views set aside: {record.gate_before:.2f} -> {{:.3f}} dB",
            PHOTOS: "without the round {:.3f}",
        }
        return ", ".join(texts[trial.views].format(trial.psnr) for trial in record.trials)
    if settings.gate == "off":
        return "the gate is off"
    few = f"fewer than {settings.gate_least} views train, so none was set aside"
    if record.agreement is None:
        return f"{few}, and no photo could check it"
    return f"{few}; photos that did not guide it {describe_agreement(record.agreement)}"


def judge_post(agreement: float | None) -> str:
    """Whether fixing the final renders is worth it, by photos that did not guide that; an estimate
    that needs no ground truth. Where fixing fills holes, photos can tell nothing."""
    if agreement is None:
        return "not known: no photo sees enough of them"
    verdict = "no" if agreement < CONTRADICTED else "probably"
    return f"{verdict}: photos that did not guide it {describe_agreement(agreement)}"


def describe_agreement(ratio: float) -> str:
    """In words: a mean error to photos before fixing over that after."""
    return f"agree {'better' if ratio > 1 else 'worse'} by {100 * abs(ratio - 1):.2f} %"
