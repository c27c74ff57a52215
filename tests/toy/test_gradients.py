"""One update is the same mathematics however the batch is divided: the loss is weighted by tokens."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from components.contracts import Prepared, Worker
from components.training import loop, model_files
from tests.toy.values import importable, values

ROOT = Path(__file__).parents[2]


def train(folder: Path, rank: int = 0, world: int = 1, **changes: Any) -> None:
    """Make one update, in float64, of plain gradient descent at rate 1 on all 48 sequences."""
    importable()
    from components.tasks.tones import TASK

    one = {"optimizer": {"name": "sgd", "lr": 1, "momentum": 0, "weight_decay": 0}, "epochs": 1, "batch_size": 48}
    params = TASK.params.model_validate(values(**one, validation={"every": 0, "samples": 0}, **changes))
    task = replace(TASK, build_model=lambda p, m: TASK.build_model(p, m).double())
    loop.fit(
        task, params, Prepared(folder.parent / "prepared", None), folder, Worker(torch.device("cpu"), rank, world)
    )


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """A folder with prepared sequences of very unequal lengths."""
    importable()
    from components.tasks.tones import TASK

    folder = tmp_path_factory.mktemp("tones")
    for name in ("raw", "prepared"):
        (folder / name).mkdir()
    (write,) = TASK.embedded.values()
    write(folder / "raw")
    TASK.prepare(folder / "raw", folder / "prepared", TASK.params.model_validate(values()))
    return folder


def gradients(folder: Path) -> dict[str, Tensor]:
    """Return what one update at rate 1 took off each weight that the network began with."""
    from components.tasks.tones import TASK

    torch.manual_seed(0)
    before = TASK.build_model(None, None).double().state_dict()
    after = load_file(folder / model_files.WEIGHTS)
    return {name: before[name] - after[name] for name in before}


def by_hand(raw: Path) -> dict[str, Tensor]:
    """Return the gradient of the mean loss over all tokens of the split, from one batch that is not divided."""
    from components.tasks.tones import TASK, task

    torch.manual_seed(0)
    model = TASK.build_model(None, None).double()
    split = TASK.load_split(raw / "prepared", "train")
    output = task.step(model, split.__getitems__(torch.arange(len(split))), None)
    (output.loss / output.count).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_micro_batches_of_unequal_sequences_give_the_gradient_of_the_mean_over_tokens(raw, accumulate):
    folder = raw / f"accumulate-{accumulate}"
    folder.mkdir()
    train(folder, accumulate=accumulate)
    same(gradients(folder), by_hand(raw))


@pytest.mark.long
def test_two_workers_with_unequal_numbers_of_tokens_give_the_gradient_of_one(raw):
    folder = raw / "two"
    folder.mkdir()
    workers = [
        subprocess.Popen([sys.executable, "-m", "tests.toy.worker", f"{rank}", "2", f"{folder}"], cwd=ROOT)
        for rank in (0, 1)
    ]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    same(gradients(folder), by_hand(raw))
