"""python -m tests.cuda.trainings FOLDER: train each model of a project on the stand-in, and each faulty task.

Prints a JSON object: by model or fault, the error with which it ended and the faults that the stand-in found.
"""

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial, wraps
from itertools import count
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same on a machine with a GPU

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from components import models
from components.contracts import Batch, Batches, Prepared, Shard, StepOutput, Task, Worker
from components.datasets.batches import shuffled
from components.errors import PedigreeError
from components.models import Model
from components.params import TaskParams
from components.training import inference, loop, meter, model_files
from components.training.sums import Sums
from tests.cuda import stand_in
from tests.cuda.stand_in import DEVICE, FAULTS, part
from tests.toy.values import NAMES, importable, values

UPDATES = 2
"""Updates of an epoch: one to resume from, and one that follows."""
STOPPED = "stopped"


@dataclass(frozen=True)
class First:
    """The first batches of an epoch."""

    batches: Batches

    def __len__(self) -> int:
        return min(UPDATES, len(self.batches))

    def __getitem__(self, index: int, /) -> Batch:
        return self.batches[index]


def shortened(task: Task[Any, Any]) -> Task[Any, Any]:
    def first(split: Any, params: TaskParams, shard: Shard) -> First:
        return First((task.train_batches or shuffled)(split, params, shard))

    return replace(task, train_batches=first)


def within(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, inside which the stand-in looks for faults, or with an empty name for none."""

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with part(name):
            return function(*args, **kwargs)

    return called


def look_where_time_counts() -> None:
    """Look for faults where a training spends its time, but not where it waits on purpose."""
    train, synchronize = loop._train, torch.cuda.synchronize
    loop._train = within("an update", train)
    loop.evaluate = within("a batch of validation", loop.evaluate)
    for where, name in ((loop, "_save"), (meter.Progress, "report"), (Sums, "from_row")):
        setattr(where, name, within("", getattr(where, name)))

    def at_the_end(device: Any = None) -> None:
        with part("") if sys._getframe(1).f_code is train.__code__ else nullcontext():
            synchronize(device)

    torch.cuda.synchronize = at_the_end
    meter.peak_flops = lambda *_: 1e12  # would take the CPU a minute


def train(model: Model, prepared: Prepared, folder: Path, stop_after: int = 0, **changes: Any) -> dict[str, Tensor]:
    """Train in a folder, with a checkpoint after each update, and maybe stop after one; return the weights."""
    settings = {"epochs": 1, "checkpoint_seconds": 1e-9, "precision": "bf16"} | changes
    params = model.params.model_copy(update={"train": model.params.train.model_copy(update=settings)})
    folder.mkdir(exist_ok=True)
    updates = count(1)  # the worker is asked for a problem after each
    worker = Worker(DEVICE, problem=lambda: STOPPED if next(updates) == stop_after else "")
    loop.fit(shortened(model.task), params, prepared, folder, worker)
    return load_file(folder / model_files.WEIGHTS)


def run(model: Model, folder: Path) -> None:
    """Train on data that stay in the CPU's memory and on data that move to the GPU; stop, resume and predict."""
    (folder / "prepared").mkdir(parents=True)
    prepared = Prepared(folder / "prepared", model.task.prepare(model.raw, folder / "prepared", model.params))
    torch.cuda.mem_get_info = lambda *_: (0, 0)
    whole = train(model, prepared, folder / "whole")
    torch.cuda.mem_get_info = lambda *_: (2**40, 2**40)
    with pytest.raises(PedigreeError, match=STOPPED):
        train(model, prepared, folder / "resumed", stop_after=1)
    resumed = train(model, prepared, folder / "resumed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole), "resumed with other weights"
    with pytest.raises(PedigreeError, match=STOPPED):
        train(model, prepared, folder / "accumulated", stop_after=1, accumulate=2)
    predict(model, prepared, folder)


def predict(model: Model, prepared: Prepared, folder: Path) -> None:
    """Predict on the stand-in what the CPU does."""
    network = model.task.build_model(model.params, prepared.manifest).eval()
    model_files.load_weights(network, folder / "whole")
    split = model.task.load_split(prepared.folder, "test")
    found = []
    for device in (torch.device("cpu"), DEVICE):
        out = folder / device.type
        out.mkdir()
        placed = inference.placed(network, device)
        found.append(inference.predict(model.task, model.params, placed, split, device, out))
    for here, there in zip(*found, strict=True):
        for name, expected in here.items():
            torch.testing.assert_close(
                there[name], expected, equal_nan=True, msg=lambda text: f"predictions: {text}"
            )


def outcome(work: Callable[[], object]) -> dict[str, Any]:
    """Do some work; return its error and what the stand-in found."""
    FAULTS.clear()
    error = ""
    try:
        work()
    except Exception:
        error = traceback.format_exc()
    return {"error": error, "faults": [asdict(each) for each in dict.fromkeys(FAULTS)]}


def faulty(task: Task[Any, Any], fault: Callable[[Tensor], Tensor]) -> Task[Any, Any]:
    """Return the task with a fault in its step, which may change the loss, a scalar."""

    def step(model: nn.Module, batch: Batch, params: TaskParams) -> StepOutput:
        output = task.step(model, batch, params)
        return replace(output, loss=fault(output.loss))

    return replace(task, step=step)


def selected(loss: Tensor) -> Tensor:
    losses = loss[None]
    return losses[losses > 0].sum()


def recurrent(loss: Tensor) -> Tensor:
    layer = nn.LSTM(1, 1).to(loss.device)
    return loss * layer(loss.detach().view(1, 1, 1))[0].sum().exp()


FAULTY: dict[str, Callable[[Tensor], Tensor]] = {
    "a tensor of the CPU": lambda loss: (loss * torch.ones(1)).sum(),
    "a generator of the CPU": lambda loss: (
        loss * torch.rand(1, generator=torch.Generator(), device=loss.device).sum()
    ),
    "an array": lambda loss: loss * float(loss.detach().numpy()),
    "a number": lambda loss: loss / loss.item(),
    "a mask": selected,
    "a constant": lambda loss: loss * torch.tensor(2.0, device=loss.device),
    "fp16": recurrent,
}
"""Faults in a step, by what is wrong with it."""


def toy(project: Path, name: str) -> Model:
    """Return a model of a toy task, whose data are written if they are missing."""
    importable()
    task = importlib.import_module(f"components.tasks.{name}").TASK
    model = Model(name, task, task.params.model_validate(values()), name, project)
    if not model.raw.exists():
        model.raw.mkdir(parents=True)
        task.embedded[name](model.raw)
    return model


def main(project: Path) -> None:
    stand_in.install()
    look_where_time_counts()
    listed = [each.name for each in models.listed(models.read(project))]
    right = [*(models.load(project, name) for name in listed), *(toy(project, name) for name in NAMES)]
    found = {model.name: outcome(partial(run, model, model.build)) for model in right}
    model = right[-1]
    for number, (name, fault) in enumerate(FAULTY.items()):
        wrong, folder = replace(model, task=faulty(model.task, fault)), model.build / f"fault{number}"
        found[name] = outcome(partial(train, wrong, Prepared(model.build / "prepared", None), folder))
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
