"""Batches: every sample once, an order that only the seed decides, shares that make up the whole."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.batches import in_order, shuffled
from components.contracts import Plan
from components.params import TaskParams


def split(samples: int) -> dict[str, torch.Tensor]:
    return {"x": torch.arange(samples), "y": torch.arange(samples) * 10}


def order(samples: int, size: int, seed: int = 0, **plan: int):
    """Return an epoch's training batches; of the parameters only size and seed are looked at."""
    params = TaskParams.model_construct(train=SimpleNamespace(batch_size=size, seed=seed))
    return shuffled(split(samples), params, Plan(**plan))


def everything(batches) -> list[int]:
    return [int(x) for i in range(len(batches)) for x in batches[i]["x"]]


@given(samples=st.integers(1, 200), size=st.integers(1, 64))
def test_batches_in_order_hold_every_sample_once(samples, size):
    assert everything(in_order(split(samples), size)) == list(range(samples))


@given(samples=st.integers(1, 200), size=st.integers(1, 64), epoch=st.integers(0, 5))
def test_shuffled_batches_are_full_and_hold_no_sample_twice(samples, size, epoch):
    batches = order(samples, size, seed=3, epoch=epoch)
    seen = everything(batches)
    assert len(seen) == len(set(seen)) == max(samples // size * size, min(samples, size))


@given(world=st.integers(1, 4), pieces=st.integers(1, 8), samples=st.integers(40, 100))
def test_the_shares_of_the_workers_make_up_the_batch_of_one_worker(world, pieces, samples):
    size = world * pieces
    whole = order(samples, size)
    shares = [order(samples, size, rank=rank, world=world) for rank in range(world)]
    for index in range(len(whole)):
        together = sorted(int(x) for share in shares for x in share[index]["x"])
        assert together == sorted(whole[index]["x"].tolist())


def test_each_epoch_and_seed_has_an_order_of_its_own_and_always_the_same():
    orders = {
        (seed, epoch): tuple(everything(order(50, 10, seed, epoch=epoch))) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    assert orders[0, 1] == tuple(everything(order(50, 10, epoch=1)))


def test_the_names_of_a_split_stay_together():
    batch = order(50, 10)[2]
    assert torch.equal(batch["y"], batch["x"] * 10)


def test_a_batch_beyond_the_last_is_an_error():
    with pytest.raises(IndexError):
        in_order(split(5), 2)[3]
