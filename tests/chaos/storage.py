"""Storage faults: unreachable servers, full disks, locks, read-only folders and clocks.

Each fault is injected into `python -m components digits train` or `pedigree run` in a project of its own; faults
that need mounts run in a mount namespace.
"""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ruamel.yaml import YAML

from components.runtime import files, processes
from tests.chaos.results import Result
from tests.conftest import copy_project
from tests.running import PEDIGREE, free_ports

EPOCHS = 60
AWAY_SECONDS, LOCKED_SECONDS = 120, 30
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
TRAIN = ["-m", "components", "digits", "train"]
Fault = Callable[[Path, str], list[str]]
"""Injects a fault into a project with known weights; returns descriptions of failures."""


def inject_storage(times: int, seed: int) -> Result:
    """Inject all faults that are possible here in turn, `times` times in all."""
    with tempfile.TemporaryDirectory(prefix="pedigree-storage-") as scratch:
        folder = Path(scratch) / "project"
        expected = prepared(folder)
        reported, failures, tried = [], [], 0
        faults = list(FAULTS.items())
        for number in range(times):
            name, fault = faults[number % len(faults)]
            reason = _why_not(name)
            if reason:
                reported.append(f"{name}: not tried, {reason}")
                continue
            tried += 1
            own = Path(scratch) / f"{number}"
            shutil.copytree(folder, own, symlinks=True)
            try:
                wrong = fault(own, expected)
            except AssertionError as error:  # it could not be injected
                wrong = [f"{error}: {(own / 'stderr.log').read_text()[-300:]}"]
            reported.append(f"{name}: {'; '.join(wrong) if wrong else 'passed'}")
            failures += [f"{name}: {each}" for each in wrong]
            print(f"  {reported[-1]}", flush=True)
            shutil.rmtree(own)
    return Result(tried, "; ".join(reported), failures)


def _why_not(name: str) -> str:
    if name in MOUNTING and (os.getuid() != 0 or not shutil.which("unshare")):
        return "it needs root, for a mount of its own"
    if name == CLOCK and not FAKETIME.exists():
        return "Debian's faketime is not installed"
    return ""


def prepared(folder: Path, workers: int = 1) -> str:
    """Create a project in which digits is prepared and trains for seconds; return the hash of its weights."""
    folder.mkdir()
    copy_project(folder)
    _set(folder, workers=workers, epochs=EPOCHS, checkpoint_seconds=0.2)
    assert _run(folder, ["-m", "components", "digits", "prepare"]).returncode == 0
    done = _run(folder, TRAIN)
    assert done.returncode == 0, done.stderr
    expected = weights(folder)
    shutil.rmtree(folder / "build" / "digits" / "model")
    (folder / "mlflow.db").unlink()
    return expected


def _set(folder: Path, **values: float) -> None:
    """Change parameters of digits' training."""
    yaml = YAML()
    tree = yaml.load(folder / "params.yaml")
    tree["models"]["digits"]["train"] |= values
    yaml.dump(tree, folder / "params.yaml")


def _run(folder: Path, command: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=_environment(folder, env), capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip


def _environment(folder: Path, env: dict[str, str]) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true"} | env


@contextmanager
def _started(folder: Path, command: list[str], **env: str) -> Iterator[subprocess.Popen[str]]:
    with (folder / "stderr.log").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=_environment(folder, env), stderr=stderr, text=True
        )
    try:
        yield process
    finally:
        processes.end(processes.tree(process.pid))


def weights(folder: Path) -> str:
    """Return the hash of the weights of digits' training."""
    return files.sha256(folder / "build" / "digits" / "model" / "weights.safetensors")


def all_updates(folder: Path) -> bool:
    """Return whether digits' training has made all updates; its process may still wait for MLflow."""
    return any(folder.glob("build/digits/training/*/weights.safetensors"))


def updates(folder: Path) -> int:
    """Return the number of updates in the last checkpoint of digits' training."""
    found = folder.glob("build/digits/training/*/checkpoints/*.safetensors")
    return max((int(file.name.split("-")[0]) for file in found), default=0)


def _await(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def _ended_well(process: subprocess.Popen[str], folder: Path, expected: str) -> list[str]:
    if process.wait(600) != 0:
        return [f"exit code {process.returncode}: {(folder / 'stderr.log').read_text()[-300:]}"]
    return [] if weights(folder) == expected else ["other weights"]


def steps(store: Path) -> list[str]:
    """Return what is wrong with the validations of the one run, in the order in which they were logged."""
    with sqlite3.connect(store) as opened:
        epochs = [
            row[0] for row in opened.execute("select value from metrics where key = 'train/epoch' order by rowid")
        ]
        runs = opened.execute("select count(*) from runs").fetchone()[0]
    wrong = [] if epochs == list(range(1, EPOCHS + 1)) else [f"validations after the epochs {epochs}"]
    return wrong + ([] if runs == 1 else [f"{runs} runs"])


def server_away(folder: Path, expected: str, seconds: float = AWAY_SECONDS) -> list[str]:
    """MLflow's server is killed during training and restarted."""
    (port,) = free_ports(1)
    store = folder / "server.db"
    serve = ["-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{store}", "--port", str(port)]
    serve += ["--host", "127.0.0.1", "--workers", "1", "--artifacts-destination", str(folder / "artifacts")]
    quick = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    address = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    with _started(folder, serve, **quick) as server:
        _await(lambda: _run(folder, ["-c", _ASK, str(port)]).returncode == 0, server)
        with _started(folder, TRAIN, **address) as training:
            _await(lambda: updates(folder) > 5, training)
            processes.end(processes.tree(server.pid), seconds=0)
            went = updates(folder)
            time.sleep(seconds)
            wrong = [] if updates(folder) > went or all_updates(folder) else ["training stood still"]
            with _started(folder, serve, **quick):
                return wrong + _ended_well(training, folder, expected) + steps(store)


_ASK = "import sys, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{sys.argv[1]}/health', timeout=2)"


def database_locked(folder: Path, expected: str, seconds: float = LOCKED_SECONDS) -> list[str]:
    """Another process locks MLflow's database during training."""
    with _started(folder, TRAIN) as training:
        _await(lambda: updates(folder) > 5, training)
        with sqlite3.connect(folder / "mlflow.db", timeout=60) as held:
            held.execute("begin exclusive")
            went = updates(folder)
            time.sleep(seconds)
            wrong = [] if updates(folder) > went or all_updates(folder) else ["training stood still"]
            held.rollback()
        return wrong + _ended_well(training, folder, expected) + steps(folder / "mlflow.db")


def disk_full(folder: Path, expected: str) -> list[str]:
    """The disk fills up during training, after some checkpoints; then space is freed."""
    return _in_namespace(folder, "disk_full", expected)


def read_only(folder: Path, expected: str) -> list[str]:
    """The checkout is read-only."""
    return _in_namespace(folder, "read_only", expected)


def full_home(folder: Path, expected: str) -> list[str]:
    """The disk with Prefect's database is full."""
    return _in_namespace(folder, "full_home", expected)


def small_shm(folder: Path, expected: str) -> list[str]:
    """/dev/shm has 64 MB."""
    return _in_namespace(folder, "small_shm", expected)


def home_closed(folder: Path, expected: str) -> list[str]:
    """The home folder does not exist and cannot be created."""
    with _started(folder, TRAIN, HOME="/proc/nobody", XDG_CACHE_HOME="", XDG_CONFIG_HOME="") as training:
        return _ended_well(training, folder, expected)


def clock_back(folder: Path, expected: str) -> list[str]:
    """The clock jumps back by an hour during training without Ray, which Debian's faketime 0.9.10 would break.

    It makes `time.sleep` fail if the monotonic clock is not faked (github.com/wolfcw/libfaketime/issues/426).
    """
    _set(folder, workers=0)
    clock = folder / "clock"
    clock.write_text("+0\n")
    faked = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with _started(folder, TRAIN, **faked) as training:
        _await(lambda: updates(folder) > 5, training)
        clock.write_text("-1h\n")
        return _ended_well(training, folder, expected) + steps(folder / "mlflow.db")


def _in_namespace(folder: Path, name: str, expected: str) -> list[str]:
    """Inject a fault that needs mounts in a mount namespace of its own."""
    command = ["unshare", "--mount", sys.executable, "-m", "tests.chaos.storage", name, str(folder), expected]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    return [line for line in done.stdout.splitlines() if line] if done.returncode == 0 else [done.stderr[-600:]]


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _disk_full(folder: Path, expected: str) -> list[str]:
    wrong = []
    training = folder / "build" / "digits" / "training"
    training.mkdir(exist_ok=True)
    size = random.Random(str(folder)).choice((1200, 2500, 4200, 5500))
    _mount("-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(training))
    first = _run(folder, TRAIN)
    if first.returncode != 1 or "the disk is full" not in first.stderr or "Traceback" in first.stderr:
        wrong.append(f"{size} kB: exit code {first.returncode}: {first.stderr[-300:]}")
    _mount("-o", "remount,size=100m", str(training))
    if size > 2500 and not updates(folder):
        wrong.append("no checkpoint was left")
    again = _run(folder, TRAIN)
    if again.returncode:
        wrong.append(f"with space again: {again.stderr[-300:]}")
    elif weights(folder) != expected:
        wrong.append("other weights")
    return wrong + steps(folder / "mlflow.db")


def _read_only(folder: Path, expected: str) -> list[str]:
    _mount("--bind", str(folder), str(folder))
    _mount("-o", "remount,bind,ro", str(folder))
    wrong = []
    for command in (TRAIN, [*PEDIGREE, "run", "digits"]):
        done = _run(folder, command)
        if done.returncode != 1 or "read-only" not in done.stderr or "Traceback" in done.stderr:
            wrong.append(f"{command[1]}: exit code {done.returncode}: {done.stderr[-300:]}")
    return wrong


def _full_home(folder: Path, expected: str) -> list[str]:
    home = folder / ".prefect"
    home.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", "size=512k", "tmpfs", str(home))
    done = _run(folder, [*PEDIGREE, "run", "digits"])
    well = done.returncode == 1 and "the disk is full" in done.stderr and "Traceback" not in done.stderr
    return [] if well else [f"exit code {done.returncode}: {done.stderr[-300:]}"]


def _small_shm(folder: Path, expected: str) -> list[str]:
    _mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", "/dev/shm")
    done = _run(folder, TRAIN)
    if done.returncode:
        return [done.stderr[-300:]]
    return [] if weights(folder) == expected else ["other weights"]


CLOCK = "a clock that jumps back"
FAULTS: dict[str, Fault] = {
    f"MLflow's server away for {AWAY_SECONDS} s": server_away,
    f"its database locked for {LOCKED_SECONDS} s": database_locked,
    "a full disk": disk_full,
    "a full disk under Prefect's database": full_home,
    "a read-only checkout": read_only,
    "a home folder that cannot be written": home_closed,
    "/dev/shm of 64 MB": small_shm,
    CLOCK: clock_back,
}
MOUNTED = {"disk_full": _disk_full, "full_home": _full_home, "read_only": _read_only, "small_shm": _small_shm}
MOUNTING = {name for name, fault in FAULTS.items() if fault.__name__ in MOUNTED}

if __name__ == "__main__":
    for line in MOUNTED[sys.argv[1]](Path(sys.argv[2]), sys.argv[3]):
        print(" ".join(line.split()))
