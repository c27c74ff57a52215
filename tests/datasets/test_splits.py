"""A split of columns gives batches of named tensors, dense ones as they are and ragged ones padded."""

import numpy as np
import pytest
import torch

from components.datasets import arrays, ragged
from components.datasets.splits import Columns

LENGTHS = [3, 0, 5, 1]
SIZES = [(2, 3), (4, 1), (1, 1), (3, 3)]


@pytest.fixture
def split(tmp_path):
    """Four samples on the disk: a number, a sequence of tokens and a picture each."""
    with arrays.Writer(tmp_path / "label.npy", np.int64) as labels:
        labels.append(np.arange(4) * 10)
    with (
        ragged.Writer(tmp_path / "tokens", np.int32) as tokens,
        ragged.Writer(tmp_path / "image", np.uint8, (3,), dimensions=2) as images,
    ):
        for index, (length, size) in enumerate(zip(LENGTHS, SIZES, strict=True)):
            tokens.append(np.full(length, index + 1, np.int32))
            images.append(np.full((*size, 3), index + 1, np.uint8))
    columns = {name: ragged.load(tmp_path / name) for name in ("tokens", "image")}
    return Columns({"label": arrays.load(tmp_path / "label.npy")}, columns, torch.tensor(LENGTHS))


def test_a_batch_has_the_samples_in_the_order_asked_for_with_lengths_and_sizes(split):
    batch = split.__getitems__(torch.tensor([2, 0]))
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        "label": (2,),
        "tokens": (2, 5),
        "tokens_length": (2,),
        "image": (2, 2, 3, 3),
        "image_size": (2, 2),
    }
    assert batch["label"].tolist() == [20, 0]
    assert batch["tokens"].tolist() == [[3, 3, 3, 3, 3], [1, 1, 1, 0, 0]]
    assert batch["tokens_length"].tolist() == [5, 3]
    assert batch["image_size"].tolist() == [[1, 1], [2, 3]]
    assert [int(image.sum()) for image in batch["image"]] == [3 * 1 * 3, 1 * 6 * 3]


def test_a_split_is_as_long_as_its_columns_dense_or_ragged(split):
    assert len(split) == len(Columns({}, split.ragged)) == len(Columns(split.dense)) == 4
    assert len(Columns({}, split.ragged).__getitems__(torch.arange(3))["tokens"]) == 3


def test_a_part_of_a_split_has_its_samples_and_its_lengths(split):
    part = split.take(torch.tensor([3, 2]))
    assert len(part) == 2
    assert part.lengths.tolist() == [1, 5]
    expected, found = split.__getitems__(torch.tensor([2, 3])), part.__getitems__(torch.tensor([1, 0]))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_split_without_lengths_has_none_in_its_parts(split):
    assert Columns(split.dense).take(torch.arange(2)).lengths is None


def test_a_dense_column_is_had_by_its_name(split):
    assert split["label"].tolist() == [0, 10, 20, 30]


def test_a_split_is_as_large_as_its_columns_dense_or_ragged(split):
    assert split.nbytes == 4 * 8 + 9 * 4 + (6 + 4 + 1 + 9) * 3
    moved = split.to(torch.device("meta"))
    assert moved.nbytes == split.nbytes
    assert moved["label"].device == torch.device("meta")
    assert {rows.values.device for rows in moved.ragged.values()} == {torch.device("meta")}


def test_indices_are_wanted_where_the_columns_are_and_on_the_cpu_if_any_is_ragged(split):
    meta = torch.device("meta")
    assert Columns(split.dense).to(meta).device == meta
    assert split.to(meta).device == split.device == Columns({}, split.ragged).device == torch.device("cpu")


def test_samples_may_be_read_ahead_whatever_the_columns(split):
    before = split.__getitems__(torch.arange(4))
    for each in (split, Columns({}, split.ragged), Columns({"x": torch.zeros(4, 5000)})):
        each.read_ahead(torch.tensor([0, 3]))
        each.read_ahead(torch.tensor([], dtype=torch.int64))
    after = split.__getitems__(torch.arange(4))
    assert all(torch.equal(after[name], before[name]) for name in before)
