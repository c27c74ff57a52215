"""Rows of different lengths come back as they were written, and batches of them are padded with zeros."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.datasets import ragged
from components.errors import PedigreeError

FRESH = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rows_of(lengths, row_shape=(), dtype=np.float32, seed=0):
    """Return rows of these lengths, or of these heights and widths, without a zero in them."""
    random = np.random.default_rng(seed)
    shapes = [length if isinstance(length, tuple) else (length,) for length in lengths]
    return [random.integers(1, 100, (*shape, *row_shape)).astype(dtype) for shape in shapes]


def write(folder, rows, row_shape=(), dimensions=1, dtype=np.float32):
    """Write rows as the array `folder/x`; return their hash."""
    with ragged.Writer(folder / "x", dtype, row_shape, dimensions) as writer:
        for row in rows:
            writer.append(row)
    assert writer.rows == len(rows)
    return writer.sha256


LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=12)
SIZES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12)


@FRESH
@given(lengths=st.one_of(LENGTHS, SIZES), row_shape=st.sampled_from([(), (3,), (2, 2)]))
def test_rows_come_back_as_they_were_written(lengths, row_shape, tmp_path):
    rows = rows_of(lengths, row_shape)
    write(tmp_path, rows, row_shape, dimensions=rows[0].ndim - len(row_shape))
    read = ragged.load(tmp_path / "x")
    assert len(read) == len(rows)
    for index, row in enumerate(rows):
        assert read[index].shape == row.shape
        assert np.array_equal(read[index].numpy(), row)


@FRESH
@given(lengths=LENGTHS, row_shape=st.sampled_from([(), (3,)]), data=st.data())
def test_a_batch_of_sequences_is_padded_with_zeros_to_its_longest_and_gives_the_lengths(
    lengths, row_shape, data, tmp_path
):
    rows = rows_of(lengths, row_shape)
    write(tmp_path, rows, row_shape)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=6))
    batch, found = ragged.load(tmp_path / "x").padded(torch.tensor(chosen))
    assert batch.shape == (len(chosen), max(lengths[index] for index in chosen), *row_shape)
    assert (found.dtype, found.tolist()) == (torch.int64, [lengths[index] for index in chosen])
    for row, index in zip(batch.numpy(), chosen, strict=True):
        assert np.array_equal(row[: lengths[index]], rows[index])
        assert not row[lengths[index] :].any()


@FRESH
@given(sizes=SIZES, row_shape=st.sampled_from([(), (3,)]))
def test_a_batch_of_images_is_padded_below_and_at_the_right_and_gives_the_sizes(sizes, row_shape, tmp_path):
    rows = rows_of(sizes, row_shape, np.uint8)
    write(tmp_path, rows, row_shape, 2, np.uint8)
    batch, found = ragged.load(tmp_path / "x").padded(torch.arange(len(sizes)))
    assert batch.shape == (len(sizes), *np.max(sizes, axis=0), *row_shape)
    assert batch.dtype == torch.uint8
    assert [tuple(size) for size in found.tolist()] == sizes
    for row, (height, width), image in zip(batch.numpy(), sizes, rows, strict=True):
        assert np.array_equal(row[:height, :width], image)
        assert not row[height:].any()
        assert not row[:, width:].any()


def test_a_batch_of_empty_rows_has_none_in_its_width(tmp_path):
    write(tmp_path, rows_of([0, 4, 0]))
    batch, found = ragged.load(tmp_path / "x").padded(torch.tensor([0, 2]))
    assert (batch.shape, found.tolist()) == ((2, 0), [0, 0])


def test_a_batch_without_rows_is_empty(tmp_path):
    write(tmp_path, rows_of([(2, 3)], (4,)), (4,), 2)
    batch, found = ragged.load(tmp_path / "x").padded(torch.tensor([], dtype=torch.int64))
    assert (batch.shape, found.shape) == ((0, 0, 0, 4), (0, 2))


def test_the_hash_is_that_of_values_shapes_and_type(tmp_path):
    values = np.arange(6, dtype=np.float32)
    written = {
        "whole": ([values], np.float32),
        "parts": ([values[:2], values[2:]], np.float32),
        "others": ([values[:3], values[3:]], np.float32),
        "zero": ([values, values[:0]], np.float32),
        "type": ([values.astype(np.int32)], np.int32),
    }
    hashes = {name: write(tmp_path, rows, dtype=dtype) for name, (rows, dtype) in written.items()}
    assert len(set(hashes.values())) == len(written)
    assert write(tmp_path, [values]) == hashes["whole"]


def test_values_stay_on_the_disk_and_what_is_written_to_a_row_never_reaches_it(tmp_path):
    write(tmp_path, rows_of([3, 2]))
    before = (tmp_path / "x.values.npy").read_bytes()
    first = ragged.load(tmp_path / "x")
    first[0].zero_()
    assert (tmp_path / "x.values.npy").read_bytes() == before
    assert ragged.load(tmp_path / "x")[0].all()


@pytest.mark.parametrize("name", ["x.values.npy", "x.shapes.npy"])
def test_a_missing_or_truncated_file_is_named_with_the_remedy(tmp_path, name):
    write(tmp_path, rows_of([3, 2, 40]))
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(PedigreeError, match=rf"{name} is damaged: run prepare again"):
        ragged.load(tmp_path / "x")
    file.unlink()
    with pytest.raises(PedigreeError, match=rf"{name} is missing: run prepare again"):
        ragged.load(tmp_path / "x")


def test_what_a_failed_preparation_leaves_is_damaged(tmp_path):
    def fail():
        with ragged.Writer(tmp_path / "x", np.float32) as writer:
            writer.append(np.ones(3, np.float32))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with pytest.raises(PedigreeError, match="is damaged: run prepare again"):
        ragged.load(tmp_path / "x")
