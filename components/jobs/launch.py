"""Runs the heavy work of a stage in this process or on Ray workers."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from components.contracts import Event, Worker
from components.training import device
from components.training.receiver import Receiver


def run(
    work: Callable[[Worker], None],
    workers: int,
    folder: Path,
    on_event: Callable[[Event], None],
    name: str,
    gpus: Sequence[str],
    retries: int = 0,
) -> None:
    """Run `work` on every worker and pass on rank 0's events; return when all are done.

    Args:
        work: A module-level function, or a partial of one, so that it can be sent to the workers.
        workers: Number of workers; 0 runs `work` in this process, without Ray.
        folder: Absolute path, visible to all workers, of events and Ray's files.
        on_event: Receives each event, with workers in a thread of this process.
        name: Name of the Ray run. Ray would silently resume a run of the same name in this folder.
        gpus: A GPU of this machine for each worker, as in `device.gpus`; empty if there is none, or on a cluster.
        retries: How often `work` is restarted on all workers after one of them, or Ray itself, dies.

    Raises:
        PedigreeError: a worker raised one, or workers died more often than `retries` allows.
        Exception: `on_event` raised it; a training has written a checkpoint before it ended.
    """
    receiver = Receiver(on_event)
    if workers == 0:
        with receiver.raising():
            _run_here(work, receiver, device.first_of(gpus))
    else:
        from components.adapters import ray_train  # importing Ray takes a second

        with receiver.raising():
            ray_train.run(work, workers, folder, receiver, name, gpus, retries)


def _run_here(work: Callable[[Worker], None], receiver: Receiver, own: torch.device) -> None:
    device.settle(own)
    try:
        work(Worker(own, emit=receiver.receive, problem=receiver.problem))
    finally:
        device.release(own)  # this process may live for hours


def here(workers: int) -> bool:
    """Return whether this number of workers would run on this machine, not on a Ray cluster."""
    if workers == 0:
        return True
    from components.adapters import ray_cluster

    return ray_cluster.ours()
