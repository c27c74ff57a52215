"""Ray Train: the workers that training runs on; ray_cluster has the Ray that they are on. Nobody else meets Ray.

Workers tell of their progress in a file of JSON lines, which the driver follows: a report to Ray's controller
would wait for its next poll, and what a worker prints is lost when it dies.
"""

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# Before Ray itself, which reads its settings when it is imported.
from components.adapters import ray_cluster

# isort: split
import ray
import ray.exceptions
import ray.train
import ray.train.torch
import torch
from ray import cloudpickle

from components import processes
from components.adapters.ray_controller import NoRetryOfMistakes, sentence_in
from components.background import in_thread
from components.contracts import Event, Workers
from components.errors import PedigreeError

log = logging.getLogger("pedigree.ray")

EVENTS = "events.jsonl"

Work = Callable[[Workers], None]


def run(
    work: Work, workers: int, folder: Path, on_event: Callable[[Event], None], name: str, retries: int = 0
) -> None:
    """Run `work` on every worker and pass on what rank 0 tells; return when all are done.

    Args:
        work: A module-level function, or a partial of one: it is sent to the workers.
        workers: How many, at least 1.
        folder: Absolute, seen by all workers; holds the events and Ray's own files.
        on_event: Called in a thread of this process.
        name: Of Ray's run. One that was used before in this folder would silently be resumed.
        retries: How often `work` is started again on all workers when one of them died, or Ray itself.

    Raises:
        PedigreeError: a worker raised one, or died once too often.
    """
    for attempt in range(retries + 1):
        own = folder / f"{attempt}"
        own.mkdir()
        try:
            _run(work, workers, own, on_event, name, retries)
        except Exception as error:
            if not _of_ray(error):
                raise
            if attempt == retries:
                raise _cause(error) from error
            log.warning("Ray itself ended (%s): it is started again", str(error).strip().split("\n")[0][:200])
            ray.shutdown()
            processes.end_noted(_notes())
        else:
            return


def begin() -> None:
    """Start Ray on this machine beside something else, for the `run` that follows; a cluster has its own already.

    Ray's programs end with the thread that started them (prctl(2), PR_SET_PDEATHSIG), so that one stays.
    """
    if ray_cluster.ours() and not ray.is_initialized():
        with suppress(Exception):  # `run` tries again, and says what there is to say
            _connect()
        if ray.is_initialized():
            threading.Event().wait()


def _connect() -> float:
    gpus = ray_cluster.connect()
    if ray_cluster.ours():
        processes.note(_notes(), ray_cluster.started())
    return gpus


def _notes() -> Path:
    return processes.notes(Path.cwd(), "ray")


def _of_ray(error: Exception) -> bool:
    """Tell whether Ray ended, and not what it ran; when its programs do not start it raises a plain Exception.

    A raylet that dies while Ray's controller asks something of a worker is an error of the controller.
    """
    if isinstance(error, ray.train.ControllerError):
        return sentence_in(error.controller_failure) is None and _of_ray(error.controller_failure)
    return isinstance(error, ray.exceptions.RayError | ConnectionError) or type(error) is Exception


def _run(
    work: Work, workers: int, folder: Path, on_event: Callable[[Event], None], name: str, retries: int
) -> None:
    storage = folder / ".ray"
    gpus = _connect()
    notes = _notes() if ray_cluster.ours() else None
    with_gpu = gpus >= workers
    cpus = ray_cluster.cpus_each(workers)
    trainer = ray.train.torch.TorchTrainer(
        _worker,
        train_loop_config={
            "work": cloudpickle.dumps(work),  # the controller loads all but this
            "events": str(folder / EVENTS),
            "cwd": str(Path.cwd()),
            "notes": notes and str(notes),
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=with_gpu,
            resources_per_worker={"CPU": cpus} | ({"GPU": 1} if with_gpu else {}),
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(storage),
            failure_config=ray.train.FailureConfig(max_failures=retries),
            callbacks=[NoRetryOfMistakes()],  # type: ignore[list-item]
        ),
        torch_config=ray_cluster.torch_config(storage, with_gpu),
    )
    with _following(folder / EVENTS, on_event):
        try:
            _interruptibly(trainer.fit)
        except ray.train.TrainingFailedError as error:
            # Of workers that died while they were started Ray keeps the CPUs, and the next training would wait for
            # these for ever (2.60, ray/train/v2/_internal/execution/worker_group/worker_group.py, `_start`).
            ray.shutdown()
            if _of_ray(error):
                raise
            raise _cause(error) from error
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C, or Prefect's word for it: no worker goes on without us
                ray.shutdown()
            raise


def _interruptibly(call: Callable[[], object]) -> None:
    """Call in another thread: in the main one Ray would take Ctrl-C for itself, as long as the process lives."""
    in_thread(call, "ray-fit").result()


def _worker(config: dict[str, Any]) -> None:
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    events = Path(config["events"])
    os.chdir(config["cwd"])  # Ray starts workers elsewhere, and a parameter may name a file from here

    def emit(event: Event) -> None:
        # A line of its own, even after a worker that died in the middle of one.
        with events.open("a") as file:
            file.write(f"\n{json.dumps(event)}\n")

    if config["notes"]:
        processes.note(Path(config["notes"]), processes.tree(os.getpid()))
    device = ray.train.torch.get_device()
    assert isinstance(device, torch.device)
    work: Work = cloudpickle.loads(config["work"])
    work(Workers(device, rank, world, emit if rank == 0 else lambda event: None))


@contextmanager
def _following(file: Path, on_event: Callable[[Event], None]) -> Iterator[None]:
    """Pass on each line that is appended to `file` while the block runs, the last ones included."""
    done = threading.Event()
    file.touch()

    def follow() -> None:
        place, rest = 0, ""
        while True:
            last = done.is_set()
            # Opened anew each time, for only then a network's file system shows what another host wrote (nfs(5)).
            try:
                with file.open() as lines:
                    lines.seek(place)
                    *complete, rest = (rest + lines.read()).split("\n")
                    place = lines.tell()
            except OSError:  # a shared folder that is away for a while
                if last:
                    raise
                complete = []
            for event in filter(None, map(_event, complete)):
                on_event(event)
            if last:
                return
            done.wait(0.2)

    outcome = in_thread(follow, "follow-events")
    try:
        yield
    except BaseException:
        done.set()
        wait([outcome])
        raise
    done.set()
    outcome.result()


def _event(line: str) -> Event | None:
    """Return the event of a line; there is none in an empty one, and in the last words of a worker that died."""
    with suppress(json.JSONDecodeError):
        event: Event = json.loads(line)
        return event
    return None


def _cause(error: BaseException) -> Exception:
    """Return what a worker raised for people, else the failure itself."""
    failures = getattr(error, "worker_failures", None) or {}
    for failure in [*failures.values(), getattr(error, "controller_failure", None), error]:
        text = sentence_in(failure)
        if text is not None:
            return PedigreeError(text)
    last = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return PedigreeError(
        f"a training worker failed: {last[-1].strip()}; run the same command again to go on from the last "
        "checkpoint, or with --debug for more"
    )
