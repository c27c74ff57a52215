"""The Ray cluster that trainings run on: the one at RAY_ADDRESS, or a local one of our own.

The local cluster listens on 127.0.0.1 only, requires a token and a key of this process, has its files and sockets
in a folder that no other account can enter, and leaves neither processes nor files behind.
"""

import atexit
import logging
import os
import re
import secrets
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from components.adapters import ray_folder

# Ray reads these when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
if "RAY_ADDRESS" not in os.environ:
    # Makes Ray listen on 127.0.0.1 only, the address that it uses where clusters consist of one machine.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    # A separate program that takes seconds to start, for clusters that announce the loss of a host.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # Ray Train's processes have their own runtime environment, so that processes started ahead would stay unused.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    os.environ.setdefault("RAY_enable_worker_prestart", "0")
    # At Ray's default niceness, 15, training on a busy machine ran at a fifth of its speed.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Without a token here, Ray would write one into the home folder for all clusters of this user.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # A worker has read these settings, and needs the key of the process that has started it.
    if "ray" not in sys.modules and ("RAY_USE_TLS" not in os.environ or ray_folder.inherited()):
        os.environ.update(ray_folder.certificate())
    # The autoscaler's figures are the only port that answers without a token. No setting closes it, but at a port
    # that does not exist Ray goes on without it (ray/autoscaler/v2/monitor.py).
    os.environ["AUTOSCALER_METRIC_PORT"] = "65536"

import psutil
import ray
import ray.exceptions
from ray.train.torch import TorchConfig

from components.adapters.ray_controller import MeetInAFile
from components.errors import PedigreeError
from components.runtime import processes
from components.runtime.processes import Process

logging.getLogger("ray").setLevel(logging.WARNING)
log = logging.getLogger("pedigree.ray")

SOURCE = Path(__file__).resolve().parents[2]


def ours() -> bool:
    """Return whether training runs on our own Ray on this machine, not on a cluster at RAY_ADDRESS."""
    return "RAY_ADDRESS" not in os.environ


def connect() -> float:
    """Join the cluster at RAY_ADDRESS, or start Ray on this machine; return the number of GPUs that Ray divides.

    To be called in the main thread: Ray's programs end with the thread that started them (prctl(2),
    PR_SET_PDEATHSIG), and only the main thread can restore signal handlers.
    """
    if not ray.is_initialized():
        with _our_handlers():
            _connect()
    return float(ray.cluster_resources().get("GPU", 0))


@atexit.register
def _end() -> None:
    """End our Ray, and then remove its folder; Ray's own exit hook runs later and leaves the folder."""
    ray.shutdown()
    ray_folder.remove()


def _connect() -> None:
    environment = {"PYTHONPATH": str(SOURCE)} | processes.keeping_memory() | _loopback()
    try:
        ray.init(
            address=os.environ.get("RAY_ADDRESS", "local"),
            num_gpus=0 if ours() else None,  # `jobs.gpus` divides them
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": environment} | _this_python(),
            _temp_dir=str(ray_folder.sessions()) if ours() else None,
        )
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        if ours():
            raise
        raise PedigreeError(_not_joined(error)) from error
    except RuntimeError as error:
        if text := _other_versions(str(error)):
            raise PedigreeError(text) from None
        raise


@contextmanager
def _our_handlers() -> Iterator[None]:
    """Restore the handlers of SIGINT and SIGTERM, which Ray replaces; one of Ray's would abort with a dump."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def gpu_each(workers: int, gpus: float) -> bool:
    """Return whether each worker gets one of the GPUs that Ray divides.

    Raises:
        PedigreeError: there are some, but not for all workers.
    """
    if 0 < gpus < workers:
        raise PedigreeError(
            f"{workers} workers need a GPU each, and the Ray cluster has {gpus:g}: use fewer workers, wait until "
            "all its hosts have joined, or start them with --num-gpus=0 to compute on their CPUs"
        )
    return gpus > 0


def cpus_each(workers: int) -> int:
    """Return the number of CPUs for each worker; Ray would silently wait forever for more than there are.

    Raises:
        PedigreeError: training runs on this machine, which has fewer CPUs than workers.
    """
    hosts = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    if cpus := share(hosts, workers):
        return cpus
    if ours():
        raise PedigreeError(
            f"{workers} workers need a CPU each, and Ray has {sum(hosts)} here: use fewer workers, "
            "or set RAY_ADDRESS to a cluster's address"
        )
    log.warning("%d workers need a CPU each, and Ray's hosts have %d: waiting for more", workers, sum(hosts))
    return 1


def share(hosts: Sequence[int], workers: int) -> int:
    """Return how many CPUs each worker can have if no worker spans two hosts, or 0 if there are too many workers.

    Args:
        hosts: The number of CPUs of each host.
        workers: The number of workers, at least 1.
    """
    fits = (cpus for cpus in range(max(hosts, default=0), 0, -1) if sum(host // cpus for host in hosts) >= workers)
    return next(fits, 0)


def _this_python() -> dict[str, str]:
    """Quote a Python path with a space, which Ray inserts into a shell command as it is and then waits forever."""
    quoted = shlex.quote(sys.executable)
    return {} if not ours() or quoted == sys.executable else {"py_executable": quoted}


def _loopback() -> dict[str, str]:
    """Restrict gloo and NCCL between workers on this machine to the loopback interface."""
    if not ours():
        return {}
    interfaces = psutil.net_if_addrs().items()
    loopback = (n for n, addresses in interfaces if any(a.address == "127.0.0.1" for a in addresses))
    name = next(loopback, "lo")
    return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}


def _not_joined(error: BaseException) -> str:
    """Return why a cluster could not be joined; Ray hides the reason in the text of the error's cause."""
    address = os.environ["RAY_ADDRESS"]
    if "AuthenticationError" in f"{error!r} {error.__cause__}":
        return (
            f"the Ray cluster at {address} requires a token, and ours is missing or wrong: set "
            "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH, a file) to the token "
            "that the cluster was started with"
        )
    return f"no Ray cluster answers at {address}: start it, or unset RAY_ADDRESS to train on this machine only"


def _other_versions(text: str) -> str:
    """Return what Ray says of a cluster of other versions as a sentence, or an empty string."""
    versions = re.findall(r"(?:Ray|Python): (\S+)", text) if text.startswith("Version mismatch") else []
    match versions:
        case [ray_there, python_there, ray_here, python_here]:
            return (
                f"the Ray cluster at {os.environ.get('RAY_ADDRESS')} has Ray {ray_there} and Python "
                f"{python_there}, and this is Ray {ray_here} and Python {python_here}: install the same Python and "
                "requirements.lock on its hosts, or unset RAY_ADDRESS to train on this machine only"
            )
    return ""


NCCL_SECONDS = 300
"""Time after which a worker on a GPU stops waiting for the others; Ray's default is half an hour."""


def torch_config(storage: Path, with_gpu: bool) -> TorchConfig:
    """Return the rendezvous of the workers: a file below `storage` on this machine, Ray's own on a cluster."""
    own: dict[str, Any] = {"backend": "nccl" if with_gpu else "gloo"}
    if with_gpu:
        own["timeout_s"] = NCCL_SECONDS
    # Ray's trainer uses only what the configs of all backends have (ray/train/v2/torch/torch_trainer.py).
    return cast(TorchConfig, MeetInAFile(storage, **own)) if ours() else TorchConfig(**own)


def started() -> list[Process]:
    """Return the programs that Ray has started for this process, and their descendants."""
    node = ray._private.worker._global_node
    if node is None:
        return []
    infos = [info for infos in node.all_processes.values() for info in infos]
    return [process for info in infos for process in processes.tree(info.process.pid)]
