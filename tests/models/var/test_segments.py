# Who sees whom: the masks and the decoding order that follow from the segments.
import pytest
import torch

from models.var.scales import ScaleSchedule
from models.var.segments import views_by_scale


def test_the_symmetric_mask_is_by_scale_across_views():
    mask = views_by_scale((2, 3), views=2).dense_mask()
    scale = torch.tensor([0, 0, 1, 1, 1] * 2)
    assert torch.equal(mask, scale[:, None] >= scale)


def test_references_that_attend_to_themselves_see_no_other_view():
    mask = views_by_scale((1, 2), views=3, ref_attends="self").dense_mask()
    view, scale = torch.tensor([0] * 3 + [1] * 3 + [2] * 3), torch.tensor([0, 1, 1] * 3)
    allowed = (view[:, None] == 0) | (view[:, None] == view)
    assert torch.equal(mask, allowed & (scale[:, None] >= scale))


def test_views_kept_apart():
    mask = views_by_scale((1, 1), views=2, mixing=False).dense_mask()
    assert torch.equal(mask, torch.block_diag(*[torch.ones(2, 2).tril()] * 2).bool())


@pytest.mark.parametrize("attends", ["all", "self"])
def test_steps_see_only_themselves_and_the_past(attends):
    sequence = views_by_scale((3, 1, 2), views=3, ref_attends=attends)
    done: set[int] = set()
    for step in sequence.steps:
        done |= set(step)
        for i in step:
            assert {j for j, seen in enumerate(sequence.sees[i]) if seen} <= done
    assert done == set(range(9))


def test_symmetric_views_are_decoded_scale_by_scale():
    sequence = views_by_scale((3, 1), views=2)
    assert [{sequence.segments[i].scale for i in step} for step in sequence.steps] == [{0}, {1}]


def test_lonely_references_come_one_segment_at_a_time():
    sequence = views_by_scale((3, 1), views=2, ref_attends="self")
    assert all(len(step) == 1 for step in sequence.steps)


@pytest.mark.parametrize("attends", ["all", "self"])
def test_a_cache_holds_just_what_each_step_sees(attends):
    sequence = views_by_scale((3, 1, 2), views=3, ref_attends=attends)
    known = range(3, 9) if attends == "self" else ()  # the references' segments
    cached: set[int] = set()
    for scale, step in enumerate(sequence.plan_decoding(known)):
        cached |= {*step.computed, *step.recalled}
        for i in step.computed:
            assert {j for j, seen in enumerate(sequence.sees[i]) if seen} == cached
        scales = [sequence.segments[i].scale for i in (*step.computed, *step.recalled)]
        assert scales == [scale] * 3
    assert cached == set(range(9))


def test_a_sequence_that_needs_a_mask_has_no_such_plan():
    with pytest.raises(ValueError, match="do not see all"):
        views_by_scale((3, 1), views=2, ref_attends="self").plan_decoding()


def test_schedules_read_write_and_refuse():
    assert ScaleSchedule.of("1_2_2x3_4x6").grids == ((1, 1), (2, 2), (2, 3), (4, 6))
    assert ScaleSchedule.of([1, 2, [2, 3]]).text == "1_2_2x3"
    for wrong, why in (("2_3", "begin with 1"), ("1_3_2", "grow"), ("1_a", "list such as")):
        with pytest.raises(ValueError, match=why):
            ScaleSchedule.of(wrong)


def test_a_schedule_stretches_to_another_shape():
    wide = ScaleSchedule.of("1_2_3_4_6_9_13_18_24_32").fitted(18, 32)
    assert wide.latent == (18, 32)
    assert len(wide) == 10
    assert ScaleSchedule.of("1_2_4_8").fitted(7, 12).grids == ((1, 1), (2, 3), (4, 6), (7, 12))
    with pytest.raises(ValueError, match="too small"):
        ScaleSchedule.of("1_2_3_4_6_9_13_18_24_32").fitted(3, 3)
