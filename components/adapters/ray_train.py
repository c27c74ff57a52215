"""Ray Train: the workers that training runs on. The only module that meets Ray.

Workers tell of their progress in a file of JSON lines, which the driver follows: a report to Ray's controller
would wait for its next poll, and what a worker prints is lost when it dies.
"""

import contextvars
import json
import logging
import os
import secrets
import shlex
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Ray reads these when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
if "RAY_ADDRESS" not in os.environ:
    # Our own cluster listens on 127.0.0.1 alone: Ray takes that address where clusters are of one machine only.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    # Without a token here Ray would write one into the home folder, for all clusters of this user.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

import psutil
import ray
import ray.exceptions
import ray.train
import ray.train.torch
import torch
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend

from components import files, processes
from components.contracts import Event, Workers
from components.errors import PedigreeError, sentence
from components.processes import Process

logging.getLogger("ray").setLevel(logging.WARNING)
log = logging.getLogger("pedigree.ray")

EVENTS = "events.jsonl"
NOTES = Path("build", ".ray")
"""In the project: a folder for each process that has a Ray of its own, with a file for each process of that."""
SOURCE = Path(__file__).resolve().parents[2]

Work = Callable[[Workers], None]


def run(
    work: Work, workers: int, folder: Path, on_event: Callable[[Event], None], name: str, retries: int = 0
) -> None:
    """Run `work` on every worker and pass on what rank 0 tells; return when all are done.

    Args:
        work: A module-level function, or a partial of one: it is sent to the workers.
        workers: How many; 0 runs it in this very process.
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
            if workers == 0 or not _of_ray(error):
                raise
            if attempt == retries:
                raise _cause(error) from error
            log.warning("Ray itself ended (%s): it is started again", str(error).strip().split("\n")[0][:200])
            ray.shutdown()
            _end_noted(_notes())
        else:
            return


def _of_ray(error: Exception) -> bool:
    """Tell whether Ray ended, and not what it ran; when its programs do not start it raises a plain Exception."""
    return isinstance(error, ray.exceptions.RayError | ConnectionError) or type(error) is Exception


def _notes() -> Path:
    return Path.cwd() / NOTES / processes.this().label


def _run(
    work: Work, workers: int, folder: Path, on_event: Callable[[Event], None], name: str, retries: int
) -> None:
    storage = folder / ".ray"
    gpus = _connect(workers)
    notes = _notes() if workers and ours() else None
    if notes:
        for each in _started():
            _note(notes, each)
    cpus = _cpus_each(workers) if workers else 0
    trainer = ray.train.torch.TorchTrainer(
        _worker,
        train_loop_config={
            "work": work,
            "events": str(folder / EVENTS),
            "cwd": str(Path.cwd()),
            "notes": notes and str(notes),
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=gpus >= workers > 0,
            resources_per_worker={"CPU": cpus} | ({"GPU": 1} if gpus >= workers > 0 else {}) if workers else None,
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(storage),
            failure_config=ray.train.FailureConfig(max_failures=retries),
            callbacks=[_NoRetryOfMistakes()],  # type: ignore[list-item]
        ),
        torch_config=_torch_config(storage),
    )
    with _following(folder / EVENTS, on_event):
        try:
            _interruptibly(trainer.fit) if workers else trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise _cause(error) from error
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C, or Prefect's word for it: no worker goes on without us
                ray.shutdown()
            raise


class _NoRetryOfMistakes(ray.train.UserCallback):
    """Ends the run at what a person has to mend: a callback that raises is what Ray never retries."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for error in worker_exceptions.values():
            text = _sentence_in(error)
            if text is not None:
                raise PedigreeError(text)


def end_left(root: Path) -> list[Process]:
    """End what of Ray outlives drivers of this project that were killed; return the processes that were there.

    Most end by themselves within seconds, in which a worker would go on with a training that others take up; agents
    of the raylet do not.
    """
    ended: list[Process] = []
    for folder in (root / NOTES).glob("*"):
        driver = processes.labelled(folder.name)
        if driver is None or driver.gone:
            ended += _end_noted(folder)
    return ended


def _end_noted(folder: Path) -> list[Process]:
    left = [process for note in folder.glob("*") if (process := processes.labelled(note.name))]
    ended = processes.end(left, seconds=0)
    files.remove(folder)
    return ended


def _started() -> list[int]:
    """Return the programs that Ray has started for this process."""
    node = ray._private.worker._global_node
    return [info.process.pid for infos in node.all_processes.values() for info in infos] if node else []


def _note(folder: Path, pid: int) -> None:
    """Keep which processes descend from this one, for the day when their driver cannot end them."""
    folder.mkdir(parents=True, exist_ok=True)
    for process in processes.tree(pid):
        (folder / process.label).touch()


def ours() -> bool:
    """Tell whether training runs on a Ray of our own, on this machine, and not on a cluster."""
    return "RAY_ADDRESS" not in os.environ


def _connect(workers: int) -> float:
    """Join the cluster at RAY_ADDRESS, or start Ray on this machine; return its number of GPUs."""
    if workers == 0:
        return 0
    if not ray.is_initialized():
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            ray.init(
                address=os.environ.get("RAY_ADDRESS", "local"),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": {"PYTHONPATH": str(SOURCE)} | _loopback()} | _this_python(),
            )
        except (ConnectionError, ray.exceptions.AuthenticationError) as error:
            if "RAY_ADDRESS" not in os.environ:
                raise
            raise PedigreeError(_not_joined(error)) from error
        for number, handler in before.items() if threading.current_thread() is threading.main_thread() else ():
            signal.signal(number, handler)  # Ray's own would abort this process with a dump
    return float(ray.cluster_resources().get("GPU", 0))


def _interruptibly(call: Callable[[], object]) -> None:
    """Call in another thread: in the main one Ray would take Ctrl-C for itself, as long as the process lives."""
    outcome: Future[object] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=contextvars.copy_context().run, args=(work,), name="ray-fit", daemon=True).start()
    outcome.result()


def _not_joined(error: BaseException) -> str:
    """Say why a cluster was not joined; Ray hides the reason in the text of what its error came from."""
    address = os.environ["RAY_ADDRESS"]
    if "AuthenticationError" in f"{error!r} {error.__cause__}":
        return (
            f"the Ray cluster at {address} asks for a token, and this is not its own: set RAY_AUTH_MODE=token, and "
            "RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH, a file) to the one that it was started with"
        )
    return f"no Ray cluster answers at {address}: start it, or unset RAY_ADDRESS to train on this machine alone"


def _cpus_each(workers: int) -> int:
    """Return how many CPUs a worker gets; Ray would wait for ever, and say nothing, for more than there are.

    Raises:
        PedigreeError: this machine alone has to do, and has fewer CPUs than there are workers.
    """
    hosts = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    if cpus := share(hosts, workers):
        return cpus
    if "RAY_ADDRESS" not in os.environ:
        raise PedigreeError(
            f"{workers} workers need a CPU each, and Ray has {sum(hosts)} here: ask for fewer workers, "
            "or set RAY_ADDRESS to a cluster's"
        )
    log.warning("%d workers need a CPU each, and Ray's hosts have %d: waiting for more", workers, sum(hosts))
    return 1


def share(hosts: Sequence[int], workers: int) -> int:
    """Return the most CPUs that each worker can have when no worker spans two hosts, or 0 when they are too many.

    Args:
        hosts: The number of CPUs of each.
        workers: At least 1.
    """
    fits = (cpus for cpus in range(max(hosts, default=0), 0, -1) if sum(host // cpus for host in hosts) >= workers)
    return next(fits, 0)


def _this_python() -> dict[str, str]:
    """Quote a path that has a space in it, which Ray puts into a shell's line as it is, and then waits for ever."""
    quoted = shlex.quote(sys.executable)
    return {} if "RAY_ADDRESS" in os.environ or quoted == sys.executable else {"py_executable": quoted}


def _loopback() -> dict[str, str]:
    """Keep what gloo and NCCL say between workers of this machine off its other interfaces."""
    if "RAY_ADDRESS" in os.environ:
        return {}
    loopback = (n for n, found in psutil.net_if_addrs().items() if any(a.address == "127.0.0.1" for a in found))
    name = next(loopback, "lo")
    return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}


def _torch_config(storage: Path) -> ray.train.torch.TorchConfig:
    return ray.train.torch.TorchConfig() if "RAY_ADDRESS" in os.environ else _MeetInAFile(folder=storage)


@dataclass
class _MeetInAFile(ray.train.torch.TorchConfig):
    """For workers on one machine: torch's server, at which they would meet, listens on every interface."""

    folder: Path = Path()

    @property
    def backend_cls(self) -> type["_Meeting"]:
        return _Meeting


class _Meeting(_TorchBackend):
    """As Ray's own, but for the place: a new file each time, also when workers that died are started again."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        backend_config.folder.mkdir(parents=True, exist_ok=True)
        meeting = {
            "backend": "nccl" if worker_group.get_resources_per_worker().get("GPU", 0) else "gloo",
            "world_size": len(worker_group),
            "init_method": (backend_config.folder / uuid.uuid4().hex).as_uri(),
            "timeout_s": backend_config.timeout_s,
        }
        worker_group.execute(_set_torch_distributed_env_vars)
        start, ranks = worker_group.execute_single_async, range(len(worker_group))
        ray.get([start(rank, _setup_torch_process_group, world_rank=rank, **meeting) for rank in ranks])


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
        _note(Path(config["notes"]), os.getpid())
    device = ray.train.torch.get_device()
    assert isinstance(device, torch.device)
    config["work"](Workers(device, rank, world, emit if rank == 0 else lambda event: None))


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
            with file.open() as lines:
                lines.seek(place)
                *complete, rest = (rest + lines.read()).split("\n")
                place = lines.tell()
            for event in filter(None, map(_event, complete)):
                on_event(event)
            if last:
                return
            done.wait(0.2)

    thread = threading.Thread(
        target=partial(contextvars.copy_context().run, follow), name="follow-events", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


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
        text = _sentence_in(failure)
        if text is not None:
            return PedigreeError(text)
    last = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return PedigreeError(
        f"a training worker failed: {last[-1].strip()}; run the same command again to go on from the last "
        "checkpoint, or with --debug for more"
    )


def _sentence_in(error: BaseException | None) -> str | None:
    """Return the sentence for people of an error, or of what caused it."""
    while error is not None:
        text = sentence(getattr(error, "cause", None) or error)
        if text is not None:
            return text
        error = error.__cause__
    return None
