"""SIGKILL of a flow's processes at random moments: the flow resumes by itself, with the same results."""

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

from components.adapters import dvc_data
from components.runtime import files
from components.runtime.processes import Process
from tests.chaos.results import Result
from tests.conftest import MODELS, commit, copy_project
from tests.running import Up, free_ports, up

EPOCHS = 40
MOST_SECONDS = 400
"""Maximum duration of a flow with all its faults."""
FAULTS = 5
"""Maximum number of faults of a flow."""
APART = 15.0
"""Minimum seconds between kills of a program of `up`, which gives a program up after five ends in a minute."""
STAGES = {"prepare": 1.0, "train": 25.0, "evaluate": 1.5, "register": 1.0}
"""Stages, and the maximum seconds from the start of each to a fault."""
PLANNED = (2, 4, 1, 1)
"""Relative number of faults planned for each stage; one that comes too late hits a later stage."""
PATIENCE = 90.0
"""Seconds until a process counts as left behind: Ray's agents end a minute after their driver was killed."""
OF_UP = ("the serving process", "Prefect's server")
ANYWHERE = ("the driver", *OF_UP)
IN_TRAINING = ("a training worker", "the raylet")


def project(folder: Path) -> tuple[int, int]:
    """Create a project whose trainings take seconds and resume by themselves; return its ports."""
    from ruamel.yaml import YAML

    copy_project(folder)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    for name in MODELS:
        train = params["models"][name]["train"]
        train |= {"workers": 1, "epochs": EPOCHS, "checkpoint_seconds": 0.3, "retries": 100}
    yaml.dump(params, folder / "params.yaml")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder, check=True)
    for name in (".dvc/config", ".dvcignore"):
        shutil.copyfile(Path(__file__).parents[2] / name, folder / name)
    dvc_data.add(folder, *MODELS)
    commit(folder, "A small project")
    prefect, mlflow = free_ports(2)
    return prefect, mlflow


def inject_kills(times: int, seed: int) -> Result:
    """Run flows of all tasks under `pedigree up`, and kill their processes `times` times in all."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="pedigree-kills-") as scratch:
        folder = Path(scratch) / "project"
        folder.mkdir()
        with up(folder, project(folder)) as running:
            undisturbed = {name: _finished(running, running.submit(name, {})) for name in MODELS}
            expected = {name: weights(folder, flow) for name, flow in undisturbed.items()}
            faults: Counter[str] = Counter()
            failures: list[str] = []
            slowest = 0.0
            flows = 0
            while sum(faults.values()) < times:
                name = MODELS[flows % len(MODELS)]
                flows += 1
                most = min(FAULTS, times - sum(faults.values()))
                flow = running.submit(name, {})
                reported, seconds = _under_fire(running, flow, most, chance, faults)
                slowest = max(slowest, seconds)
                failures += [f"{name} {flow}: {each}" for each in (reported or wrong(folder, flow, expected[name]))]
                print(f"  {sum(faults.values())} faults, {flows} flows, {len(failures)} failures", flush=True)
            failures += _runs(folder, flows + len(MODELS))
        failures += [f"orphaned: {each}" for each in orphans(folder)]
    of_each = ", ".join(f"{what} {count}" for what, count in sorted(faults.items()))
    return Result(
        sum(faults.values()),
        f"resumed; weights bitwise the same; one MLflow run each; no step duplicated or missing: {flows} flows "
        f"({of_each}); "
        f"the slowest flow finished in {slowest:.0f} s despite up to {FAULTS} faults; "
        f"no process left behind",
        failures,
    )


def _finished(running: Up, flow: str) -> str:
    end = time.monotonic() + MOST_SECONDS
    while running.state(flow) != "COMPLETED":
        assert time.monotonic() < end, running.log()[-3000:]
        time.sleep(0.5)
    return flow


def _under_fire(
    running: Up, flow: str, most: int, chance: random.Random, faults: Counter[str]
) -> tuple[list[str], float]:
    """Inject faults into a flow until it completes; return what went wrong, and its seconds."""
    began, mine, last = time.monotonic(), 0, dict[str, float]()
    order = list(STAGES)
    plan = sorted(chance.choices(order, PLANNED, k=most), key=order.index)
    run = running.folder / "build" / "runs" / flow
    until, what = None, ""
    while (state := running.state(flow)) != "COMPLETED":
        if time.monotonic() - began > MOST_SECONDS:
            return [f"not completed after {MOST_SECONDS} s, {state}: {running.log()[-1500:]}"], MOST_SECONDS
        if mine < most and (now := _stage(run)) is not None and order.index(now) >= order.index(plan[mine]):
            victims = ANYWHERE + (2 * IN_TRAINING if now == "train" else ())
            if until is None or what not in victims:
                until, what = time.monotonic() + chance.random() * STAGES[now], chance.choice(victims)
            if time.monotonic() >= until:
                apart = time.monotonic() - last.get(what, -math.inf) > APART
                if (apart or what not in OF_UP) and kill(running, run, what):
                    mine, last[what] = mine + 1, time.monotonic()
                    faults[f"{what} in {now}"] += 1
                    until = None
                else:
                    until += chance.random() * STAGES[now] / 5  # the process does not exist yet
        time.sleep(0.1)
    return [], time.monotonic() - began


def _stage(run: Path) -> str | None:
    """Return a flow's present stage from its files; None before the first and after the last one."""
    if not (run / "run.json").exists() or (run / "registered.json").exists():
        return None
    for output, stage in (("evaluation", "register"), ("model", "evaluate"), ("prepared", "train")):
        if (run / output).exists():
            return stage
    return "prepare"


def kill(running: Up, run: Path, what: str) -> bool:
    """Kill a process; return whether it existed."""
    try:
        process = Process.model_validate(json.loads((run / "run.json").read_text())["process"])
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
    """Kill one of the programs of `pedigree up`; return whether it existed."""
    word = "pipelines.deployments" if what == "the serving process" else "pipelines.prefect_server"
    for each in psutil.Process(running.process.pid).children():
        if word in " ".join(each.cmdline()):
            each.send_signal(signal.SIGKILL)
            return True
    return False


def weights(folder: Path, flow: str) -> str:
    """Return the hash of a flow's weights."""
    return files.sha256(folder / "build" / "runs" / flow / "model" / "weights.safetensors")


def wrong(folder: Path, flow: str, expected: str) -> list[str]:
    """Return how a flow's results differ from those of an undisturbed one."""
    run = folder / "build" / "runs" / flow
    found = [] if weights(folder, flow) == expected else ["other weights"]
    run_id = json.loads((run / "model" / "run.json").read_text())["run_id"]
    with sqlite3.connect(folder / "mlflow.db") as store:
        epochs = [
            row[0]
            for row in store.execute(
                "select value from metrics where run_uuid = ? and key = 'train/epoch'", (run_id,)
            )
        ]
        status = store.execute("select status from runs where run_uuid = ?", (run_id,)).fetchone()[0]
        tests = store.execute(
            "select key, count(*) from metrics where run_uuid = ? and key like 'test/%' group by key", (run_id,)
        )
        doubled = [key for key, count in tests if count != 1]
        registered = store.execute("select count(*) from model_versions where run_id = ?", (run_id,)).fetchone()[0]
    if sorted(epochs) != list(range(1, EPOCHS + 1)):
        found.append(f"validations after the epochs {sorted(epochs)}")
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


def orphans(folder: Path) -> list[str]:
    """Return the command lines of processes that still run in a folder when those of a killed Ray have ended."""
    end = time.monotonic() + PATIENCE
    while (found := _running(folder)) and time.monotonic() < end:
        time.sleep(1)
    return found


def _running(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder) and process.pid != os.getpid():
                found.append(" ".join(process.cmdline())[:300])
        except (psutil.Error, OSError):
            continue
    return found
