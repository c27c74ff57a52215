"""The interface to Ray Train, which runs training workers; ray_cluster starts or joins the Ray cluster.

Workers write events to a file of JSON lines that the driver follows. Reports to Ray's controller would wait for its
next poll, and a worker's output is lost when it dies.
"""

import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# Must precede the import of Ray, which reads its settings at import.
from components.adapters import ray_cluster

# isort: split
import ray
import ray.exceptions
import ray.train
import ray.train.torch
import torch
from ray import cloudpickle

from components.adapters.ray_controller import NoRetryOfMistakes, sentence_in
from components.contracts import Event, Worker
from components.errors import PedigreeError
from components.runtime import files, presence, processes
from components.runtime.background import in_thread
from components.training.device import VISIBLE, settle
from components.training.receiver import Receiver

log = logging.getLogger("pedigree.ray")

EVENTS, PROBLEM = "events.jsonl", "problem.txt"

Work = Callable[[Worker], None]
END_SECONDS = 5
"""Seconds in which an interrupted Ray ends by itself: less than `interrupts.interruptible` gives a process."""


def run(
    work: Work,
    workers: int,
    folder: Path,
    receiver: Receiver,
    name: str,
    gpus: Sequence[str] = (),
    retries: int = 0,
) -> None:
    """Run `work` on every worker and pass on rank 0's events; return when all are done.

    Args:
        work: A module-level function, or a partial of one, so that it can be sent to the workers.
        workers: Number of workers, at least 1.
        folder: Absolute path, visible to all workers, of events and Ray's files.
        receiver: Receives each event, in a thread of this process.
        name: Name of the Ray run. Ray would silently resume a run of the same name in this folder.
        gpus: A GPU of this machine for each worker, as in `device.gpus`. On a cluster, Ray chooses.
        retries: How often `work` is restarted on all workers after one of them, or Ray itself, dies.

    Raises:
        PedigreeError: a worker raised one, workers died more often than `retries` allows, or a cluster has fewer
            GPUs than workers.
    """
    for attempt in range(retries + 1):
        own = folder / f"{attempt}"
        own.mkdir()
        try:
            _run(work, workers, own, receiver, name, gpus, retries)
        except Exception as error:
            if not _of_ray(error):
                raise
            if attempt == retries:
                raise _cause(error) from error
            reason = _shortage(str(error)) or str(error).strip().split("\n")[0][:200]
            log.warning("Ray itself ended (%s): restarting it", reason)
            ray.shutdown()
            presence.end_noted(_notes())
        else:
            return


def _connect() -> float:
    gpus = ray_cluster.connect()
    if ray_cluster.ours():
        presence.note(_notes(), ray_cluster.started())
    return gpus


def _notes() -> Path:
    return presence.notes(Path.cwd(), "ray")


def _of_ray(error: Exception) -> bool:
    """Return whether Ray itself failed, not the work on it.

    If Ray's programs do not start, it raises a plain Exception. If a raylet dies while Ray's controller waits for a
    worker, the error is the controller's.
    """
    if isinstance(error, ray.train.ControllerError):
        return sentence_in(error.controller_failure) is None and _of_ray(error.controller_failure)
    return isinstance(error, ray.exceptions.RayError | ConnectionError) or type(error) is Exception


def _run(
    work: Work, workers: int, folder: Path, receiver: Receiver, name: str, gpus: Sequence[str], retries: int
) -> None:
    storage = folder / ".ray"
    by_ray = ray_cluster.gpu_each(workers, _connect())
    notes = _notes() if ray_cluster.ours() else None
    cpus = ray_cluster.cpus_each(workers)
    trainer = ray.train.torch.TorchTrainer(
        _worker,
        train_loop_config={
            "work": cloudpickle.dumps(work),  # only workers load this, not the controller
            "events": str(folder / EVENTS),
            "cwd": str(Path.cwd()),
            "notes": notes and str(notes),
            "gpus": bool(gpus),
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=by_ray,
            resources_per_worker={"CPU": cpus} | ({"GPU": 1} if by_ray else {}),
        ),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]
            name=name,
            storage_path=str(storage),
            failure_config=ray.train.FailureConfig(max_failures=retries),
            callbacks=[NoRetryOfMistakes()],  # type: ignore[list-item]
            worker_runtime_env={"env_vars": {VISIBLE: ",".join(gpus)}} if gpus else {},
        ),
        torch_config=ray_cluster.torch_config(storage, by_ray or bool(gpus)),
    )
    with _following(folder / EVENTS, receiver):
        try:
            # Not in the main thread, where Ray would take over Ctrl-C for the lifetime of the process.
            in_thread(trainer.fit, "ray-fit").result()
        except ray.train.TrainingFailedError as error:
            # Ray does not free the CPUs of workers that died during their start, and the next training would wait
            # for them forever (2.60, ray/train/v2/_internal/execution/worker_group/worker_group.py, `_start`).
            ray.shutdown()
            if _of_ray(error):
                raise
            raise _cause(error) from error
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C, or a cancellation by Prefect: end the workers, too
                _end_silently()
            raise


def _end_silently() -> None:
    """End Ray after an interrupt that may have reached its programs, too.

    Its library reports to the terminal, past Python, what it would recover from them, and may wait for them.
    """
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with suppress(TimeoutError):
            in_thread(ray.shutdown, "ray-end").result(END_SECONDS)
        presence.end_noted(_notes())  # workers that lost their raylet would train on for a while
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)


def _worker(config: dict[str, Any]) -> None:
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    events = Path(config["events"])
    os.chdir(config["cwd"])  # Ray starts workers in another folder, and parameters may contain relative paths

    def emit(event: Event) -> None:
        # The leading newline ends the line of a worker that died while writing.
        with events.open("a") as file:
            file.write(f"\n{json.dumps(event)}\n")

    if config["notes"]:
        presence.note(Path(config["notes"]), processes.tree(os.getpid()))
    device = torch.device("cuda", rank) if config["gpus"] else ray.train.torch.get_device()
    assert isinstance(device, torch.device)
    settle(device)
    work: Work = cloudpickle.loads(config["work"])
    if rank:
        work(Worker(device, rank, world))
    else:
        work(Worker(device, rank, world, emit, _problem_in(events.parent)))


def _problem_in(folder: Path) -> Callable[[], str]:
    """Return a function that returns the driver's problem, for which it looks at most five times a second."""
    looked, found = time.monotonic(), ""

    def problem() -> str:
        nonlocal looked, found
        if not found and time.monotonic() - looked >= 0.2:
            looked = time.monotonic()
            with suppress(OSError):  # there is no such file until there is a problem
                found = (folder / PROBLEM).read_text(encoding="utf-8")
        return found

    return problem


@contextmanager
def _following(file: Path, receiver: Receiver) -> Iterator[None]:
    """Pass on each event that is appended to `file` while the block runs, including the last ones."""
    done = threading.Event()
    file.touch()

    def follow() -> None:
        position, rest = 0, ""
        while True:
            last = done.is_set()
            # A network file system shows what another host wrote only when the file is opened again (nfs(5)).
            try:
                with file.open() as lines:
                    lines.seek(position)
                    *complete, rest = (rest + lines.read()).split("\n")
                    position = lines.tell()
            except OSError:  # a shared folder may be unavailable for a while
                if last:
                    raise
                complete = []
            for event in filter(None, map(_event, complete)):
                receiver.receive(event)
            problem = receiver.problem()
            if problem and not file.with_name(PROBLEM).exists():
                with suppress(OSError):  # of a full disk, perhaps; the next round tries again
                    files.write_text(file.with_name(PROBLEM), problem)
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
    """Return the event of a line, or None for an empty line or one that a worker did not finish."""
    with suppress(json.JSONDecodeError):
        event: Event = json.loads(line)
        return event
    return None


def _cause(error: BaseException) -> Exception:
    """Return a worker's error with a message for users, or else one that describes the failure."""
    failures = getattr(error, "worker_failures", None) or {}
    for failure in [*failures.values(), getattr(error, "controller_failure", None), error]:
        text = sentence_in(failure)
        if text is not None:
            return PedigreeError(text)
    less = "use fewer workers or a smaller batch size, or end other programs"
    resume = "run the same command again to resume from the last checkpoint"
    if shortage := _shortage(str(error)):
        return PedigreeError(f"a training worker was ended for want of memory ({shortage}): {less}, and {resume}")
    if "killed by the OOM killer" in str(error):  # one of the causes that Ray names if it knows none
        return PedigreeError(
            "a training worker was killed, or crashed: if Linux did so for want of memory, which `dmesg` says, "
            f"{less}; {resume}"
        )
    last = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return PedigreeError(f"a training worker failed ({last[-1].strip()}): {resume}, or with --debug for details")


_EXCEEDED = re.compile(r"\(IP: (\S+),(?s:.*?)Memory usage (\d+)B exceeded threshold of (\d+)B \(\S+ of (\d+)B")
"""What Ray says of a shortage of memory before pages of its own figures."""


def _shortage(text: str) -> str | None:
    """Return the figures in Ray's text on a shortage of memory, or None if it says nothing of one."""
    if found := _EXCEEDED.search(text):
        used, threshold, memory = (f"{int(number) / 1e9:.1f} GB" for number in found.groups()[1:])
        return f"{used} of {memory} were in use on {found[1]}, and Ray allows {threshold}"
    return "Ray gives no figures" if "low on memory" in text else None
