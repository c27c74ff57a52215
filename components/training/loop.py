"""The training loop of all tasks.

Every random number is a function of (seed, update, rank), so that training can resume at any update without the
state of a generator. A checkpoint holds everything else: a resumed training ends with bitwise the same weights as
an uninterrupted one.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from components.contracts import Batch, Batches, Manifest, Prepared, Shard, Sources, Split, StepOutput, Task, Worker
from components.datasets.batches import shuffled, spread
from components.errors import PedigreeError
from components.params import INIT, TaskParams, TrainParams
from components.runtime import files
from components.training import checkpoint, model_files, norms
from components.training.device import allow_tf32, autocast, compiled, described, precision_on, to_device
from components.training.inference import evaluate, placed, predictions
from components.training.meter import Progress, Speed
from components.training.optimization import LAYER_FACTOR, Average, build_average, build_optimizers, learning_rate
from components.training.sums import Sums, at_least_one, metrics_of
from components.training.transfer import ahead, resident
from components.weights import start_from

SNAPSHOTS = "snapshots"
"""Folder of the pictures that validations write, below the training's folder and among the run's artifacts."""
ASK_SECONDS = 0.5
"""Approximate time between two questions of several workers to rank 0, whether a checkpoint is due."""


@dataclass
class _Run:
    """One training on one worker: its inputs and its state."""

    task: Task[Any, Any]
    params: TaskParams
    worker: Worker
    manifest: Manifest
    folder: Path
    """The training's folder, with checkpoints and the best weights so far."""
    model: nn.Module
    network: nn.Module
    """The model, compiled if requested, and wrapped in DDP with several workers."""
    frozen: frozenset[str]
    """Loaded parameters, frozen in the first `train.init.freeze` epochs."""
    optimizers: list[Optimizer]
    average: Average | None
    writer: checkpoint.CheckpointWriter
    control: Any = None
    """gloo process group of all workers, whose messages never wait for a GPU; None for one worker."""
    update: int = 0
    """Updates made so far."""
    epoch: int = 0
    """Finished epochs."""
    batch: int = 0
    """Finished batches of the present epoch."""
    sums: Sums = field(default_factory=Sums)
    """Sums of this worker over the updates since the last validation."""
    carry: Batch = field(default_factory=dict)
    """State that the last batch carries over to the next one."""
    seconds: float = 0.0
    """Seconds of training since the last validation."""
    trained: float = 0.0
    """Seconds of training before the last validation."""
    score: float | None = None
    """The best score so far, signed so that more is better."""
    validations_without_improvement: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    saved_at: float = field(default_factory=time.monotonic)
    """When the last checkpoint was started."""
    asked: tuple[int, float] = (0, -math.inf)
    """At which update, and when, the workers last asked rank 0 whether a checkpoint is due."""
    ask_at: int = 0
    """The update after which they ask again."""

    @property
    def train(self) -> TrainParams:
        return self.params.train

    @property
    def precision(self) -> str:
        return precision_on(self.worker.device, self.train.precision)

    @property
    def evaluated(self) -> nn.Module:
        """The weights that are validated and saved: their average once there is one."""
        return self.model if self.average is None or not self.average.updates else self.average.module

    @property
    def over(self) -> bool:
        patience = self.train.patience
        return self.epoch >= self.train.epochs or bool(
            patience and self.validations_without_improvement >= patience
        )


def fit(
    task: Task[Any, Any],
    params: TaskParams,
    prepared: Prepared,
    folder: Path,
    worker: Worker,
    sources: Sources = MappingProxyType({}),
) -> None:
    """Train a network and write its best weights into the training's folder.

    If the folder has a checkpoint, training resumes from it.

    Raises:
        PedigreeError: a parameter does not fit the data, or training diverged.
    """
    train, val = (task.load_split(prepared.folder, name) for name in ("train", "val"))
    if params.train.validation.samples:
        val = subset(task, val, params.train.validation.samples)
    train, val = resident([train, val], worker.device)
    run = _begin(task, params, prepared, train, folder, worker, sources)
    allow_tf32(worker.device, run.precision == "bf16")  # so that the measured peak is that of the training
    with run.writer:
        if params.train.epochs:
            speed = Speed.measure(task, params, run.model, train, worker)
            while not run.over:
                _epoch(run, train, val, speed)
        else:
            _keep_initial(run, val)
        _wait_for_disk(run)
    if worker.rank == 0:
        best = run.writer.best
        assert best is not None, "the first validation's weights are saved, whatever their score"
        files.copy(folder / best.file, folder / model_files.WEIGHTS)
        if task.calibrate:
            _calibrate(run, task.calibrate, task.load_split(prepared.folder, "val"))


def _calibrate(run: _Run, calibrate: Callable[[nn.Module, Iterable[Batch], Any], None], val: Split) -> None:
    """Let the task set buffers of the best network from its predictions on the validation split, and save them."""
    model = run.task.build_model(run.params, run.manifest)
    model_files.load_weights(model, run.folder)
    model = placed(model, run.worker.device)
    calibrate(model, predictions(run.task, run.params, model, val, run.worker.device), run.params)
    model_files.save_weights(run.folder / model_files.WEIGHTS, model)


def subset(task: Task[Any, Any], split: Any, most: int) -> Any:
    """Return the subset of at most `most` samples that validation uses."""
    if task.subset:
        return task.subset(split, most)
    return split.take(spread(len(split), most)) if most < len(split) else split


def initialise(
    task: Task[Any, Any], params: TaskParams, model: nn.Module, split: Split, sources: Sources
) -> frozenset[str]:
    """Give a new network its initial weights and what else parameters name; return the names of loaded parameters.

    Raises:
        PedigreeError: the weights do not fit the network.
    """
    if task.attach:
        task.attach(model, params, sources)
    if task.initialise:
        return frozenset(task.initialise(model, split, params, sources))
    return frozenset(start_from(model, sources[INIT]) if INIT in sources else ())


def _keep_initial(run: _Run, val: Split) -> None:
    """Validate the initial weights and save them, as there are no epochs."""
    scores = evaluate(run.task, run.params, run.model, val, run.worker.device, run.train.batch_size)
    _keep_best(run, run.model, scores)
    metrics = {"epoch": 0.0, "update": 0.0, **{f"val/{name}": value for name, value in scores.items()}}
    run.worker.emit({"kind": "validation", "epochs": 0, "metrics": metrics, "snapshot": ""})


def _epoch(run: _Run, train: Split, val: Split, speed: Speed) -> None:
    """Train for the rest of an epoch, validating every `validation.every` updates or at its end."""
    _freeze(run)
    shard = Shard(run.epoch, run.worker.rank, run.worker.world)
    batches = ahead((run.task.train_batches or shuffled)(train, run.params, shard), train, run.worker.device)
    every = run.train.validation.every
    while not run.over:
        _train(run, batches, _next_stop(run, len(batches)))
        if ends := run.batch == len(batches):
            run.epoch, run.batch, run.carry = run.epoch + 1, 0, {}
        if ends if not every else run.update % every == 0 or run.epoch == run.train.epochs:
            _validate(run, val, batches, speed, run.batch / len(batches), 0.5 / len(batches))
        if ends:
            return


def _next_stop(run: _Run, batches: int) -> int:
    """Return the number of batches of this epoch after which to validate or to end it."""
    every = run.train.validation.every
    if not every:
        return batches
    left = -run.update % every
    # A checkpoint may have been written between an update and the validation that follows it.
    return min(run.batch + (left if left or run.sums else every), batches)


def _freeze(run: _Run) -> None:
    """Freeze or unfreeze the loaded parameters for this epoch."""
    named = dict(run.model.named_parameters())
    freeze = run.epoch < run.train.init.freeze
    if not run.frozen or all(named[name].requires_grad is not freeze for name in run.frozen):
        return
    for name in run.frozen:
        named[name].requires_grad_(not freeze)
    if not any(parameter.requires_grad for parameter in named.values()):
        raise PedigreeError(
            f"train.init.freeze {run.train.init.freeze}: all of this network's weights come from "
            f"{run.train.init.from_}, so nothing is left to train: set it to 0"
        )
    # DDP fixes the trainable parameters when it is created.
    run.network = _network(run.model, run.params, run.worker)


def _validate(run: _Run, val: Split, batches: Batches, speed: Speed, share: float, half: float) -> None:
    """Validate, save the weights if they are the best so far, and report metrics.

    Args:
        run: The training, which is changed.
        val: The validation split.
        batches: The batches of the present epoch, or of the one that it ended.
        speed: Measures the speed of training.
        share: Finished share of the present epoch.
        half: Half of an update's share of an epoch, as the learning rate is that of an update's middle.
    """
    task, params, worker, train = run.task, run.params, run.worker, run.train
    sums, count = run.sums.total()
    if not all(bool(each.isfinite().all()) for each in sums.values()):
        raise PedigreeError(
            f"training diverged in epoch {math.ceil(run.epoch + share)}, as the loss is not finite: "
            f"lower train.optimizer.lr (now {train.optimizer.lr}) or set train.clip_norm"
        )
    _wait_for_disk(run)  # together, before rank 0 would wait for it in `save_best`
    network = run.evaluated
    if run.update < norms.SETTLED and (learning := norms.learning(run.model)):
        network = norms.with_own_statistics(task, params, network, learning, batches, worker.device)
    _same_buffers(run, network)
    scores = evaluate(task, params, network, val, worker.device, train.batch_size)
    _keep_best(run, network, scores)
    run.trained += run.seconds
    metrics = {
        "epoch": run.epoch + share,
        "update": run.update,
        **{f"train/{name}": value for name, value in metrics_of(task, sums, count).items()},
        **{f"val/{name}": value for name, value in scores.items()},
        "train/lr": learning_rate(train, (run.epoch + share - half) / train.epochs),
        **speed.of(count, run.seconds),
        "speed/seconds_of_training": run.trained,
    }
    run.history.append(metrics)
    run.sums, run.seconds = Sums(), 0.0
    if not share:
        _save(run)
        _wait_for_disk(run)  # before it is reported: a reported epoch is never recomputed
    picture = _snapshot(run, network)
    worker.emit({"kind": "validation", "epochs": train.epochs, "metrics": metrics, "snapshot": picture})


def _snapshot(run: _Run, network: nn.Module) -> str:
    """Write a picture of what a validated network makes; return its path below the training's folder, or ""."""
    if run.task.snapshot is None or run.worker.rank:
        return ""
    file = run.folder / SNAPSHOTS / f"{run.update:06d}.png"
    file.parent.mkdir(exist_ok=True)
    run.task.snapshot(network, run.manifest, run.params, file)
    return file.relative_to(run.folder).as_posix()


def _begin(
    task: Task[Any, Any],
    params: TaskParams,
    prepared: Prepared,
    split: Split,
    folder: Path,
    worker: Worker,
    sources: Sources,
) -> _Run:
    """Return a new training, or the one restored from its last checkpoint, and report its start."""
    train = params.train
    torch.manual_seed(train.seed)
    model = task.build_model(params, prepared.manifest)
    frozen = initialise(task, params, model, split, sources)
    model = placed(model, worker.device)
    optimizers = build_optimizers(model, train.optimizer, train.init.layer_decay)
    average = build_average(model, train.average)
    control = dist.new_group(backend="gloo") if worker.world > 1 else None
    found = _last_checkpoint(folder, worker, control)
    if found:
        _restore(model, optimizers, average, found[1])
    run = _Run(
        task=task,
        params=params,
        worker=worker,
        manifest=prepared.manifest,
        folder=folder,
        model=model,
        network=_network(model, params, worker),
        frozen=frozenset(name for name, p in model.named_parameters() if name in frozen and p.requires_grad),
        optimizers=optimizers,
        average=average,
        writer=checkpoint.CheckpointWriter(folder),
        control=control,
    )
    if found:
        _resume(run, *found)
    first = (
        (task.train_batches or shuffled)(split, params, Shard(0, worker.rank, worker.world)) if train.epochs else ()
    )
    worker.emit(
        {
            "kind": "start",
            "updates": train.epochs * len(first),
            "device": described(worker.device, run.precision),
            "world": worker.world,
            "resumed": found and {"update": run.update, "epoch": run.epoch, "world": found[0].world},
            "history": run.history,
        }
    )
    return run


def _network(model: nn.Module, params: TaskParams, worker: Worker) -> nn.Module:
    accumulates = worker.world > 1 or params.train.accumulate > 1
    network = compiled(model, worker.device, accumulates) if params.train.compile else model
    if worker.world == 1:
        return network
    # Buffers are rank 0's in validation and in checkpoints, and a network in training mode does not read its own.
    return DistributedDataParallel(network, forward_sync_buffers=False, gradient_as_bucket_view=True)


def _last_checkpoint(
    folder: Path, worker: Worker, control: Any
) -> tuple[checkpoint.TrainingState, dict[str, Tensor]] | None:
    """Load the checkpoint that rank 0 finds: in a shared folder other hosts may not see the latest one yet."""
    name = [checkpoint.latest(folder) if worker.rank == 0 else ""]
    if control is not None:
        dist.broadcast_object_list(name, 0, group=control)
    return checkpoint.load(folder, name[0]) if name[0] else None


_MODEL, _AVERAGE, _OPTIMIZER, _SUMS, _CARRY = "model", "average", "optimizer", "sums", "carry"


def _restore(
    model: nn.Module, optimizers: list[Optimizer], average: Average | None, tensors: dict[str, Tensor]
) -> None:
    model.load_state_dict(_below(tensors, _MODEL))
    if average is not None:
        average.load_state_dict(_below(tensors, _AVERAGE))
    for number, optimizer in enumerate(optimizers):
        checkpoint.restore_optimizer(optimizer, _below(tensors, f"{_OPTIMIZER}{number}"))


def _resume(run: _Run, state: checkpoint.TrainingState, tensors: dict[str, Tensor]) -> None:
    """Restore the run from a checkpoint; with another number of workers, reshard sums and carried state."""
    rank, world, device = run.worker.rank, run.worker.world, run.worker.device
    parts = checkpoint.unpack_shards(_below(tensors, _CARRY), state.world)
    run.carry = to_device(checkpoint.resharded(parts, rank, world), device)
    sums = [Sums(to_device(part, device)) for part in checkpoint.unpack_shards(_below(tensors, _SUMS), state.world)]
    run.sums = sums[rank] if state.world == world else Sums.joined(sums) if rank == 0 else Sums.joined(sums).zero()
    run.update, run.epoch, run.batch = state.update, state.epoch, state.batch
    run.score, run.writer.best = state.score, state.best
    run.validations_without_improvement = state.validations_without_improvement
    run.seconds, run.trained, run.history = state.seconds, state.trained, state.history


def _save(run: _Run) -> None:
    """Start writing a checkpoint on rank 0, including the shards of all workers."""
    run.writer.wait()  # before the exchange, where the other workers wait for rank 0 without a GPU timeout
    mine = {_SUMS: run.sums.tensors(), _CARRY: run.carry}
    parts: list[dict[str, Batch] | None] = [mine]
    if run.control is not None:
        parts = [None] * run.worker.world
        mine = {what: {name: tensor.cpu() for name, tensor in batch.items()} for what, batch in mine.items()}
        dist.gather_object(mine, parts if run.worker.rank == 0 else None, group=run.control)
    if run.worker.rank == 0:
        tensors = _named(_MODEL, run.model.state_dict())
        tensors |= _named(_AVERAGE, run.average.state_dict() if run.average is not None else {})
        for number, optimizer in enumerate(run.optimizers):
            tensors |= _named(f"{_OPTIMIZER}{number}", checkpoint.optimizer_tensors(optimizer))
        for what in (_SUMS, _CARRY):
            tensors |= _named(what, checkpoint.pack_shards([part[what] for part in parts if part is not None]))
        run.writer.save(_state(run), tensors)
    run.saved_at = time.monotonic()


def _wait_for_disk(run: _Run) -> None:
    """Wait until rank 0's checkpoint is written, in the gloo group: NCCL might time out on a slow disk."""
    run.writer.wait()
    if run.control is not None:
        dist.barrier(group=run.control)


def _state(run: _Run) -> checkpoint.TrainingState:
    return checkpoint.TrainingState(
        update=run.update,
        epoch=run.epoch,
        batch=run.batch,
        world=run.worker.world,
        score=run.score,
        validations_without_improvement=run.validations_without_improvement,
        best=run.writer.best,
        seconds=run.seconds,
        trained=run.trained,
        history=run.history,
    )


def _named(what: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{what}.{name}": tensor for name, tensor in tensors.items()}


def _below(tensors: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """Undo `_named`."""
    return {name.removeprefix(f"{what}."): each for name, each in tensors.items() if name.startswith(f"{what}.")}


def _train(run: _Run, batches: Batches, end: int) -> None:
    """Train on the batches of an epoch up to index `end`."""
    _training_mode(run)
    allow_tf32(run.worker.device, run.precision == "bf16")  # for what autocast leaves in fp32
    progress = Progress(run.worker, run.epoch, run.train.epochs, begin=run.batch / len(batches))
    before, started = run.seconds, time.monotonic()
    while run.batch < end:
        # The middle of an update, so that neither the first nor the last one has learning rate zero.
        share = (run.epoch + (run.batch + 0.5) / len(batches)) / run.train.epochs
        batch = to_device(batches[run.batch], run.worker.device) | run.carry
        sums, run.carry = _update(run, batch, share)
        run.batch += 1
        run.sums.add(sums)
        progress.report(run.batch / len(batches), sums)
        run.seconds = before + time.monotonic() - started
        if _due(run):
            _save(run)
            if problem := run.worker.problem():
                _wait_for_disk(run)
                raise PedigreeError(problem)
    if run.worker.device.type == "cuda":
        torch.cuda.synchronize(run.worker.device)  # so that the seconds are those of the computation
    run.seconds = before + time.monotonic() - started


def _training_mode(run: _Run) -> None:
    """Switch to training mode, except for the running statistics of completely frozen modules."""
    run.network.train()
    if run.epoch >= run.train.init.freeze:
        return
    for prefix, module in run.model.named_modules():
        weights = dict(module.named_parameters(prefix))
        if run.frozen.isdisjoint(weights) or any(each.requires_grad for each in weights.values()):
            continue
        for part in module.modules():
            # cuDNN computes no gradient through a recurrent layer in evaluation mode, and that has no statistics.
            if any(True for _ in part.buffers(recurse=False)):
                part.training = False


def _due(run: _Run) -> bool:
    """Return whether a checkpoint is due, by rank 0's clock so that all workers agree on the update.

    The workers wait for each other when they ask, so they do so only about every `ASK_SECONDS`. The answer includes
    the number of updates until the next question, which rank 0 estimates from the time of the last ones.
    """
    if run.update < run.ask_at:
        return False
    now = time.monotonic()
    due = now - run.saved_at >= run.train.checkpoint_seconds or bool(run.worker.problem())
    if run.control is None:
        return due
    update, then = run.asked
    updates = min(ASK_SECONDS, run.train.checkpoint_seconds) * (run.update - update) / max(now - then, 1e-9)
    answer = torch.tensor([due, max(int(updates), 1)])
    dist.broadcast(answer, 0, group=run.control)
    run.asked, run.ask_at = (run.update, now), run.update + int(answer[1])
    return bool(answer[0])


def _update(run: _Run, batch: Batch, share: float) -> tuple[Sums, Batch]:
    """Make one optimizer update from this worker's part of a batch, micro-batch by micro-batch.

    The gradient is that of the summed loss divided by the count of the whole update: over all micro-batches and
    workers, however unequal their counts.

    Args:
        run: The training, which is changed.
        batch: The batch, with the state carried over from the previous one.
        share: Finished share of the training.

    Returns:
        Sums, and the state to carry over to the next batch.
    """
    _seed(run.train.seed, run.update, run.worker.rank)
    micro_batches = _micro_batches(batch, run.train.accumulate)
    alone = len(micro_batches) == 1 and run.worker.world == 1
    outputs: list[StepOutput] = []
    sums = Sums()
    augment = run.task.augment or _unchanged
    rate = learning_rate(run.train, share)
    for number, micro_batch in enumerate(micro_batches, start=1):
        changed = augment(micro_batch, run.params)  # in fp32: bf16 has too few bits for the coordinates of pixels
        with _without_exchange(run.network) if number < len(micro_batches) else nullcontext():
            with autocast(run.worker.device, run.precision):
                output = run.task.step(run.network, changed, run.params)
            # With a single micro_batch the count is known now, which saves a pass over the gradients.
            (output.loss / at_least_one(output.count) if alone else output.loss).backward()
        outputs.append(output)
        sums.add(Sums.of_step(output))
    if not alone:
        _divide_gradients(run, sums.count)
    if run.train.clip_norm:
        nn.utils.clip_grad_norm_(run.model.parameters(), run.train.clip_norm)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * outputs[0].rate * group.get(LAYER_FACTOR, 1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if run.average is not None and share >= run.train.average.start:
        run.average.update()
    run.update += 1
    carry = {name: torch.cat([each.carry[name] for each in outputs]) for name in outputs[0].carry}
    return sums, carry


def _unchanged(batch: Batch, params: TaskParams) -> Batch:
    return batch


def _divide_gradients(run: _Run, count: Tensor) -> None:
    """Divide the gradients by the count over all workers; with several, DDP has already averaged their sums."""
    total = count.to(torch.float64)
    if run.worker.world > 1:
        total = total.clone()
        dist.all_reduce(total)
    factor = run.worker.world / total.clamp(min=1)
    gradients = [p.grad for p in run.model.parameters() if p.grad is not None]
    if gradients:
        torch._foreach_mul_(gradients, factor.to(gradients[0].dtype))


def _seed(seed: int, update: int, rank: int) -> None:
    torch.manual_seed(((seed * 1_000_003 + update) * 4099 + rank) % 2**63)


def _micro_batches(batch: Batch, number: int) -> list[Batch]:
    chunks = {name: tensor.chunk(number) for name, tensor in batch.items()}
    return [dict(zip(chunks, micro_batch, strict=True)) for micro_batch in zip(*chunks.values(), strict=True)]


def _without_exchange(network: nn.Module) -> AbstractContextManager[None]:
    """Accumulate gradients locally, as workers exchange them once per update."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


def _same_buffers(run: _Run, network: nn.Module) -> None:
    """Copy rank 0's statistics of a network to all workers, each of which has seen different samples."""
    if run.worker.world > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


def _keep_best(run: _Run, network: nn.Module, scores: dict[str, float]) -> None:
    """Save a network's weights if its scores are the best so far."""
    metric = run.train.best_metric
    score = scores[metric] if run.task.better[metric] == "more" else -scores[metric]
    # The first weights are saved even if their score is NaN, and any number is better than NaN.
    if run.score is None or math.isnan(run.score) or score > run.score:
        run.score, run.validations_without_improvement = score, 0
        if run.worker.rank == 0:
            run.writer.save_best(run.update, network)
    else:
        run.validations_without_improvement += 1
