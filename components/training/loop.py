"""The one loop, for every task: forward, loss, backward, update, schedule, until done.

Every random number of training is a function of (seed, update, rank), so that a run can be taken up at any
update without the state of a generator.
"""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from components.contracts import Batch, Batches, Plan, Prepared, StepOutput, Task, Workers
from components.errors import PedigreeError
from components.params import TaskParams, TrainParams
from components.training import saved
from components.training.device import autocast, described, resident, to_device
from components.training.inference import evaluate, placed, total
from components.training.meter import Progress, Speed
from components.training.optimization import build_average, build_optimizers, learning_rate


@dataclass
class _Run:
    """One training on one worker: what it was given, and what an update changes."""

    task: Task[Any]
    params: TaskParams
    workers: Workers
    model: nn.Module
    network: nn.Module
    """The model, wrapped for gradients to be averaged when there are several workers."""
    optimizers: list[Optimizer]
    average: AveragedModel | None
    update: int = 0
    """Updates made so far."""
    best: float = -math.inf
    epochs_without_better: int = 0

    @property
    def train(self) -> TrainParams:
        return self.params.train

    @property
    def judged(self) -> nn.Module:
        """The weights that are validated and kept: their average once there is one."""
        return self.model if self.average is None or not self.average.n_averaged else self.average.module


def fit(task: Task[Any], params: TaskParams, prepared: Prepared, out: Path, workers: Workers) -> None:
    """Train a network on the prepared data and leave its best weights in `out`.

    Raises:
        PedigreeError: a parameter does not fit the data, or training diverged.
    """
    train = params.train
    workers.emit({"kind": "start", "device": described(workers.device), "world": workers.world})
    splits = {name: resident(task.load_split(prepared.folder, name), workers.device) for name in ("train", "val")}
    run = _begin(task, params, prepared, workers)
    speed = Speed.measure(task, params, run.model, splits["train"], workers)
    trained = 0.0
    for epoch in range(train.epochs):
        started = time.monotonic()
        batches = task.train_batches(splits["train"], params, Plan(epoch, workers.rank, workers.world))
        sums, count = _train_epoch(run, batches, epoch)
        seconds = time.monotonic() - started
        trained += seconds
        _same_buffers(run)
        scores = evaluate(task, params, run.judged, splits["val"], workers.device, train.batch_size)
        _keep_best(run, scores, out)
        metrics = {
            "epoch": epoch + 1,
            **{f"train/{name}": value for name, value in task.metrics(sums, count).items()},
            **{f"val/{name}": value for name, value in scores.items()},
            "train/lr": learning_rate(train, (epoch + 0.5) / train.epochs),
            **speed.of(count, seconds),
            "speed/seconds_of_training": trained,
        }
        workers.emit({"kind": "epoch", "epochs": train.epochs, "metrics": metrics})
        if train.patience and run.epochs_without_better >= train.patience:
            break


def _begin(task: Task[Any], params: TaskParams, prepared: Prepared, workers: Workers) -> _Run:
    train = params.train
    torch.manual_seed(train.seed)
    model = task.build_model(params, prepared.manifest)
    task.initialise(model, params)
    model = placed(model, workers.device)
    return _Run(
        task=task,
        params=params,
        workers=workers,
        model=model,
        network=DistributedDataParallel(model) if workers.world > 1 else model,
        optimizers=build_optimizers(model, train.optimizer),
        average=build_average(model, train.average),
    )


def _train_epoch(run: _Run, batches: Batches, epoch: int) -> tuple[dict[str, float], int]:
    """Make one epoch's updates; return its sums and count over all workers."""
    run.network.train()
    progress = Progress(run.workers, epoch, run.train.epochs)
    rows: list[Tensor] = []
    names: list[str] = []
    carry: Batch = {}
    for index in range(len(batches)):
        # The middle of an update's stretch, so that neither the first nor the last one has rate zero.
        share = (epoch + (index + 0.5) / len(batches)) / run.train.epochs
        batch = to_device(batches[index], run.workers.device) | carry
        sums, count, carry = _update(run, batch, share)
        progress.tell((index + 1) / len(batches), sums, count)
        names = list(sums)
        rows.append(torch.stack([*sums.values(), torch.tensor(count, device=run.workers.device).double()]))
    sums_of_all, count_of_all = total(torch.stack(rows).sum(0, keepdim=True), names)
    if not all(map(math.isfinite, sums_of_all.values())):
        raise PedigreeError(
            f"training diverged in epoch {epoch + 1}, its loss is no longer a number: "
            f"lower train.optimizer.lr (now {run.train.optimizer.lr}) or set train.clip_norm"
        )
    return sums_of_all, count_of_all


def _update(run: _Run, batch: Batch, share: float) -> tuple[dict[str, Tensor], int, Batch]:
    """Make one optimizer update from this worker's share of a batch, piece by piece.

    Args:
        run: Is changed.
        batch: With what the batch before carried over.
        share: Of the training, that is over.

    Returns:
        Sums, their count, and what is carried over to the next batch.
    """
    _seed(run.train.seed, run.update, run.workers.rank)
    samples = len(next(iter(batch.values())))
    pieces = _pieces(batch, run.train.accumulate)
    outputs: list[StepOutput] = []
    rate = learning_rate(run.train, share)
    for number, piece in enumerate(pieces, start=1):
        with _without_exchange(run.network) if number < len(pieces) else nullcontext():
            with autocast(run.workers.device, run.train.precision):
                output = run.task.step(run.network, run.task.augment(piece, run.params), run.params)
            (output.loss * len(next(iter(piece.values()))) / samples).backward()
        outputs.append(output)
    if run.train.clip_norm:
        nn.utils.clip_grad_norm_(run.model.parameters(), run.train.clip_norm)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * outputs[0].rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if run.average is not None and share >= run.train.average.start:
        run.average.update_parameters(run.model)
    run.update += 1
    return _joined(outputs)


def _joined(pieces: list[StepOutput]) -> tuple[dict[str, Tensor], int, Batch]:
    first = pieces[0]
    sums = {name: torch.stack([piece.sums[name] for piece in pieces]).sum(0) for name in first.sums}
    carry = {name: torch.cat([piece.carry[name] for piece in pieces]) for name in first.carry}
    return sums, sum(piece.count for piece in pieces), carry


def _seed(seed: int, update: int, rank: int) -> None:
    torch.manual_seed(((seed * 1_000_003 + update) * 4099 + rank) % 2**63)


def _pieces(batch: Batch, number: int) -> list[Batch]:
    chunks = {name: tensor.chunk(number) for name, tensor in batch.items()}
    return [dict(zip(chunks, piece, strict=True)) for piece in zip(*chunks.values(), strict=True)]


def _without_exchange(network: nn.Module) -> AbstractContextManager[None]:
    """Let gradients add up locally: they are averaged among the workers once an update."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


def _same_buffers(run: _Run) -> None:
    """Give every worker rank 0's running statistics: each has seen other samples."""
    if run.workers.world > 1:
        for buffer in run.judged.buffers():
            dist.broadcast(buffer, 0)


def _keep_best(run: _Run, scores: dict[str, float], out: Path) -> None:
    metric = run.train.best_metric
    if metric not in scores:
        raise PedigreeError(f"train.best_metric {metric!r} is not measured: it is one of {', '.join(scores)}")
    score = scores[metric] if run.train.best_mode == "max" else -scores[metric]
    if not score <= run.best:  # the first epoch is kept, even when its score is not a number
        run.best, run.epochs_without_better = score, 0
        if run.workers.rank == 0:
            saved.save_weights(out, run.judged)
    else:
        run.epochs_without_better += 1
