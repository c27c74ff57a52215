"""The one loop, for every task: forward, loss, backward, update, schedule, until done.

Every random number of training is a function of (seed, update, rank), so that a run can be taken up at any
update without the state of a generator: a checkpoint holds all else, and what comes out of a training that was
interrupted is bitwise what comes out of one that was not.
"""

import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from components import files
from components.contracts import Batch, Batches, Plan, Prepared, StepOutput, Task, Workers
from components.errors import PedigreeError
from components.params import TaskParams, TrainParams
from components.training import checkpoint, saved
from components.training.device import allow_tf32, autocast, compiled, described, precision_on, resident, to_device
from components.training.inference import evaluate, placed, total
from components.training.meter import Progress, Speed
from components.training.optimization import build_average, build_optimizers, learning_rate


@dataclass
class _Run:
    """One training on one worker: what it was given, and what an update changes."""

    task: Task[Any]
    params: TaskParams
    workers: Workers
    folder: Path
    """Of the training: checkpoints, and the best weights so far."""
    model: nn.Module
    network: nn.Module
    """The model, compiled if that was asked for, wrapped for gradients to be averaged among several workers."""
    optimizers: list[Optimizer]
    average: AveragedModel | None
    keeper: checkpoint.Keeper
    control: Any = None
    """Group of all workers whose messages never wait for a GPU, or None for one worker."""
    update: int = 0
    """Updates made so far."""
    epoch: int = 0
    """Epochs that are over."""
    batch: int = 0
    """Batches of this epoch that are over."""
    rows: list[Tensor] = field(default_factory=list)
    """Sums and count, float64, of each of these batches on this worker."""
    names: list[str] = field(default_factory=list)
    """Of the sums."""
    carry: Batch = field(default_factory=dict)
    """What the last batch left to the next one."""
    seconds: float = 0.0
    """Of this epoch's training."""
    trained: float = 0.0
    """Seconds of all epochs' training."""
    score: float | None = None
    """The best one so far, more being better."""
    epochs_without_better: int = 0
    best: checkpoint.Best | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    saved_at: float = field(default_factory=time.monotonic)
    """When the last checkpoint was begun."""

    @property
    def train(self) -> TrainParams:
        return self.params.train

    @property
    def precision(self) -> str:
        return precision_on(self.workers.device, self.train.precision)

    @property
    def judged(self) -> nn.Module:
        """The weights that are validated and kept: their average once there is one."""
        return self.model if self.average is None or not self.average.n_averaged else self.average.module

    @property
    def over(self) -> bool:
        patience = self.train.patience
        return self.epoch >= self.train.epochs or bool(patience and self.epochs_without_better >= patience)


def fit(task: Task[Any], params: TaskParams, prepared: Prepared, folder: Path, workers: Workers) -> None:
    """Train a network on the prepared data, and leave its best weights in the training's folder.

    Where the folder has a checkpoint, the training goes on from there.

    Raises:
        PedigreeError: a parameter does not fit the data, or training diverged.
    """
    splits = {name: resident(task.load_split(prepared.folder, name), workers.device) for name in ("train", "val")}
    run = _begin(task, params, prepared, splits["train"], folder, workers)
    allow_tf32(workers.device, run.precision == "bf16")  # as the training that its peak is for
    speed = Speed.measure(task, params, run.model, splits["train"], workers)
    with run.keeper:
        while not run.over:
            _epoch(run, splits, speed)
    if workers.rank == 0:
        assert run.best is not None, "the first epoch's weights are kept, whatever their score"
        files.copy(folder / run.best.file, folder / saved.WEIGHTS)


def _epoch(run: _Run, splits: Mapping[str, Batch], speed: Speed) -> None:
    """Train for an epoch, or what is left of it, validate, keep all that was found, and tell of it."""
    task, params, workers, train = run.task, run.params, run.workers, run.train
    batches = task.train_batches(splits["train"], params, Plan(run.epoch, workers.rank, workers.world))
    sums, count = _train_epoch(run, batches)
    _wait_for_disk(run)  # the keeper removes best weights that no checkpoint names, and new ones have none yet
    _same_buffers(run)
    scores = evaluate(task, params, run.judged, splits["val"], workers.device, train.batch_size)
    _keep_best(run, scores)
    run.trained += run.seconds
    metrics = {
        "epoch": run.epoch + 1,
        **{f"train/{name}": value for name, value in task.metrics(sums, count).items()},
        **{f"val/{name}": value for name, value in scores.items()},
        "train/lr": learning_rate(train, (run.epoch + 0.5) / train.epochs),
        **speed.of(count, run.seconds),
        "speed/seconds_of_training": run.trained,
    }
    run.history.append(metrics)
    run.epoch, run.batch, run.rows, run.carry, run.seconds = run.epoch + 1, 0, [], {}, 0.0
    _save(run)
    _wait_for_disk(run)  # before it is told of: an epoch that was told of is never made again
    workers.emit({"kind": "epoch", "epochs": train.epochs, "metrics": metrics})


def _begin(
    task: Task[Any], params: TaskParams, prepared: Prepared, split: Batch, folder: Path, workers: Workers
) -> _Run:
    """Return the training at its beginning, or where its last checkpoint has it, and tell of it."""
    train = params.train
    torch.manual_seed(train.seed)
    model = task.build_model(params, prepared.manifest)
    task.initialise(model, params, split)
    model = placed(model, workers.device)
    optimizers = build_optimizers(model, train.optimizer)
    average = build_average(model, train.average)
    several = workers.world > 1
    network = compiled(model, workers.device) if train.compile else model
    control = dist.new_group(backend="gloo") if several else None
    found = _last_checkpoint(folder, workers, control)
    if found:
        _restore(model, optimizers, average, found[1])
    run = _Run(
        task=task,
        params=params,
        workers=workers,
        folder=folder,
        model=model,
        network=DistributedDataParallel(network) if several else network,
        optimizers=optimizers,
        average=average,
        keeper=checkpoint.Keeper(folder),
        control=control,
    )
    if found:
        _take_up(run, *found)
    workers.emit(
        {
            "kind": "start",
            "device": described(workers.device, run.precision),
            "world": workers.world,
            "resumed": found and {"update": run.update, "epoch": run.epoch, "world": found[0].world},
            "history": run.history,
        }
    )
    return run


def _last_checkpoint(
    folder: Path, workers: Workers, control: Any
) -> tuple[checkpoint.Place, dict[str, Tensor]] | None:
    """Return the checkpoint that rank 0 finds: on a folder that hosts share others may not see the same yet."""
    name = [checkpoint.latest(folder) if workers.rank == 0 else ""]
    if control is not None:
        dist.broadcast_object_list(name, 0, group=control)
    return checkpoint.load(folder, name[0]) if name[0] else None


_MODEL, _AVERAGE, _OPTIMIZER, _ROWS, _CARRY = "model", "average", "optimizer", "rows", "carry"


def _restore(
    model: nn.Module, optimizers: list[Optimizer], average: AveragedModel | None, tensors: dict[str, Tensor]
) -> None:
    model.load_state_dict(_below(tensors, _MODEL))
    if average is not None:
        average.load_state_dict(_below(tensors, _AVERAGE))
    for number, optimizer in enumerate(optimizers):
        checkpoint.restore_optimizer(optimizer, _below(tensors, f"{_OPTIMIZER}{number}"))


def _take_up(run: _Run, place: checkpoint.Place, tensors: dict[str, Tensor]) -> None:
    """Put the run where a checkpoint has it; with another number of workers sums and state are dealt anew."""
    rank, world, device = run.workers.rank, run.workers.world, run.workers.device
    parts = checkpoint.parts_of(_below(tensors, _CARRY), place.world)
    run.carry = to_device(checkpoint.dealt(parts, rank, world), device)
    rows = [part["rows"].to(device) for part in checkpoint.parts_of(_below(tensors, _ROWS), place.world) if part]
    if rows:
        mine = rows[rank] if place.world == world else torch.cat(rows)
        run.rows = list(mine if place.world == world or rank == 0 else torch.zeros_like(mine[:1]))
    run.update, run.epoch, run.batch, run.names = place.update, place.epoch, place.batch, place.names
    run.score, run.epochs_without_better, run.best = place.score, place.epochs_without_better, place.best
    run.seconds, run.trained, run.history = place.seconds, place.trained, place.history


def _save(run: _Run) -> None:
    """Begin to write a checkpoint: rank 0 does, with what each worker alone has."""
    run.keeper.wait()  # here, for the others then wait in a group that gives rank 0's disk its time
    mine = {_ROWS: {"rows": torch.stack(run.rows).cpu()} if run.rows else {}}
    mine[_CARRY] = {name: tensor.cpu() for name, tensor in run.carry.items()}
    parts: list[dict[str, Batch] | None] = [mine]
    if run.control is not None:
        parts = [None] * run.workers.world
        dist.gather_object(mine, parts if run.workers.rank == 0 else None, group=run.control)
    if run.workers.rank == 0:
        tensors = _named(_MODEL, run.model.state_dict())
        tensors |= _named(_AVERAGE, run.average.state_dict() if run.average is not None else {})
        for number, optimizer in enumerate(run.optimizers):
            tensors |= _named(f"{_OPTIMIZER}{number}", checkpoint.optimizer_tensors(optimizer))
        for what in (_ROWS, _CARRY):
            tensors |= _named(what, checkpoint.keep_parts([part[what] for part in parts if part is not None]))
        run.keeper.save(_place(run), tensors)
    run.saved_at = time.monotonic()


def _wait_for_disk(run: _Run) -> None:
    """Wait until rank 0's checkpoint is written; GPUs would not wait for each other as long as a disk may take."""
    run.keeper.wait()
    if run.control is not None:
        dist.barrier(group=run.control)


def _place(run: _Run) -> checkpoint.Place:
    return checkpoint.Place(
        update=run.update,
        epoch=run.epoch,
        batch=run.batch,
        world=run.workers.world,
        score=run.score,
        epochs_without_better=run.epochs_without_better,
        best=run.best,
        seconds=run.seconds,
        trained=run.trained,
        names=run.names,
        history=run.history,
    )


def _named(what: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{what}.{name}": tensor for name, tensor in tensors.items()}


def _below(tensors: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """Return what `_named` was given."""
    return {name.removeprefix(f"{what}."): each for name, each in tensors.items() if name.startswith(f"{what}.")}


def _train_epoch(run: _Run, batches: Batches) -> tuple[dict[str, float], int]:
    """Make an epoch's updates, or those that are left of it; return its sums and count over all workers."""
    run.network.train()
    allow_tf32(run.workers.device, run.precision == "bf16")  # for what autocast leaves in fp32
    progress = Progress(run.workers, run.epoch, run.train.epochs, begun=run.batch / len(batches))
    before, started = run.seconds, time.monotonic()
    while run.batch < len(batches):
        # The middle of an update's stretch, so that neither the first nor the last one has rate zero.
        share = (run.epoch + (run.batch + 0.5) / len(batches)) / run.train.epochs
        batch = to_device(batches[run.batch], run.workers.device) | run.carry
        sums, count, run.carry = _update(run, batch, share)
        run.batch += 1
        progress.tell(run.batch / len(batches), sums, count)
        run.names = list(sums)
        # Filled where it is: a copy to a GPU would wait for all that the GPU still has to compute.
        counted = torch.full((), count, dtype=torch.float64, device=run.workers.device)
        run.rows.append(torch.stack([*sums.values(), counted]))
        run.seconds = before + time.monotonic() - started
        if _due(run):
            _save(run)
    sums_of_all, count_of_all = total(torch.stack(run.rows).sum(0, keepdim=True), run.names)
    run.seconds = before + time.monotonic() - started  # by now a GPU has computed all
    if not all(map(math.isfinite, sums_of_all.values())):
        raise PedigreeError(
            f"training diverged in epoch {run.epoch + 1}, its loss is no longer a number: "
            f"lower train.optimizer.lr (now {run.train.optimizer.lr}) or set train.clip_norm"
        )
    return sums_of_all, count_of_all


def _due(run: _Run) -> bool:
    """Tell whether it is time for a checkpoint, by the clock of rank 0: all workers write it at the same update."""
    due = time.monotonic() - run.saved_at >= run.train.checkpoint_seconds
    if run.control is None:
        return due
    told = torch.tensor([due])
    dist.broadcast(told, 0, group=run.control)
    return bool(told)


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
            with autocast(run.workers.device, run.precision):
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


def _keep_best(run: _Run, scores: dict[str, float]) -> None:
    metric = run.train.best_metric
    if metric not in scores:
        raise PedigreeError(f"train.best_metric {metric!r} is not measured: it is one of {', '.join(scores)}")
    score = scores[metric] if run.train.best_mode == "max" else -scores[metric]
    # The first epoch is kept even when its score is not a number, which every number is better than.
    if run.score is None or math.isnan(run.score) or score > run.score:
        run.score, run.epochs_without_better = score, 0
        if run.workers.rank == 0:
            file = run.folder / f"best-{run.epoch + 1:06d}.safetensors"
            saved.save_weights(file, run.judged)
            run.best = checkpoint.Best(file=file.name, sha256=files.sha256(file))
    else:
        run.epochs_without_better += 1
