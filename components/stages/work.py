"""Where the heavy work of a stage runs: in this very process, or on Ray's workers."""

from collections.abc import Callable
from pathlib import Path

from components.background import in_thread
from components.contracts import Event, Workers
from components.training import device


def run(
    work: Callable[[Workers], None],
    workers: int,
    folder: Path,
    on_event: Callable[[Event], None],
    name: str,
    retries: int = 0,
) -> None:
    """Run `work` on every worker and pass on what rank 0 tells; return when all are done.

    Args:
        work: A module-level function, or a partial of one: it is sent to the workers.
        workers: How many; 0 runs it in this very process, without Ray.
        folder: Absolute, seen by all workers; holds the events and Ray's own files.
        on_event: Told of each event, on workers in a thread of this process.
        name: Of Ray's run. One that was used before in this folder would silently be resumed.
        retries: How often `work` is started again on all workers when one of them died, or Ray itself.

    Raises:
        PedigreeError: a worker raised one, or died once too often.
    """
    if workers == 0:
        work(Workers(device.default(), emit=on_event))
    else:
        from components.adapters import ray_train  # Ray is a second of imports

        ray_train.run(work, workers, folder, on_event, name, retries)


def begin(workers: int) -> None:
    """Begin to start what `run` needs, beside something else: Ray takes seconds."""
    if workers:
        in_thread(_begin, "ray-begin")


def _begin() -> None:
    from components.adapters import ray_train

    ray_train.begin()


def here(workers: int) -> bool:
    """Tell whether so many workers would be on this machine, and not on a cluster of Ray's."""
    if workers == 0:
        return True
    from components.adapters import ray_cluster

    return ray_cluster.ours()
