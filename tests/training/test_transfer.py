"""What is computed with on a GPU: which splits move there, and who gathers the batches of the others."""

import threading

import pytest
import torch
from torch import Tensor

from components.datasets.batches import in_order
from components.datasets.splits import Columns
from components.training import transfer
from components.training.transfer import Ahead, ahead, resident

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Sized(Columns):
    """A split of so many bytes, of which only the device is looked at once it has been moved."""

    def __init__(self, size: int, device: torch.device = CPU) -> None:
        super().__init__({"x": torch.zeros(size, dtype=torch.uint8, device="meta")})
        object.__setattr__(self, "where", device)

    @property
    def device(self) -> torch.device:
        return self.where

    def to(self, device: torch.device, /) -> Columns:
        return Sized(self.nbytes, device)


@pytest.mark.parametrize(
    ("train", "val", "moved"),
    [(39, 20, [GPU, CPU]), (20, 19, [GPU, GPU]), (20, 20, [GPU, CPU]), (41, 39, [CPU, GPU]), (80, 80, [CPU, CPU])],
)
def test_all_splits_on_a_gpu_fill_less_than_half_of_its_free_memory_together(train, val, moved, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80, 100))
    assert [split.device for split in resident([Sized(train), Sized(val)], GPU)] == moved


def test_on_the_cpu_splits_stay_as_they_are_and_no_thread_gathers_them():
    split = Columns({"x": torch.arange(10)})
    assert [each is split for each in resident([split], CPU)] == [True]
    batches = in_order(split, 4)
    assert ahead(batches, split, CPU) is batches


def test_what_is_on_a_gpu_already_is_gathered_there():
    split = Sized(10, GPU)
    batches = in_order(Columns({"x": torch.arange(10)}), 4)
    assert ahead(batches, split, GPU) is batches
    assert isinstance(ahead(batches, Sized(10), GPU), Ahead)


class Watched:
    """Five batches, of which one may be damaged or slow; it notes who asked for which."""

    def __init__(self, damaged: int = -1, slow: int = -1) -> None:
        self.damaged, self.slow, self.asked = damaged, slow, list[tuple[int, bool]]()
        self.go_on = threading.Event()

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int, /) -> dict[str, Tensor]:
        self.asked.append((index, threading.current_thread() is threading.main_thread()))
        assert index != self.slow or self.go_on.wait(20)
        if index == self.damaged:
            raise OSError("the disk is damaged")
        return {"x": torch.tensor([index])}


@pytest.fixture(autouse=True)
def pageable(monkeypatch):
    """Memory cannot be pinned without a GPU."""
    monkeypatch.setattr(transfer, "pinned", lambda batch: batch)


def gatherers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "gather"]


def ended() -> bool:
    for each in gatherers():
        each.join(20)
    return not gatherers()


@pytest.mark.parametrize(("first", "step"), [(0, 1), (2, 1), (1, 2)])
def test_each_batch_but_the_first_is_gathered_by_a_thread_before_it_is_asked_for(first, step):
    batches = Watched()
    found = Ahead(batches, step)
    indices = range(first, len(found), step)
    assert [int(found[index]["x"]) for index in indices] == list(indices)
    assert ended()
    assert batches.asked == [(index, index == first) for index in indices], "each once, and none beyond the last"


def test_a_batch_that_does_not_follow_is_gathered_when_it_is_asked_for():
    found = Ahead(Watched(), 1)
    assert [int(found[index]["x"]) for index in (3, 0, 1, 1, 4)] == [3, 0, 1, 1, 4]
    assert ended()


def test_what_goes_wrong_with_a_batch_is_raised_where_it_is_asked_for_and_no_thread_is_left():
    found = Ahead(Watched(damaged=1), 1)
    assert int(found[0]["x"]) == 0
    with pytest.raises(OSError, match="the disk is damaged"):
        found[1]
    assert ended()
    assert int(found[2]["x"]) == 2
    assert ended()


def test_a_training_that_is_interrupted_leaves_no_thread():
    batches = Watched(slow=1)

    def train() -> None:
        assert int(Ahead(batches, 1)[0]["x"]) == 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert [each.daemon for each in gatherers()] == [False], "the end of the process waits for it"
    batches.go_on.set()
    assert ended()
