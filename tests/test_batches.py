"""Batches: every sample once, an order that only the seed decides, shares that make up the whole."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.batches import in_order, shuffled
from components.contracts import Plan


def split(samples: int) -> dict[str, torch.Tensor]:
    return {"x": torch.arange(samples), "y": torch.arange(samples) * 10}


def everything(batches) -> list[int]:
    return [int(x) for i in range(len(batches)) for x in batches[i]["x"]]


@given(samples=st.integers(1, 200), size=st.integers(1, 64))
def test_batches_in_order_hold_every_sample_once(samples, size):
    assert everything(in_order(split(samples), size)) == list(range(samples))


@given(samples=st.integers(1, 200), size=st.integers(1, 64), epoch=st.integers(0, 5))
def test_shuffled_batches_are_full_and_hold_no_sample_twice(samples, size, epoch):
    batches = shuffled(split(samples), Plan(size, seed=3, epoch=epoch))
    seen = everything(batches)
    assert len(seen) == len(set(seen)) == max(samples // size * size, min(samples, size))


@given(world=st.integers(1, 4), pieces=st.integers(1, 8), samples=st.integers(40, 100))
def test_the_shares_of_the_workers_make_up_the_batch_of_one_worker(world, pieces, samples):
    size = world * pieces
    whole = shuffled(split(samples), Plan(size, seed=1))
    shares = [shuffled(split(samples), Plan(size, seed=1, rank=rank, world=world)) for rank in range(world)]
    for index in range(len(whole)):
        together = sorted(int(x) for share in shares for x in share[index]["x"])
        assert together == sorted(whole[index]["x"].tolist())


def test_each_epoch_and_seed_has_an_order_of_its_own_and_always_the_same():
    orders = {
        (seed, epoch): tuple(everything(shuffled(split(50), Plan(10, seed=seed, epoch=epoch))))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    assert orders[0, 1] == tuple(everything(shuffled(split(50), Plan(10, seed=0, epoch=1))))


def test_the_names_of_a_split_stay_together():
    batch = shuffled(split(50), Plan(10, seed=0))[2]
    assert torch.equal(batch["y"], batch["x"] * 10)


def test_a_batch_beyond_the_last_is_an_error():
    with pytest.raises(IndexError):
        in_order(split(5), 2)[3]
