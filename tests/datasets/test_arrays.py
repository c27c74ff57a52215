import ctypes
import mmap
import os
import random
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from components.datasets.arrays import Writer, joint_sha256, load, read_ahead
from components.errors import PedigreeError


def write(path: Path, *batches: np.ndarray) -> Writer:
    with Writer(path, batches[0].dtype, batches[0].shape[1:]) as writer:
        for batch in batches:
            writer.append(batch)
    return writer


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1234, 3, 5), np.uint8)


def test_rows_appended_in_pieces_are_byte_for_byte_the_file_numpy_saves(tmp_path, rows):
    writer = write(tmp_path / "pieces.npy", rows[:1], rows[1:1000], rows[1000:1000], rows[1000:])
    np.save(tmp_path / "whole.npy", rows)
    assert writer.rows == 1234
    assert (tmp_path / "pieces.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_the_header_keeps_its_length_up_to_a_trillion_rows(tmp_path):
    with Writer(tmp_path / "a.npy", np.int64, (3, 224, 224)) as writer:
        before = writer._file.tell()
        writer.rows = 10**12
        writer._write_header()
        assert writer._file.tell() == before
        writer.rows = 0


@pytest.mark.parametrize("count", [0, 1, 7])
def test_what_is_written_comes_back_as_a_tensor(tmp_path, count):
    labels = np.arange(count, dtype=np.int64)
    write(tmp_path / "labels.npy", labels)
    assert torch.equal(load(tmp_path / "labels.npy"), torch.arange(count))


def test_loading_warns_of_nothing_and_the_file_survives_writing_to_the_tensor(tmp_path, rows):
    write(tmp_path / "a.npy", rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = load(tmp_path / "a.npy")
    tensor.zero_()
    assert np.array_equal(load(tmp_path / "a.npy"), rows)


def test_the_hash_depends_on_rows_order_type_and_shape_and_not_on_the_pieces(tmp_path):
    def of(*batches: np.ndarray) -> str:
        return write(tmp_path / "a.npy", *batches).sha256

    rows = np.arange(24, dtype=np.uint8).reshape(4, 6)
    same = of(rows)
    assert same == of(rows[:1], rows[1:])
    others = [rows[::-1], rows.astype(np.int64), rows.reshape(4, 3, 2), rows.reshape(2, 12), rows.view(np.int8)]
    assert len({same, *map(of, others)}) == 6


def test_the_joint_hash_depends_on_every_array_and_their_order(tmp_path):
    one, two = (write(tmp_path / f"{i}.npy", np.full(3, i)) for i in (1, 2))
    assert len({joint_sha256(one, two), joint_sha256(two, one), joint_sha256(one, one), joint_sha256(one)}) == 4


@pytest.mark.parametrize("keep", [0, 5, 60, 128, 500])
def test_a_truncated_file_is_rejected_with_the_remedy(tmp_path, rows, keep):
    path = tmp_path / "a.npy"
    write(path, rows)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(PedigreeError, match=r"a\.npy is damaged: run prepare again"):
        load(path)


def test_a_file_with_bytes_too_many_is_rejected(tmp_path, rows):
    write(tmp_path / "a.npy", rows)
    with (tmp_path / "a.npy").open("ab") as file:
        file.write(b"x")
    with pytest.raises(PedigreeError, match="is damaged"):
        load(tmp_path / "a.npy")


def test_a_file_whose_writing_was_cut_short_is_rejected(tmp_path, rows):
    def fail() -> None:
        with Writer(tmp_path / "a.npy", rows.dtype, rows.shape[1:]) as writer:
            writer.append(rows)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with pytest.raises(PedigreeError, match="is damaged"):
        load(tmp_path / "a.npy")


def test_a_missing_file_is_distinguished_from_a_damaged_one(tmp_path):
    with pytest.raises(PedigreeError, match=r"a\.npy is missing: run prepare again"):
        load(tmp_path / "a.npy")


def test_an_array_of_python_objects_is_rejected_and_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "trapped",)

    np.save(tmp_path / "a.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(PedigreeError, match="is damaged"):
        load(tmp_path / "a.npy")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.filterwarnings("ignore")
def test_a_header_with_any_bytes_changed_either_loads_or_is_rejected(tmp_path, rows):
    path, source = tmp_path / "a.npy", random.Random(0)
    write(path, rows)
    whole, rejected = path.read_bytes(), 0
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(source.randint(1, 4)):
            data[source.randrange(128)] = source.randrange(256)
        path.write_bytes(data)
        try:
            load(path)
        except PedigreeError:
            rejected += 1
    assert rejected > 300


def test_a_row_of_another_shape_or_type_is_a_mistake_in_the_program(tmp_path):
    with Writer(tmp_path / "a.npy", np.uint8, (2,)) as writer:
        with pytest.raises(AssertionError):
            writer.append(np.zeros((1, 3), np.uint8))
        with pytest.raises(AssertionError):
            writer.append(np.zeros((1, 2), np.int64))


def in_memory(row: torch.Tensor) -> bool:
    """Ask mincore(2) whether the pages of a row are in memory."""
    first = row.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    size = row.data_ptr() + row.nbytes - first
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(first), ctypes.c_size_t(size), pages) == 0
    return all(page & 1 for page in pages)


def test_rows_that_will_be_wanted_are_read_while_others_stay_on_the_disk(tmp_path):
    file = tmp_path / "rows.npy"
    write(file, np.zeros((64, 64 * mmap.PAGESIZE), np.uint8))
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    tensor = load(file)
    if in_memory(tensor[20]):
        pytest.skip("this file system keeps its files in memory")
    read_ahead(tensor, torch.tensor([50, 10]))
    end = time.monotonic() + 20
    while not (in_memory(tensor[10]) and in_memory(tensor[50])):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert not in_memory(tensor[30])
