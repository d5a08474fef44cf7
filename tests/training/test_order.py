# Which samples make a step, and what is drawn for them: however the step is divided.
import pytest
import torch

from training.draws import Draws
from training.order import MicroBatches, Order, Place


def flat(micro_batches):
    return [sample for micro in micro_batches for sample in micro]


@pytest.mark.parametrize(("count", "batch"), [(10, 3), (12, 4), (7, 7), (100, 8)])
def test_an_epoch_has_every_sample_at_most_once(count, batch):
    order = Order(count, batch, seed=5)
    assert order.steps == count // batch
    for epoch in range(3):
        steps = range(epoch * order.steps, (epoch + 1) * order.steps)
        taken = [index for n in steps for index, _ in flat(order.step(order.place(n)))]
        assert len(taken) == count // batch * batch
        assert len(set(taken)) == len(taken)
        assert set(taken) <= set(range(count))


@pytest.mark.parametrize(
    ("batch", "world", "accumulate"), [(6, 1, 2), (3, 4, 1), (1, 3, 4), (2, 2, 3), (12, 1, 1)]
)
def test_a_step_does_not_depend_on_how_it_is_divided(batch, world, accumulate):
    whole = Order(50, 12, seed=9)
    for number in (0, 1, 3, 4, 11):
        (expected,) = whole.step(whole.place(number))
        by_rank = [
            Order(50, batch, world, rank, accumulate, seed=9).step(whole.place(number))
            for rank in range(world)
        ]
        assert all(len(micro) == batch for micros in by_rank for micro in micros)
        assert all(len(micros) == accumulate for micros in by_rank)
        together = [by_rank[r][m] for m in range(accumulate) for r in range(world)]
        assert flat(together) == expected


def test_epochs_and_seeds_have_orders_of_their_own():
    def epoch(seed, n):
        order = Order(40, 8, seed=seed)
        return [i for s in range(n * order.steps, (n + 1) * order.steps) for i in indices(order, s)]

    def indices(order, step):
        return [index for index, _ in flat(order.step(order.place(step)))]

    orders = [epoch(0, 0), epoch(0, 1), epoch(0, 2), epoch(1, 0), list(range(40))]
    assert all(sorted(order) == list(range(40)) for order in orders)
    assert len({tuple(order) for order in orders}) == len(orders)
    assert epoch(0, 1) == epoch(0, 1)


def test_every_place_of_every_step_has_a_seed_of_its_own():
    order = Order(20, 5, seed=1)
    seeds = [seed for step in range(12) for _, seed in flat(order.step(order.place(step)))]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    other = [seed for _, seed in flat(Order(20, 5, seed=2).step(Place()))]
    assert not set(other) & set(seeds)


def test_micro_batches_go_on_where_a_run_was_stopped():
    order = Order(11, 2, world=2, rank=1, accumulate=2, seed=3)
    whole = list(MicroBatches(order, Place(), 7))
    assert len(whole) == len(MicroBatches(order, Place(), 7)) == 14
    for start in range(8):
        rest = MicroBatches(order, order.place(start), 7)
        assert list(rest) == whole[start * 2 :]
        assert len(rest) == 14 - 2 * start


def test_draws_are_each_sample_s_own():
    together, alone = Draws([7, 8, 9]), Draws([8])
    for kind, shape in (("normal", (2, 3)), ("uniform", ()), ("normal", (1,))):
        drawn = getattr(together, kind)(*shape)
        assert drawn.shape == (3, *shape)
        assert torch.equal(drawn[1], getattr(alone, kind)(*shape)[0])
    integers = Draws(range(400)).integers(5)
    assert integers.unique().tolist() == [0, 1, 2, 3, 4]
    uniform = Draws(range(400)).uniform(4)
    assert 0 <= uniform.min() < 0.02
    assert 0.98 < uniform.max() < 1
    normal = Draws(range(400)).normal(50)
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.03
