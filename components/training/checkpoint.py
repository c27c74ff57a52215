"""All that a training needs to go on: one file of named tensors, whole or not at all, known by its hash.

A file is `<update>-<epoch>-<SHA-256>.safetensors`. What is no tensor is JSON in its header (`__metadata__` in
huggingface.co/docs/safetensors), so that nothing that is read can run code.
"""

import logging
import re
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from components import files
from components.background import in_thread
from components.contracts import Batch
from components.errors import DamagedError
from components.training import saved

log = logging.getLogger("pedigree.train")

FOLDER = "checkpoints"
KEPT = 2
"""Checkpoints: should the last one be damaged, there is the one before."""
_STATE = "state"
_NAME = re.compile(r"\d+-\d+-([0-9a-f]{64})\.safetensors")


class Best(BaseModel):
    """The weights that are the best so far: their file in the training's folder."""

    model_config = ConfigDict(frozen=True)

    file: str
    sha256: str


class Place(BaseModel):
    """Where a training is, and what it has found so far."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    update: int
    """Updates made so far."""
    epoch: int
    """Epochs that are over."""
    batch: int
    """Batches of this epoch that are over."""
    world: int
    score: float | None
    """The best one so far, more being better."""
    epochs_without_better: int
    best: Best | None
    seconds: float
    """Of this epoch's training."""
    trained: float
    """Seconds of all epochs' training."""
    names: list[str]
    """Of the sums so far."""
    history: list[dict[str, float]] = Field(description="One row an epoch")


class Keeper:
    """Writes the checkpoints of a training, one after the other, while the training goes on.

    A disk may take seconds for each, in which the processors have nothing to do with it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writing: Future[None] | None = None

    def save(self, place: Place, tensors: dict[str, Tensor]) -> None:
        """Begin to write a checkpoint, when the one before is written, and to let go of all but the last two.

        Args:
            place: Where the training is.
            tensors: By name; they may share memory, and are copied before this returns.

        Raises:
            OSError: the one before could not be written.
        """
        self.wait()
        own = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
        self._writing = in_thread(partial(_write, self._folder, place, own), "checkpoint")

    def wait(self) -> None:
        """Return when what was begun is flushed to disk.

        Raises:
            OSError: it could not be written.
        """
        if self._writing is not None:
            wait([self._writing])  # who is interrupted here waits once more, at the end of the block
            writing, self._writing = self._writing, None
            writing.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writing is not None:  # whatever ended the training, its last checkpoint may still be of use
            wait([self._writing])


def _write(folder: Path, place: Place, own: dict[str, Tensor]) -> None:
    target = folder / FOLDER
    target.mkdir(exist_ok=True)
    with files.new_beside(target / "checkpoint") as new:
        with saved.written(new):
            save_file(own, new, {_STATE: place.model_dump_json()})
        file = target / f"{place.update:09d}-{place.epoch:06d}-{files.sha256(new)}.safetensors"
        files.publish(new, file)
    for passed_over in _files(folder):  # damaged ones, from before which the training has gone on
        if passed_over != file and _moment(passed_over) >= _moment(file):
            passed_over.unlink()
    _let_go(folder)


def _moment(file: Path) -> str:
    """Return what of a name is in the order of time: update and epoch."""
    return file.name.rpartition("-")[0]


def _let_go(folder: Path) -> None:
    """Remove checkpoints before the last two, and best weights that neither of these names."""
    for old in _files(folder)[KEPT:]:
        old.unlink()
    named = {place.best.file for file in _files(folder) if (place := _place(file)) and place.best}
    for weights in folder.glob("best-*.safetensors"):
        if weights.name not in named:
            weights.unlink()


def latest(folder: Path) -> str:
    """Return the name of the last checkpoint that is as it was written, or nothing where there is none.

    One that is damaged, or whose best weights are, is passed over for the one before it.
    """
    for file in _files(folder):
        with suppress(OSError):  # a bad sector is damage, too
            if _whole(file) and (place := _place(file)) and _intact(folder, place):
                return file.name
        log.warning("%s is damaged, so it is not used", file)
    return ""


def load(folder: Path, name: str) -> tuple[Place, dict[str, Tensor]]:
    """Return what the checkpoint of this name holds, its tensors on the CPU.

    Raises:
        DamagedError: this worker does not find it as it was written.
    """
    file = folder / FOLDER / name
    place = _place(file) if file.is_file() and _whole(file) else None
    if place is None:
        raise DamagedError(f"{file} is not there as it was written: run the same command again")
    with safe_open(file, "pt") as opened:
        return place, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping


def _whole(file: Path) -> bool:
    found = _NAME.fullmatch(file.name)
    return found is not None and files.sha256(file) == found.group(1)


def _files(folder: Path) -> list[Path]:
    """Return the checkpoints, the last one first."""
    return sorted((file for file in (folder / FOLDER).glob("*.safetensors")), reverse=True)


def _place(file: Path) -> Place | None:
    try:
        with safe_open(file, "pt") as opened:
            return Place.model_validate_json((opened.metadata() or {}).get(_STATE, ""))
    except (SafetensorError, ValidationError, OSError):
        return None


def _intact(folder: Path, place: Place) -> bool:
    if place.best is None:
        return True
    weights = folder / place.best.file
    return weights.is_file() and files.sha256(weights) == place.best.sha256


def keep_parts(parts: list[Batch]) -> dict[str, Tensor]:
    """Return every worker's part, by rank, as tensors for one checkpoint."""
    return {f"{rank}.{name}": tensor for rank, part in enumerate(parts) for name, tensor in part.items()}


def parts_of(tensors: dict[str, Tensor], world: int) -> list[Batch]:
    """Return what `keep_parts` was given, by rank."""
    return [
        {name.removeprefix(f"{rank}."): tensor for name, tensor in tensors.items() if name.startswith(f"{rank}.")}
        for rank in range(world)
    ]


def dealt(parts: list[Batch], rank: int, world: int) -> Batch:
    """Return the share of `rank` among `world` workers of what another number of workers had, sample by sample.

    As everywhere, of n samples the workers have `[rank::world]`.
    """
    if len(parts) == world:
        return parts[rank]
    dealt: Batch = {}
    for name, first in parts[0].items():
        whole = first.new_empty((sum(len(part[name]) for part in parts), *first.shape[1:]))
        for number, part in enumerate(parts):
            whole[number :: len(parts)] = part[name]
        dealt[name] = whole[rank::world].contiguous()
    return dealt


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's state as `<parameter's place>.<name>`; its numbers come from the parameters."""
    state = optimizer.state_dict()["state"]
    return {f"{place}.{name}": value for place, names in state.items() for name, value in _tensors(names)}


def _tensors(names: dict[str, object]) -> Iterator[tuple[str, Tensor]]:
    for name, value in names.items():
        if isinstance(value, Tensor):
            yield name, value
        else:
            assert value is None, f"an optimizer that keeps {name} as {type(value).__name__}"


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give back what `optimizer_tensors` took, in the parameters' memory format: kernels walk both at once."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        place, name = key.split(".", 1)
        like = parameters[int(place)]
        value = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor) if tensor.shape == like.shape else tensor
        state.setdefault(int(place), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
