"""SIGKILL of whatever works at a flow, at random moments: it is taken up by itself, and nothing shows of it."""

import json
import math
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from components import files
from components.processes import Process
from tests.chaos.results import Result
from tests.conftest import TASKS, commit, copy_project
from tests.running import Up, free_ports, up, with_ports

EPOCHS = 40
MOST_SECONDS = 400
"""That a flow may take with all of its blows."""
BLOWS = 5
"""That a flow gets, at most."""
APART = 15.0
"""Seconds between two blows to one of `up`'s programs, which is given up when it ends five times a minute."""
STAGES = {"prepare": 1.0, "train": 25.0, "evaluate": 1.5, "register": 1.0}
"""And in how many seconds of each a blow falls, at the latest."""
PLANNED = (2, 4, 1, 1)
"""How often a blow is meant for each stage; one that comes too late falls into a later one."""
OF_UP = ("the serving process", "Prefect's server")
ANYWHERE = ("the driver", *OF_UP)
IN_TRAINING = ("a training worker", "the raylet")


def project(folder: Path) -> tuple[int, int]:
    """Make a project whose trainings last for seconds, and are taken up by themselves; return its ports."""
    from ruamel.yaml import YAML

    copy_project(folder)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    for name in TASKS:
        train = params["tasks"][name]["train"]
        train |= {"workers": 1, "epochs": EPOCHS, "checkpoint_seconds": 0.3, "retries": 100}
    yaml.dump(params, folder / "params.yaml")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder, check=True)
    for name in (".dvc/config", ".dvcignore"):
        shutil.copyfile(Path(__file__).parents[2] / name, folder / name)
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data"], cwd=folder, check=True)
    prefect, mlflow = free_ports(2)
    with_ports(folder, (prefect, mlflow))
    commit(folder, "A small project")
    return prefect, mlflow


def blow_kills(times: int, seed: int) -> Result:
    """Run flows of all tasks under `pedigree up` and kill what works at them, `times` times in all."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="pedigree-kills-") as place:
        folder = Path(place) / "project"
        folder.mkdir()
        with up(folder, project(folder)) as running:
            whole = {name: _finished(running, running.submit(name, {})) for name in TASKS}
            expected = {name: weights(folder, flow) for name, flow in whole.items()}
            dealt: Counter[str] = Counter()
            failures: list[str] = []
            slowest = 0.0
            flows = 0
            while sum(dealt.values()) < times:
                name = TASKS[flows % len(TASKS)]
                flows += 1
                most = min(BLOWS, times - sum(dealt.values()))
                flow = running.submit(name, {})
                told, seconds = _under_fire(running, flow, most, chance, dealt)
                slowest = max(slowest, seconds)
                failures += [f"{name} {flow}: {each}" for each in (told or wrong(folder, flow, expected[name]))]
                print(f"  {sum(dealt.values())} blows, {flows} flows, {len(failures)} failures", flush=True)
            failures += _runs(folder, flows + len(TASKS))
        failures += [f"left over: {each}" for each in left(folder)]
    of_each = ", ".join(f"{what} {count}" for what, count in sorted(dealt.items()))
    return Result(
        sum(dealt.values()),
        f"resumed; weights bitwise the same; one MLflow run each; no step doubled or missing: {flows} flows "
        f"({of_each}); "
        f"the flow that took longest was through in {slowest:.0f} s with {BLOWS} blows at most; "
        f"no process left",
        failures,
    )


def _finished(running: Up, flow: str) -> str:
    end = time.monotonic() + MOST_SECONDS
    while running.state(flow) != "COMPLETED":
        assert time.monotonic() < end, running.log()[-3000:]
        time.sleep(0.5)
    return flow


def _under_fire(
    running: Up, flow: str, most: int, chance: random.Random, dealt: Counter[str]
) -> tuple[list[str], float]:
    """Deal blows to a flow until it is through; return what went wrong, and its seconds."""
    began, mine, last = time.monotonic(), 0, dict[str, float]()
    order = list(STAGES)
    plan = sorted(chance.choices(order, PLANNED, k=most), key=order.index)
    place = running.folder / "build" / "runs" / flow
    until, what = None, ""
    while (state := running.state(flow)) != "COMPLETED":
        if time.monotonic() - began > MOST_SECONDS:
            return [f"not through after {MOST_SECONDS} s, {state}: {running.log()[-1500:]}"], MOST_SECONDS
        if mine < most and (now := _stage(place)) is not None and order.index(now) >= order.index(plan[mine]):
            victims = ANYWHERE + (2 * IN_TRAINING if now == "train" else ())
            if until is None or what not in victims:
                until, what = time.monotonic() + chance.random() * STAGES[now], chance.choice(victims)
            if time.monotonic() >= until:
                apart = time.monotonic() - last.get(what, -math.inf) > APART
                if (apart or what not in OF_UP) and kill(running, place, what):
                    mine, last[what] = mine + 1, time.monotonic()
                    dealt[f"{what} in {now}"] += 1
                    until = None
                else:
                    until += chance.random() * STAGES[now] / 5  # it is not there yet
        time.sleep(0.1)
    return [], time.monotonic() - began


def _stage(place: Path) -> str | None:
    """Return which stage a flow is in, by its files; None before the first and after the last one."""
    if not (place / "run.json").exists() or (place / "registered.json").exists():
        return None
    for made, stage in (("evaluation", "register"), ("model", "evaluate"), ("prepared", "train")):
        if (place / made).exists():
            return stage
    return "prepare"


def kill(running: Up, place: Path, what: str) -> bool:
    """Kill a process; tell whether it was there."""
    try:
        process = Process.model_validate(json.loads((place / "run.json").read_text())["process"])
        if process.gone:
            return False
        driver = process.pid
        if what == "the driver":
            victims = [psutil.Process(driver)]
        elif what in IN_TRAINING:
            word = "RayTrainWorker" if what == "a training worker" else "raylet"
            family = psutil.Process(driver).children(recursive=True)
            victims = [each for each in family if word in " ".join(each.cmdline()[:1])]
        else:
            return kill_child(running, what)
        for victim in victims[:1]:
            victim.send_signal(signal.SIGKILL)
    except (psutil.Error, OSError, ValueError):
        return False
    return bool(victims)


def kill_child(running: Up, what: str) -> bool:
    """Kill one of the programs of `pedigree up`; tell whether it was there."""
    word = "pipelines.serve" if what == "the serving process" else "prefect server start"
    for each in psutil.Process(running.process.pid).children():
        if word in " ".join(each.cmdline()):
            each.send_signal(signal.SIGKILL)
            return True
    return False


def weights(folder: Path, flow: str) -> str:
    """Return the hash of the weights that a flow made."""
    return files.sha256(folder / "build" / "runs" / flow / "model" / "weights.safetensors")


def wrong(folder: Path, flow: str, expected: str) -> list[str]:
    """Return what shows of the blows in what a flow has left."""
    place = folder / "build" / "runs" / flow
    found = [] if weights(folder, flow) == expected else ["other weights"]
    run_id = json.loads((place / "model" / "run.json").read_text())["run_id"]
    with sqlite3.connect(folder / "mlflow.db") as store:
        steps = [
            row[0]
            for row in store.execute("select step from metrics where run_uuid = ? and key = 'epoch'", (run_id,))
        ]
        status = store.execute("select status from runs where run_uuid = ?", (run_id,)).fetchone()[0]
        tests = store.execute(
            "select key, count(*) from metrics where run_uuid = ? and key like 'test/%' group by key", (run_id,)
        )
        doubled = [key for key, count in tests if count != 1]
        registered = store.execute("select count(*) from model_versions where run_id = ?", (run_id,)).fetchone()[0]
    if sorted(steps) != list(range(1, EPOCHS + 1)):
        found.append(f"steps {sorted(steps)}")
    if status != "FINISHED":
        found.append(f"its MLflow run is {status}")
    if doubled:
        found.append(f"logged more than once: {doubled}")
    if registered != 1:
        found.append(f"{registered} versions")
    return found


def _runs(folder: Path, flows: int) -> list[str]:
    with sqlite3.connect(folder / "mlflow.db") as store:
        runs = store.execute("select count(*) from runs").fetchone()[0]
    return [] if runs == flows else [f"{runs} MLflow runs of {flows} flows"]


def left(folder: Path) -> list[str]:
    """Return the processes that work in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder) and process.pid != os.getpid():
                found.append(" ".join(process.cmdline())[:80])
        except (psutil.Error, OSError):
            continue
    return found
