"""Broken storage, for real: servers away, full disks, locks, folders that cannot be written, clocks.

Each blow is dealt to `python -m components vision train`, or to `pedigree run`, in a project of its own; what needs
mounts runs in a mount namespace.
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

from components import files, processes
from tests.chaos.results import Result
from tests.conftest import copy_project
from tests.running import PEDIGREE, free_ports

EPOCHS = 60
AWAY_SECONDS, LOCKED_SECONDS = 120, 30
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
TRAIN = ["-m", "components", "vision", "train"]
Blow = Callable[[Path, str], list[str]]
"""Deals it to a project, whose weights are known; returns what should not have happened."""


def blow_storage(times: int, seed: int) -> Result:
    """Deal every blow that can be dealt here, until there were so many."""
    with tempfile.TemporaryDirectory(prefix="pedigree-storage-") as place:
        folder = Path(place) / "project"
        expected = prepared(folder)
        told, failures, dealt = [], [], 0
        blows = list(BLOWS.items())
        for number in range(times):
            name, blow = blows[number % len(blows)]
            reason = _why_not(name)
            if reason:
                told.append(f"{name}: not dealt, {reason}")
                continue
            dealt += 1
            own = Path(place) / f"{number}"
            shutil.copytree(folder, own, symlinks=True)
            try:
                wrong = blow(own, expected)
            except AssertionError as error:  # it could not be dealt
                wrong = [f"{error}: {(own / 'said').read_text()[-300:]}"]
            told.append(f"{name}: {'; '.join(wrong) if wrong else 'well'}")
            failures += [f"{name}: {each}" for each in wrong]
            print(f"  {told[-1]}", flush=True)
            shutil.rmtree(own)
    return Result(dealt, "; ".join(told), failures)


def _why_not(name: str) -> str:
    if name in MOUNTING and (os.getuid() != 0 or not shutil.which("unshare")):
        return "it needs root, for a mount of its own"
    if name == CLOCK and not FAKETIME.exists():
        return "Debian's faketime is not installed"
    return ""


def prepared(folder: Path, workers: int = 1) -> str:
    """Make a project whose vision is prepared and trains for some seconds; return the hash of its weights."""
    folder.mkdir()
    copy_project(folder)
    _set(folder, workers=workers, epochs=EPOCHS, checkpoint_seconds=0.2)
    assert _run(folder, ["-m", "components", "vision", "prepare"]).returncode == 0
    done = _run(folder, TRAIN)
    assert done.returncode == 0, done.stderr
    expected = weights(folder)
    shutil.rmtree(folder / "build" / "vision" / "model")
    (folder / "mlflow.db").unlink()
    return expected


def _set(folder: Path, **values: float) -> None:
    """Change parameters of vision's training."""
    yaml = YAML()
    tree = yaml.load(folder / "params.yaml")
    tree["tasks"]["vision"]["train"] |= values
    yaml.dump(tree, folder / "params.yaml")


def _run(folder: Path, command: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=_environment(folder, env), capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip


def _environment(folder: Path, env: dict[str, str]) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true"} | env


@contextmanager
def _begun(folder: Path, command: list[str], **env: str) -> Iterator[subprocess.Popen[str]]:
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=_environment(folder, env), stderr=said, text=True
        )
    try:
        yield process
    finally:
        processes.end(processes.tree(process.pid))


def weights(folder: Path) -> str:
    """Return the hash of the weights that vision's training left."""
    return files.sha256(folder / "build" / "vision" / "model" / "weights.safetensors")


def all_updates(folder: Path) -> bool:
    """Tell whether vision's training is through with its updates, though its process may still wait for MLflow."""
    return any(folder.glob("build/vision/training/*/weights.safetensors"))


def updates(folder: Path) -> int:
    """Return how far the last checkpoint of vision's training is."""
    found = folder.glob("build/vision/training/*/checkpoints/*.safetensors")
    return max((int(file.name.split("-")[0]) for file in found), default=0)


def _await(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended before its time"
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def _ended_well(process: subprocess.Popen[str], folder: Path, expected: str) -> list[str]:
    if process.wait(600) != 0:
        return [f"exit code {process.returncode}: {(folder / 'said').read_text()[-300:]}"]
    return [] if weights(folder) == expected else ["other weights"]


def steps(store: Path) -> list[str]:
    """Return what is wrong with the steps of the one run, in the order in which they were logged."""
    with sqlite3.connect(store) as opened:
        steps = [row[0] for row in opened.execute("select step from metrics where key = 'epoch' order by rowid")]
        runs = opened.execute("select count(*) from runs").fetchone()[0]
    wrong = [] if steps == list(range(1, EPOCHS + 1)) else [f"steps {steps}"]
    return wrong + ([] if runs == 1 else [f"{runs} runs"])


def server_away(folder: Path, expected: str, seconds: float = AWAY_SECONDS) -> list[str]:
    """MLflow's server is killed in mid-training and comes back."""
    (port,) = free_ports(1)
    store = folder / "server.db"
    serve = ["-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{store}", "--port", str(port)]
    serve += ["--host", "127.0.0.1", "--workers", "1", "--artifacts-destination", str(folder / "artifacts")]
    quick = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    address = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    with _begun(folder, serve, **quick) as server:
        _await(lambda: _run(folder, ["-c", _ASK, str(port)]).returncode == 0, server)
        with _begun(folder, TRAIN, **address) as training:
            _await(lambda: updates(folder) > 5, training)
            processes.end(processes.tree(server.pid), seconds=0)
            went = updates(folder)
            time.sleep(seconds)
            wrong = [] if updates(folder) > went or all_updates(folder) else ["training stood still"]
            with _begun(folder, serve, **quick):
                return wrong + _ended_well(training, folder, expected) + steps(store)


_ASK = "import sys, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{sys.argv[1]}/health', timeout=2)"


def database_locked(folder: Path, expected: str, seconds: float = LOCKED_SECONDS) -> list[str]:
    """Another process keeps MLflow's database locked in mid-training."""
    with _begun(folder, TRAIN) as training:
        _await(lambda: updates(folder) > 5, training)
        with sqlite3.connect(folder / "mlflow.db", timeout=60) as held:
            held.execute("begin exclusive")
            went = updates(folder)
            time.sleep(seconds)
            wrong = [] if updates(folder) > went or all_updates(folder) else ["training stood still"]
            held.rollback()
        return wrong + _ended_well(training, folder, expected) + steps(folder / "mlflow.db")


def disk_full(folder: Path, expected: str) -> list[str]:
    """The disk fills up in mid-training, after some checkpoints; then there is space again."""
    return _in_namespace(folder, "disk_full", expected)


def read_only(folder: Path, expected: str) -> list[str]:
    """The checkout cannot be written."""
    return _in_namespace(folder, "read_only", expected)


def full_home(folder: Path, expected: str) -> list[str]:
    """The disk that Prefect's database lies on is full."""
    return _in_namespace(folder, "full_home", expected)


def small_shm(folder: Path, expected: str) -> list[str]:
    """/dev/shm has 64 MB."""
    return _in_namespace(folder, "small_shm", expected)


def home_closed(folder: Path, expected: str) -> list[str]:
    """The home folder cannot be written, nor be made."""
    with _begun(folder, TRAIN, HOME="/proc/nobody", XDG_CACHE_HOME="", XDG_CONFIG_HOME="") as training:
        return _ended_well(training, folder, expected)


def clock_back(folder: Path, expected: str) -> list[str]:
    """The clock jumps back by an hour in mid-training, in this process: Debian's faketime 0.9.10 ends Ray's.

    It makes `time.sleep` fail where the monotonic clock stays as it is (github.com/wolfcw/libfaketime/issues/426).
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
    with _begun(folder, TRAIN, **faked) as training:
        _await(lambda: updates(folder) > 5, training)
        clock.write_text("-1h\n")
        return _ended_well(training, folder, expected) + steps(folder / "mlflow.db")


def _in_namespace(folder: Path, name: str, expected: str) -> list[str]:
    """Deal a blow that needs mounts in a namespace that is gone with it."""
    command = ["unshare", "--mount", sys.executable, "-m", "tests.chaos.storage", name, str(folder), expected]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    return [line for line in done.stdout.splitlines() if line] if done.returncode == 0 else [done.stderr[-600:]]


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _disk_full(folder: Path, expected: str) -> list[str]:
    wrong = []
    training = folder / "build" / "vision" / "training"
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
    for command in (TRAIN, [*PEDIGREE, "run", "vision"]):
        done = _run(folder, command)
        if done.returncode != 1 or "read-only" not in done.stderr or "Traceback" in done.stderr:
            wrong.append(f"{command[1]}: exit code {done.returncode}: {done.stderr[-300:]}")
    return wrong


def _full_home(folder: Path, expected: str) -> list[str]:
    home = folder / ".prefect"
    home.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", "size=512k", "tmpfs", str(home))
    done = _run(folder, [*PEDIGREE, "run", "vision"])
    well = done.returncode == 1 and "the disk is full" in done.stderr and "Traceback" not in done.stderr
    return [] if well else [f"exit code {done.returncode}: {done.stderr[-300:]}"]


def _small_shm(folder: Path, expected: str) -> list[str]:
    _mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", "/dev/shm")
    done = _run(folder, TRAIN)
    if done.returncode:
        return [done.stderr[-300:]]
    return [] if weights(folder) == expected else ["other weights"]


CLOCK = "a clock that jumps back"
BLOWS: dict[str, Blow] = {
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
MOUNTING = {name for name, blow in BLOWS.items() if blow.__name__ in MOUNTED}

if __name__ == "__main__":
    for line in MOUNTED[sys.argv[1]](Path(sys.argv[2]), sys.argv[3]):
        print(" ".join(line.split()))
