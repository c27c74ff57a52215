"""Batches: every sample once, an order that only the seed decides, shares that make up the whole."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.contracts import Shard
from components.datasets.batches import BUCKET, in_order, shuffled
from components.datasets.splits import Columns
from components.params import TaskParams


def split(samples: int) -> Columns:
    return Columns({"x": torch.arange(samples), "y": torch.arange(samples) * 10})


def order(samples: int, size: int, seed: int = 0, **shard: int):
    """Return an epoch's training batches; of the parameters only size and seed are looked at."""
    params = TaskParams.model_construct(train=SimpleNamespace(batch_size=size, seed=seed))
    return shuffled(split(samples), params, Shard(**shard))


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


def bucketed(lengths: list[int], size: int, seed: int = 0, **shard: int):
    """Return an epoch's batches of samples of these lengths."""
    params = TaskParams.model_construct(train=SimpleNamespace(batch_size=size, seed=seed))
    samples = Columns({"x": torch.arange(len(lengths))}, lengths=torch.tensor(lengths))
    return shuffled(samples, params, Shard(**shard))


LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=200)


@given(lengths=LENGTHS, size=st.integers(1, 32), epoch=st.integers(0, 3))
def test_batches_of_like_lengths_are_full_and_hold_no_sample_twice(lengths, size, epoch):
    batches = bucketed(lengths, size, epoch=epoch)
    seen = everything(batches)
    assert len(seen) == len(set(seen)) == max(len(lengths) // size * size, min(len(lengths), size))
    assert {len(batches[index]["x"]) for index in range(len(batches))} == {min(size, len(lengths))}


@given(lengths=LENGTHS, size=st.integers(1, 32))
def test_in_a_bucket_no_batch_reaches_into_the_lengths_of_another(lengths, size):
    batches = bucketed(lengths, max(size, -(-len(lengths) // BUCKET)))  # all samples are in one bucket
    found = [[lengths[int(x)] for x in batches[index]["x"]] for index in range(len(batches))]
    ranges = sorted((min(each), max(each)) for each in found)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(ranges))


def test_of_many_samples_little_is_padded_and_each_batch_is_of_another_length_than_the_one_before():
    lengths = torch.randint(1, 1000, (5000,), generator=torch.Generator().manual_seed(0)).tolist()

    def longest(batches) -> list[list[int]]:
        return [[lengths[int(x)] for x in batches[index]["x"]] for index in range(len(batches))]

    like, alike = longest(bucketed(lengths, 16)), longest(order(5000, 16))
    padded = [sum(max(each) * len(each) - sum(each) for each in every) for every in (like, alike)]
    assert padded[0] < 0.1 * padded[1]
    tops = [max(each) for each in like]
    assert tops[:BUCKET] not in (sorted(tops[:BUCKET]), sorted(tops[:BUCKET], reverse=True))


@given(lengths=LENGTHS, world=st.integers(1, 4), pieces=st.integers(1, 8))
def test_workers_share_a_batch_of_like_lengths_equally_and_make_up_that_of_one_worker(lengths, world, pieces):
    size = world * pieces
    lengths = lengths + [7] * size  # at least one full batch
    whole = bucketed(lengths, size)
    shares = [bucketed(lengths, size, rank=rank, world=world) for rank in range(world)]
    for index in range(len(whole)):
        parts = [share[index]["x"].tolist() for share in shares]
        assert {len(part) for part in parts} == {pieces}
        assert sorted(itertools.chain(*parts)) == sorted(whole[index]["x"].tolist())


def test_the_buckets_of_each_epoch_and_seed_are_their_own_and_always_the_same():
    lengths = [(7 * i) % 100 for i in range(2000)]

    def batches(seed: int, epoch: int) -> list[tuple[int, ...]]:
        found = bucketed(lengths, 10, seed, epoch=epoch)
        return [tuple(found[index]["x"].tolist()) for index in range(len(found))]

    seen = {(seed, epoch): batches(seed, epoch) for seed in (0, 1) for epoch in (0, 1)}
    assert len({tuple(each) for each in seen.values()}) == 4
    assert len({frozenset(map(frozenset, each)) for each in seen.values()}) == 4, "other samples come together"
    assert seen[0, 1] == batches(0, 1)
