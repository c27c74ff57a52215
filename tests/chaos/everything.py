"""Everything at once in one checkout: flows, `dvc repro`, a user's `mlflow ui`, and faults."""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil

from components.runtime import files, processes
from tests.chaos import kills
from tests.chaos.results import Result
from tests.conftest import MODELS
from tests.running import DVC, Up, free_ports, up

MINUTES = 20
MOST_SECONDS = 900
"""Maximum duration of a flow, including waits for other flows and faults."""


class Day:
    """The activities in a checkout that is used by everybody at once, and their outcomes."""

    def __init__(self, running: Up, expected: dict[str, str]) -> None:
        self.running, self.folder, self.expected = running, running.folder, expected
        self.flows: dict[str, str] = {}
        """The model of each completed flow."""
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []
        self.waits: list[str] = []

    def flow(self, name: str) -> None:
        """Run a model's deployment to its end, and compare its results with an undisturbed flow's."""
        flow_run = self.running.submit(name, {})
        end = time.monotonic() + MOST_SECONDS
        while (state := self.running.state(flow_run)) != "COMPLETED":
            if time.monotonic() > end or state in {"FAILED", "CANCELLED"}:
                self.failures.append(f"flow {name} {flow_run} is {state}")
                return
            time.sleep(1)
        self.done["flows"] += 1
        self.flows[flow_run] = name
        wrong = kills.wrong(self.folder, flow_run, self.expected[name])
        self.failures += [f"flow {name} {flow_run}: {each}" for each in wrong]

    def repro(self, name: str) -> None:
        """Force `dvc repro` of a model's training."""
        done = subprocess.run(
            [sys.executable, *DVC, "repro", "--force", "--single-item", f"train@{name}"],
            cwd=self.folder, env=os.environ | {"PYTHONPATH": str(self.folder)}, capture_output=True, text=True,
            timeout=MOST_SECONDS, check=False,
        )  # fmt: skip
        self.done["dvc repro"] += 1
        self.waits += [line for line in done.stderr.splitlines() if line.startswith("waiting for")]
        if done.returncode:
            self.failures.append(f"dvc repro {name}: exit code {done.returncode}: {done.stderr[-400:]}")

    def look(self, port: int) -> None:
        """Request the runs from a user's `mlflow ui`, as its page does."""
        body = json.dumps({"experiment_ids": ["1", "2", "3"], "max_results": 50}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow/runs/search",
            data=body,
            headers={"content-type": "application/json"},
        )
        try:
            json.load(urllib.request.urlopen(request, timeout=60))
            self.done["looks at runs"] += 1
        except OSError as error:
            self.failures.append(f"mlflow ui: {error}")
        time.sleep(1)


def prepare_all(folder: Path, names: Sequence[str] = MODELS) -> None:
    """Prepare the models, so that `dvc repro` of one stage has its inputs."""
    for name in names:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "repro", "-q", f"prepare@{name}"], cwd=folder, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def undisturbed(folder: Path, names: Sequence[str] = MODELS) -> dict[str, str]:
    """Return the hash of the weights of each model's training without disturbances."""
    expected = {}
    for name in names:
        done = subprocess.run(
            [sys.executable, "-m", "components", name, "train"], cwd=folder,
            env=os.environ | {"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        expected[name] = files.sha256(folder / "build" / name / "model" / "weights.safetensors")
    return expected


def while_it_lasts(seconds: float, day: Day, ui: int, victims: Sequence[str]) -> None:
    """Repeat all activities in parallel for some seconds, at least once each, and kill the victims meanwhile."""
    end = time.monotonic() + seconds

    def again(what: Callable[[], None]) -> None:
        while True:
            what()
            if time.monotonic() > end:
                return

    work: list[Callable[[], None]] = [lambda name=name: day.flow(name) for name in day.expected]
    work += [lambda: day.repro(MODELS[0]), lambda: day.repro(MODELS[1]), lambda: day.look(ui)]
    with ThreadPoolExecutor(len(work) + 1) as pool:
        doing = [pool.submit(again, what) for what in work]
        for what in victims:
            time.sleep(max(seconds, 40) / (len(victims) + 1))
            while not any(kills.kill(day.running, record.parent, what) for record in _latest(day.folder)):
                if all(each.done() for each in doing):
                    break
                time.sleep(0.5)  # until there is a flow
            else:
                day.done[f"SIGKILL of {what}"] += 1
        for each in doing:
            each.result()


def _latest(folder: Path) -> list[Path]:
    """Return the record of the flow that started last, if any."""
    found = (folder / "build" / "runs").glob("*/run.json")
    return sorted(found, key=lambda file: file.stat().st_mtime)[-1:]


def open_files(process: psutil.Process) -> int:
    """Return the number of file descriptors of a process and its descendants."""
    count = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            count += each.num_fds()
        except psutil.Error:
            continue
    return count


def in_use(process: psutil.Process) -> tuple[int, int]:
    """Return the most file descriptors, with its descendants, and the most bytes that a process has in a minute.

    A server that was just killed is back within that time.
    """
    found = []
    for _ in range(30):
        time.sleep(2)
        found.append((open_files(process), process.memory_info().rss))
    return max(count for count, _ in found), max(size for _, size in found)


def inject_everything(times: int, seed: int) -> Result:
    """Do everything at once for 20 minutes, `times` times, and check for leaks."""
    failures: list[str] = []
    summary = ""
    for number in range(times):
        with tempfile.TemporaryDirectory(prefix="pedigree-day-") as scratch:
            folder = Path(scratch) / "project"
            folder.mkdir()
            ports = kills.project(folder)
            prepare_all(folder)
            expected = undisturbed(folder)
            (ui,) = free_ports(1)
            with up(folder, ports) as running, pages(folder, ui):
                day, chance = Day(running, expected), random.Random(seed + number)
                watched = psutil.Process(running.process.pid)
                # What grows is seen in the second half: in the first one, `up` imports what it needs when something
                # dies, some seconds after that.
                while_it_lasts(MINUTES * 30, day, ui, [*kills.ANYWHERE, chance.choice(kills.ANYWHERE)])
                before = in_use(watched)
                while_it_lasts(MINUTES * 30, day, ui, chance.choices(kills.ANYWHERE, k=4))
                after = in_use(watched)
            failures += day.failures
            orphans = kills.orphans(folder)
            failures += [f"orphaned: {each}" for each in orphans]
            if after[0] > before[0] + 50:
                failures.append(f"{before[0]} descriptors became {after[0]}")
            if after[1] > 1.3 * before[1]:
                failures.append(f"{before[1] >> 20} MiB of memory became {after[1] >> 20}")
            did = ", ".join(f"{what} {count}" for what, count in sorted(day.done.items()))
            waits = Counter(line.split(" (pid")[0] for line in day.waits)
            summary = (
                f"nothing lost: {did}; a `dvc repro` waited {sum(waits.values())} times and named whom it waited "
                f"for; of `pedigree up`, at half time and at the end: {before[0]} and {after[0]} file descriptors "
                f"with its children, {before[1] >> 20} and {after[1] >> 20} MiB of memory; {len(orphans)} "
                "processes left behind"
            )
    return Result(times, summary, failures)


@contextmanager
def pages(folder: Path, port: int) -> Iterator[None]:
    """Run a user's own `mlflow ui` while the block runs."""
    command = ["-m", "mlflow", "ui", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    quick = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = folder / "ui.log"
    with log.open("w") as out:
        ui = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=os.environ | quick, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert ui.poll() is None, log.read_text()
            time.sleep(0.3)
        yield
    finally:
        processes.end(processes.tree(ui.pid))
        ui.wait()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except OSError:
        return False
    return True
