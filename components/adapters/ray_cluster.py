"""The Ray that trainings run on: the cluster at RAY_ADDRESS, or one of our own on this machine.

Our own listens on 127.0.0.1 alone, asks for a token of its process, and leaves no process behind.
"""

import atexit
import ctypes
import logging
import os
import secrets
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

# Ray reads these when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
if "RAY_ADDRESS" not in os.environ:
    # Our own cluster listens on 127.0.0.1 alone: Ray takes that address where clusters are of one machine only.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    # A program of its own, which takes seconds to start, for clusters that are told before they lose a host.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # Ray Train gives its processes an environment of their own, so that none takes up one that Ray started ahead.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    os.environ.setdefault("RAY_enable_worker_prestart", "0")
    # Without a token here Ray would write one into the home folder, for all clusters of this user.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

import psutil
import ray
import ray.exceptions
from ray.train.torch import TorchConfig

from components import processes
from components.adapters.ray_controller import MeetInAFile
from components.errors import PedigreeError
from components.processes import Process

logging.getLogger("ray").setLevel(logging.WARNING)
log = logging.getLogger("pedigree.ray")

SOURCE = Path(__file__).resolve().parents[2]


def ours() -> bool:
    """Tell whether training runs on a Ray of our own, on this machine, and not on a cluster."""
    return "RAY_ADDRESS" not in os.environ


def connect() -> float:
    """Join the cluster at RAY_ADDRESS, or start Ray on this machine; return its number of GPUs."""
    with _CONNECTING:
        if not ray.is_initialized():
            with _our_handlers():
                _connect()
    return float(ray.cluster_resources().get("GPU", 0))


_CONNECTING = threading.Lock()
# A process that ends waits for a start that is under way, and none begins one afterwards: what Ray does at the end
# (its hook was set before, and so comes later) knows only of a start that is over.
atexit.register(_CONNECTING.acquire, timeout=20)


def _connect() -> None:
    environment = {"PYTHONPATH": str(SOURCE)} | processes.keeping_memory() | _loopback()
    try:
        ray.init(
            address=os.environ.get("RAY_ADDRESS", "local"),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": environment} | _this_python(),
        )
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        if ours():
            raise
        raise PedigreeError(_not_joined(error)) from error


@contextmanager
def _our_handlers() -> Iterator[None]:
    """Keep what SIGINT and SIGTERM do: Ray sets handlers of its own, one of which would abort with a dump.

    In the main thread Ray sets Python's, too. In another one `signal.signal` cannot be called; what it calls can
    (PyOS_setsig, https://docs.python.org/3/c-api/sys.html), and is, unless the main thread has set one meanwhile.
    """
    api = ctypes.pythonapi
    api.PyOS_getsig.restype = ctypes.c_void_p
    api.PyOS_setsig.argtypes = [ctypes.c_int, ctypes.c_void_p]
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: (signal.getsignal(number), api.PyOS_getsig(number)) for number in numbers}
    try:
        yield
    finally:
        for number, (earlier, handler) in before.items():
            if threading.current_thread() is threading.main_thread():
                signal.signal(number, earlier)
            elif signal.getsignal(number) is earlier:
                api.PyOS_setsig(number, handler)


def cpus_each(workers: int) -> int:
    """Return how many CPUs a worker gets; Ray would wait for ever, and say nothing, for more than there are.

    Raises:
        PedigreeError: this machine alone has to do, and has fewer CPUs than there are workers.
    """
    hosts = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    if cpus := share(hosts, workers):
        return cpus
    if ours():
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
    return {} if not ours() or quoted == sys.executable else {"py_executable": quoted}


def _loopback() -> dict[str, str]:
    """Keep what gloo and NCCL say between workers of this machine off its other interfaces."""
    if not ours():
        return {}
    loopback = (n for n, found in psutil.net_if_addrs().items() if any(a.address == "127.0.0.1" for a in found))
    name = next(loopback, "lo")
    return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}


def _not_joined(error: BaseException) -> str:
    """Say why a cluster was not joined; Ray hides the reason in the text of what its error came from."""
    address = os.environ["RAY_ADDRESS"]
    if "AuthenticationError" in f"{error!r} {error.__cause__}":
        return (
            f"the Ray cluster at {address} asks for a token, and this is not its own: set RAY_AUTH_MODE=token, and "
            "RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH, a file) to the one that it was started with"
        )
    return f"no Ray cluster answers at {address}: start it, or unset RAY_ADDRESS to train on this machine alone"


NCCL_SECONDS = 300
"""After which a worker on a GPU stops waiting for the others; Ray would hold all of them for half an hour."""


def torch_config(storage: Path, with_gpu: bool) -> TorchConfig:
    """Return how workers meet: in a file below `storage` on this machine, and as Ray has it on a cluster."""
    own: dict[str, Any] = {"backend": "nccl" if with_gpu else "gloo"}
    if with_gpu:
        own["timeout_s"] = NCCL_SECONDS
    # Of a torch_config Ray's trainer takes what any backend's has (ray/train/v2/torch/torch_trainer.py).
    return cast(TorchConfig, MeetInAFile(storage, **own)) if ours() else TorchConfig(**own)


def started() -> list[Process]:
    """Return the programs that Ray has started for this process, and what these have started."""
    node = ray._private.worker._global_node
    if node is None:
        return []
    infos = [info for infos in node.all_processes.values() for info in infos]
    return [process for info in infos for process in processes.tree(info.process.pid)]
