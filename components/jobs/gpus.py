"""Which GPUs of this machine a training or an evaluation computes on.

Each process of a checkout has a Ray of its own, which would count all of them: locks divide them. Without a GPU,
one training runs at a time. On a cluster (RAY_ADDRESS), Ray divides them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from components.errors import PedigreeError
from components.jobs import launch
from components.models import Model
from components.runtime import locks, presence
from components.training import device

ACCELERATOR = Path("build", ".accelerator.lock")
"""Below the project's folder. A training on the CPU holds it."""
TURN = Path("build", ".gpus.lock")
"""Below the project's folder. The first of those who wait for GPUs holds it."""


@contextmanager
def of_training(model: Model) -> Iterator[Sequence[str]]:
    """Wait for what a model's training computes on, a GPU for each worker or else the CPU, and hold it.

    Without an epoch, nothing is waited for. The block gets the names of the GPUs, as in `device.gpus`; none on the
    CPU, or if Ray divides them.

    Raises:
        PedigreeError: there are fewer GPUs than workers, but there is one.
    """
    workers, doing = model.params.train.workers, f"the training of {model.name}"
    if not model.params.train.epochs:
        yield ()
    elif launch.here(workers) and not device.gpus():
        with locks.alone(model.root / ACCELERATOR, doing):
            yield ()
    else:
        with some(model.root, workers, doing) as names:
            yield names


@contextmanager
def of_evaluation(model: Model) -> Iterator[Sequence[str]]:
    """Do the same for an evaluation, of which any number run on the CPU at a time."""
    with some(model.root, model.params.evaluate.workers, f"the evaluation of {model.name}") as names:
        yield names


@contextmanager
def some(root: Path, workers: int, doing: str) -> Iterator[Sequence[str]]:
    """Wait for a GPU for each worker, and hold them; the block gets their names, none if the machine has no GPU.

    Raises:
        PedigreeError: there are fewer GPUs than workers, but there is one.
    """
    present, needed = _present(root, workers), max(workers, 1)
    if not present:
        yield ()
        return
    if needed > len(present):
        raise PedigreeError(
            f"{needed} workers need a GPU each, and this process has {len(present)}: use fewer workers, or set "
            f"{device.VISIBLE} to an empty text to compute on the CPU"
        )
    with locks.some(present, needed, root / TURN, doing) as names:
        presence.end_orphans(root)  # the workers of a process that was killed may still fill a GPU's memory
        yield names


def _present(root: Path, workers: int) -> Mapping[str, Path]:
    """Return the GPUs that this process divides with others, each with its lock."""
    names = device.gpus() if launch.here(workers) else ()
    # MIG-GPU-<UUID>/1/0 is the name of a part of a GPU.
    return {name: root / "build" / f".gpu-{name.replace('/', '-')}.lock" for name in names}
