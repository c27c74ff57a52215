"""Everything at once in one checkout: flows, `dvc repro`, people's `mlflow ui`, and blows among them."""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil

from components import files, processes
from tests.chaos import kills
from tests.chaos.results import Result
from tests.conftest import TASKS
from tests.running import Up, free_ports, up

MINUTES = 20
MOST_SECONDS = 900
"""That a flow may wait for all the others and for the blows."""
DVC = [sys.executable, "-c", "from components.adapters.dvc_program import main; import sys; sys.exit(main())"]
"""The environment's `dvc`, with the code of the current folder."""


class Day:
    """What happens in a checkout where everybody works at once."""

    def __init__(self, running: Up, expected: dict[str, str]) -> None:
        self.running, self.folder, self.expected = running, running.folder, expected
        self.flows: dict[str, str] = {}
        """Which were through, and of which task."""
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []
        self.said: list[str] = []

    def flow(self, name: str) -> None:
        """Run a task's deployment to its end; nothing shows of what else happened."""
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
        """Run `dvc repro` on a task's training, whatever it thinks of the need."""
        done = subprocess.run(
            [*DVC, "repro", "--force", "--single-item", f"train@{name}"],
            cwd=self.folder, env=os.environ | {"PYTHONPATH": str(self.folder)}, capture_output=True, text=True,
            timeout=MOST_SECONDS, check=False,
        )  # fmt: skip
        self.done["dvc repro"] += 1
        self.said += [line for line in done.stderr.splitlines() if line.startswith("waiting for")]
        if done.returncode:
            self.failures.append(f"dvc repro {name}: exit code {done.returncode}: {done.stderr[-400:]}")

    def look(self, port: int) -> None:
        """Look at the runs in a person's `mlflow ui`, as its page does."""
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


def prepare_all(folder: Path) -> None:
    """Prepare all tasks, so that `dvc repro` of one stage has its inputs."""
    for name in TASKS:
        made = subprocess.run(
            [sys.executable, "-m", "dvc", "repro", "-q", f"prepare@{name}"], cwd=folder, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr


def undisturbed(folder: Path) -> dict[str, str]:
    """Return the hash of the weights of each task's training when nothing else happens."""
    expected = {}
    for name in TASKS:
        made = subprocess.run(
            [sys.executable, "-m", "components", name, "train"], cwd=folder,
            env=os.environ | {"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        expected[name] = files.sha256(folder / "build" / name / "model" / "weights.safetensors")
    return expected


def while_it_lasts(seconds: float, day: Day, ui: int, chance: random.Random, blows: int) -> None:
    """Do everything at once, again and again until the time is over, and at least once; deal blows meanwhile."""
    end = time.monotonic() + seconds

    def again(what: Callable[[], None]) -> None:
        while True:
            what()
            if time.monotonic() > end:
                return

    work: list[Callable[[], None]] = [lambda name=name: day.flow(name) for name in TASKS]
    work += [lambda: day.repro(TASKS[0]), lambda: day.repro(TASKS[1]), lambda: day.look(ui)]
    with ThreadPoolExecutor(len(work) + 1) as pool:
        doing = [pool.submit(again, what) for what in work]
        for _ in range(blows):
            time.sleep(max(seconds, 40) / (blows + 1))
            what = chance.choice(kills.ANYWHERE)
            while not any(kills.kill(day.running, place.parent, what) for place in _latest(day.folder)):
                if all(each.done() for each in doing):
                    break
                time.sleep(0.5)  # until there is a flow
            else:
                day.done[f"SIGKILL of {what}"] += 1
        for each in doing:
            each.result()


def _latest(folder: Path) -> list[Path]:
    """Return the record of the flow that began last, if one has."""
    found = (folder / "build" / "runs").glob("*/run.json")
    return sorted(found, key=lambda file: file.stat().st_mtime)[-1:]


def open_files(process: psutil.Process) -> int:
    """Return the descriptors of a process and its children."""
    count = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            count += each.num_fds()
        except psutil.Error:
            continue
    return count


def blow_everything(times: int, seed: int) -> Result:
    """Do everything at once for 20 minutes, `times` times, and see what is left."""
    failures: list[str] = []
    told = ""
    for number in range(times):
        with tempfile.TemporaryDirectory(prefix="pedigree-day-") as place:
            folder = Path(place) / "project"
            folder.mkdir()
            ports = kills.project(folder)
            prepare_all(folder)
            expected = undisturbed(folder)
            (ui,) = free_ports(1)
            with up(folder, ports) as running, pages(folder, ui):
                day, chance = Day(running, expected), random.Random(seed + number)
                while_it_lasts(120, day, ui, chance, blows=2)  # what grows at first has grown
                watched = psutil.Process(running.process.pid)
                before = open_files(watched), watched.memory_info().rss
                while_it_lasts(MINUTES * 60, day, ui, chance, blows=8)
                after = open_files(watched), watched.memory_info().rss
            failures += day.failures
            left = kills.left(folder)
            failures += [f"left over: {each}" for each in left]
            if after[0] > before[0] + 50:
                failures.append(f"{before[0]} descriptors became {after[0]}")
            if after[1] > 1.3 * before[1]:
                failures.append(f"{before[1] >> 20} MiB of memory became {after[1] >> 20}")
            did = ", ".join(f"{what} {count}" for what, count in sorted(day.done.items()))
            waits = Counter(line.split(" (pid")[0] for line in day.said)
            told = (
                f"nothing lost: {did}; {sum(waits.values())} times a `dvc repro` waited and said for whom; "
                f"descriptors of `pedigree up` and its children {before[0]}, then {after[0]}; memory of "
                f"`pedigree up` {before[1] >> 20} MiB, then {after[1] >> 20}; {len(left)} processes left"
            )
    return Result(times, told, failures)


@contextmanager
def pages(folder: Path, port: int) -> Iterator[None]:
    """Run a person's own `mlflow ui` while the block does."""
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
