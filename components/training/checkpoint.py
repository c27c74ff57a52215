"""Checkpoints: everything that a training needs to resume, in one atomically written file named by its hash.

A file is `<update>-<epoch>-<SHA-256>.safetensors`. Everything but tensors is JSON in its header (`__metadata__` in
huggingface.co/docs/safetensors), so that loading cannot run code.
"""

import logging
import re
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from components.contracts import Batch
from components.errors import DamagedError
from components.runtime import files
from components.runtime.background import in_thread
from components.training import model_files

log = logging.getLogger("pedigree.train")

FOLDER = "checkpoints"
KEEP = 2
"""Number of checkpoints to keep: if the last one is damaged, training resumes from the one before."""
_STATE = "state"
_NAME = re.compile(r"\d+-\d+-([0-9a-f]{64})\.safetensors")


class Best(BaseModel):
    """The best weights so far: their file in the training's folder."""

    model_config = ConfigDict(frozen=True)

    file: str
    sha256: str


class TrainingState(BaseModel):
    """The state of a training, without its tensors."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    update: int
    """Updates made so far."""
    epoch: int
    """Finished epochs."""
    batch: int
    """Finished batches of the present epoch."""
    world: int
    score: float | None
    """The best score so far, signed so that more is better."""
    validations_without_improvement: int
    best: Best | None
    seconds: float
    """Seconds of training since the last validation."""
    trained: float
    """Seconds of training before the last validation."""
    history: list[dict[str, float]] = Field(description="One row per validation")


class CheckpointWriter:
    """Writes checkpoints and best weights one after the other in the background, as a disk may take seconds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writing: Future[Best | None] | None = None
        self.best: Best | None = None
        """The best weights on disk, up to date after `wait`."""

    def save_best(self, update: int, model: nn.Module) -> None:
        """Wait for what is being written, then start writing a model's weights, which are the best so far.

        Args:
            update: Updates made so far.
            model: The model, which may change as soon as this returns.

        Raises:
            OSError: what was being written could not be.
        """
        self.wait()
        file = self._folder / f"best-{update:09d}.safetensors"
        self._writing = in_thread(partial(_write_best, file, deepcopy(model)), "best")

    def save(self, state: TrainingState, tensors: dict[str, Tensor]) -> None:
        """Wait for what is being written, then start writing a checkpoint and removing all but the last two.

        Args:
            state: The state of the training.
            tensors: Tensors by name, which may share memory. They may change as soon as this returns.

        Raises:
            OSError: what was being written could not be.
        """
        self.wait()
        own, copied = _copies(tensors)
        self._writing = in_thread(partial(_write, self._folder, state, own, copied), "checkpoint")

    def wait(self) -> None:
        """Wait until everything is on disk.

        Raises:
            OSError: it could not be written.
        """
        if self._writing is not None:
            wait([self._writing])  # if interrupted here, `__exit__` waits again
            writing, self._writing = self._writing, None
            self.best = writing.result() or self.best

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writing is not None:  # however training ended, its last checkpoint may be needed to resume
            wait([self._writing])


def _copies(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], torch.cuda.Event | None]:
    """Copy tensors to the CPU; return the copies, and the event until which copies from a GPU are incomplete.

    torch makes these in pinned memory, without waiting for the GPU (Tensor.to, `non_blocking`). The GPU makes them
    before anything that it is given later, which may change the tensors.
    """
    own = {name: tensor.detach().to("cpu", copy=True, non_blocking=True) for name, tensor in tensors.items()}
    if not any(tensor.is_cuda for tensor in tensors.values()):
        return own, None
    event = torch.cuda.Event()
    event.record()
    return own, event


def _write_best(file: Path, model: nn.Module) -> Best:
    model_files.save_weights(file, model.cpu())  # the copy leaves the memory of a GPU first
    return Best(file=file.name, sha256=files.sha256(file))


def _write(folder: Path, state: TrainingState, own: dict[str, Tensor], copied: torch.cuda.Event | None) -> None:
    if copied is not None:
        copied.synchronize()
    target = folder / FOLDER
    target.mkdir(exist_ok=True)
    with files.new_beside(target / "checkpoint") as new:
        with model_files.written(new):
            save_file(
                {name: each.contiguous() for name, each in own.items()}, new, {_STATE: state.model_dump_json()}
            )
        file = target / f"{state.update:09d}-{state.epoch:06d}-{files.sha256(new)}.safetensors"
        files.publish(new, file)
    for later in _files(folder):  # damaged checkpoints that were skipped on resume
        if later != file and _moment(later) >= _moment(file):
            later.unlink()
    _remove_old(folder)


def _moment(file: Path) -> str:
    """Return the part of a name that sorts by time: update and epoch."""
    return file.name.rpartition("-")[0]


def _remove_old(folder: Path) -> None:
    """Remove all but the last two checkpoints, and best weights that neither of them names."""
    for old in _files(folder)[KEEP:]:
        old.unlink()
    named = {state.best.file for file in _files(folder) if (state := _read_state(file)) and state.best}
    for weights in folder.glob("best-*.safetensors"):
        if weights.name not in named:
            weights.unlink()


def latest(folder: Path) -> str:
    """Return the name of the last intact checkpoint, or an empty string if there is none.

    A checkpoint is skipped if it, or its best weights, are damaged.
    """
    for file in _files(folder):
        with suppress(OSError):  # an unreadable file counts as damaged
            if _matches_name(file) and (state := _read_state(file)) and _has_best(folder, state):
                return file.name
        log.warning("%s is damaged: skipping it", file)
    return ""


def load(folder: Path, name: str) -> tuple[TrainingState, dict[str, Tensor]]:
    """Load a checkpoint by name, with its tensors on the CPU.

    Raises:
        DamagedError: it is missing or damaged as seen by this worker.
    """
    file = folder / FOLDER / name
    state = _read_state(file) if file.is_file() and _matches_name(file) else None
    if state is None:
        raise DamagedError(f"{file} is missing or damaged: run the same command again")
    with safe_open(file, "pt") as opened:
        return state, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping


def _matches_name(file: Path) -> bool:
    match = _NAME.fullmatch(file.name)
    return match is not None and files.sha256(file) == match.group(1)


def _files(folder: Path) -> list[Path]:
    """Return the checkpoints, the latest first."""
    return sorted((file for file in (folder / FOLDER).glob("*.safetensors")), reverse=True)


def _read_state(file: Path) -> TrainingState | None:
    try:
        with safe_open(file, "pt") as opened:
            return TrainingState.model_validate_json((opened.metadata() or {}).get(_STATE, ""))
    except (SafetensorError, ValidationError, OSError):
        return None


def _has_best(folder: Path, state: TrainingState) -> bool:
    if state.best is None:
        return True
    weights = folder / state.best.file
    return weights.is_file() and files.sha256(weights) == state.best.sha256


def pack_shards(parts: list[Batch]) -> dict[str, Tensor]:
    """Return the shards of all workers, by rank, as tensors for one checkpoint."""
    return {f"{rank}.{name}": tensor for rank, part in enumerate(parts) for name, tensor in part.items()}


def unpack_shards(tensors: dict[str, Tensor], world: int) -> list[Batch]:
    """Undo `pack_shards`: return the shards by rank."""
    return [
        {name.removeprefix(f"{rank}."): tensor for name, tensor in tensors.items() if name.startswith(f"{rank}.")}
        for rank in range(world)
    ]


def resharded(parts: list[Batch], rank: int, world: int) -> Batch:
    """Return the shard of worker `rank` of `world` from the shards of a different number of workers.

    As everywhere, worker `rank` has the samples `[rank::world]`.
    """
    if len(parts) == world:
        return parts[rank]
    shard: Batch = {}
    for name, first in parts[0].items():
        samples = first.new_empty((sum(len(part[name]) for part in parts), *first.shape[1:]))
        for number, part in enumerate(parts):
            samples[number :: len(parts)] = part[name]
        shard[name] = samples[rank::world].contiguous()
    return shard


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's tensors as `<parameter's index>.<name>`; hyperparameters come from params.yaml."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, names in state.items() for name, value in _tensors(names)}


def _tensors(names: dict[str, object]) -> Iterator[tuple[str, Tensor]]:
    for name, value in names.items():
        if isinstance(value, Tensor):
            yield name, value
        else:
            assert value is None, f"an optimizer that keeps {name} as {type(value).__name__}"


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore what `optimizer_tensors` returned, in the parameters' memory format, which fused kernels expect."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        like = parameters[int(index)]
        value = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor) if tensor.shape == like.shape else tensor
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
