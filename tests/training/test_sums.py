"""What a task counts, of any shape, adds up to the same over micro-batches, updates, batches, workers and kills."""

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from components.contracts import StepOutput, Task
from components.training.sums import Sums, metrics_of
from tests.training.test_checkpoint import EVERY_UPDATE, KilledError, numbers
from tests.training.test_loop import fit, step, toy

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "epochs": 2,
    "optimizer": {"lr": 0.001},
    "validation": {"every": 2, "samples": 0},
    "checkpoint_seconds": EVERY_UPDATE,
}


def counted(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return sums of each shape: how many, a histogram, and two cross products."""
    return {
        "positive": (y > 0).double().sum(),
        "histogram": torch.histc(y.float(), 5, -6, 6).double(),
        "products": x.double().T @ x.double(),
        "by_sign": torch.stack([x[y[:, 0] > 0].double().sum(0), x[y[:, 0] <= 0].double().sum(0)]).view(2, 1, -1),
    }


def counting_step(model: nn.Module, batch: dict, values: object) -> StepOutput:
    return replace(step(model, batch, values), sums=counted(batch["x"], batch["y"]))


def metrics(sums: Mapping[str, Tensor], count: int) -> dict[str, float]:
    """Return numbers that depend on every element, in its place."""
    order = {name: torch.arange(1, each.numel() + 1) for name, each in sums.items()}
    weighed = {f"of_{name}": float((each.flatten() * order[name]).sum()) for name, each in sums.items()}
    return {"loss": float(sums["loss"]) / count, "count": count, **weighed}


def counting(its_step: object = counting_step) -> Task:
    """Return the toy task with sums of every shape."""
    return replace(toy(), step=its_step, metrics=metrics)


def work(rank: int, folder: Path) -> None:
    """Train in `both` and go on with what is in `killed`, as one of two workers; rank 0 writes what it found."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for name in ("both", "killed"):
        _, found = fit(folder / name, counting(), rank=rank, world=2, **SETTINGS)
        if rank == 0:
            (folder / name / "rows.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@given(sizes=st.lists(st.integers(0, 7), min_size=1, max_size=6))
def test_sums_of_any_shape_are_those_of_all_samples_however_these_are_divided(sizes):
    generator = torch.Generator().manual_seed(sum(sizes))
    x = torch.randn(sum(sizes), 3, generator=generator)
    y = x.sum(1, keepdim=True)
    parts = Sums()
    for some, its_y in zip(x.split(sizes), y.split(sizes), strict=True):
        parts.add(Sums.of_step(StepOutput(its_y.sum(), len(some), counted(some, its_y))))
    found, count = parts.total()
    assert count == len(x)
    assert found.keys() == {"loss", *counted(x, y)}
    for name, expected in {"loss": y.double().sum(), **counted(x, y)}.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-6, atol=1e-5)


def test_a_row_of_numbers_has_the_names_and_shapes_it_was_made_of():
    x = torch.arange(12.0).view(4, 3)
    sums = Sums.of_step(StepOutput(torch.tensor(2.0), torch.tensor(4), counted(x, x[:, :1])))
    row = sums.row()
    assert row.shape == (1 + 1 + 5 + 9 + 6 + 1,)
    found, count = sums.from_row(row)
    assert count == 4
    assert all(torch.equal(found[name], expected) for name, expected in counted(x, x[:, :1]).items())
    nothing, none = sums.zero().total()
    assert none == 0
    assert {name: tensor.shape for name, tensor in nothing.items()} == {name: t.shape for name, t in found.items()}
    assert not any(tensor.any() for tensor in nothing.values())


def test_sums_are_added_in_float64():
    sums = Sums()
    for _ in range(1000):
        sums.add(Sums.of_step(StepOutput(torch.tensor(0.1), 1)))
    found, _ = sums.total()
    assert found["loss"].dtype == torch.float64
    assert float(found["loss"]) == pytest.approx(1000 * float(torch.tensor(0.1)), rel=1e-12)


def test_where_a_task_has_no_metrics_each_sum_is_divided_by_the_count_but_for_those_that_are_no_number():
    sums = {"loss": torch.tensor(6.0), "right": torch.tensor(3.0), "table": torch.ones(2, 2)}
    assert metrics_of(toy(), sums, 4) == {"loss": 1.5, "right": 0.75}
    assert metrics_of(toy(), {"loss": torch.tensor(0.0)}, 0) == {"loss": 0}


@pytest.mark.parametrize("accumulate", [2, 4])
def test_micro_batches_add_up_to_the_whole_batch(tmp_path, accumulate):
    _, whole = fit(tmp_path / "whole", counting(), **SETTINGS)
    _, pieces = fit(tmp_path / "pieces", counting(), accumulate=accumulate, **SETTINGS)
    same(pieces, whole)


def same(found: list[dict], expected: list[dict]) -> None:
    assert [row["update"] for row in found] == [row["update"] for row in expected]
    for row, other in zip(numbers(found), numbers(expected), strict=True):
        assert row == pytest.approx(other, rel=1e-5, abs=1e-6)


def killed_in(update: int) -> Task:
    calls = 0

    def killing_step(model: nn.Module, batch: dict, values: object) -> StepOutput:
        nonlocal calls
        calls += model.training and len(batch["x"]) == 16
        if calls == update:
            raise KilledError
        return counting_step(model, batch, values)

    return counting(killing_step)


def test_a_kill_in_an_epoch_loses_nothing_that_was_counted(tmp_path):
    _, whole = fit(tmp_path / "whole", counting(), **SETTINGS)
    with pytest.raises(KilledError):
        fit(tmp_path / "killed", killed_in(4), **SETTINGS)
    _, rest = fit(tmp_path / "killed", counting(), **SETTINGS)
    assert numbers(rest) == numbers(whole)[1:]
    assert whole[1]["train/count"] == 32, "the third update, from before the kill, and the fourth"


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """A folder in which two workers trained, and went on with what one of them had started."""
    folder = tmp_path_factory.mktemp("two")
    with pytest.raises(KilledError):
        fit(folder / "killed", killed_in(4), **SETTINGS)
    command = [sys.executable, "-m", "tests.training.test_sums", str(folder)]
    assert subprocess.run(command, cwd=ROOT, timeout=100, check=False).returncode == 0
    return folder


def rows(folder: Path) -> list[dict]:
    return json.loads((folder / "rows.json").read_text())


def test_two_workers_count_what_one_counts(two, tmp_path):
    _, whole = fit(tmp_path, counting(), **SETTINGS)
    same(rows(two / "both"), whole)


def test_what_one_worker_had_counted_is_counted_once_by_the_two_that_go_on(two, tmp_path):
    _, whole = fit(tmp_path, counting(), **SETTINGS)
    same(rows(two / "killed"), whole[1:])


if __name__ == "__main__":  # the workers are forks, as each import of torch takes seconds
    forks = multiprocessing.get_context("fork")
    workers = [forks.Process(target=work, args=(rank, Path(sys.argv[1])), daemon=True) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    sys.exit(any(worker.exitcode for worker in workers))
