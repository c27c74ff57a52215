"""python -m benchmarks.around: the overhead around training, in a fresh clone of the commit with its data.

This measures everything but training in a `pedigree run` of all models, a `dvc repro` with nothing to do,
`pedigree --help`, and the time from `prefect deployment run` to the first update of the weights.
"""

import argparse
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from benchmarks import report
from components.models import STAGES
from components.runtime import login

ROOT = Path(__file__).parents[1]
PREFECT = "http://127.0.0.1:4200/api"
PEDIGREE = [sys.executable, "-c", "from pipelines.cli import main; main()"]
"""The installed command, with the code of the current folder."""
PATIENCE = 900
"""Maximum seconds of a flow."""


def clone(folder: Path) -> Path:
    """Return a new clone with data and bytecode."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    run(folder, [sys.executable, "-m", "compileall", "-q", "components", "pipelines"])
    run(folder, [*PEDIGREE, "data"])
    return folder


def run(folder: Path, command: list[str]) -> float:
    """Run a command to its end; return the seconds it took."""
    started = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command}:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
    return time.monotonic() - started


def run_all(folder: Path) -> list[float]:
    """Run all models; return the seconds until each model's first stage, and until the end."""
    started, output, stages = time.monotonic(), [], [0.0]
    command = subprocess.Popen(
        [*PEDIGREE, "run"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert command.stdout is not None
    for line in command.stdout:
        output.append(line)
        if "prepare …" in line:
            stages.append(time.monotonic() - started)
    if command.wait():
        raise SystemExit("".join(output[-50:]))
    return [*stages, time.monotonic() - started]


def of_runs(folder: Path, stages: list[float]) -> dict[str, dict[str, float]]:
    """Return the seconds of each model's stages, of its training, and of everything around the training.

    A model's time is from its first line of output to the next model's; the first one's starts with the command,
    and the last one's ends with it.
    """
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    found: dict[str, dict[str, float]] = {}
    experiments = {each.experiment_id: each.name for each in client.search_experiments()}
    runs = [each for each in client.search_runs(list(experiments)) if "seconds/train" in each.data.metrics]
    begins, ends = [0.0, *stages[2:-1]], stages[2:]
    ordered = sorted(runs, key=lambda each: each.info.start_time)
    for each, begin, end in zip(ordered, begins, ends, strict=True):
        metrics = each.data.metrics
        seconds = {name: metrics[f"seconds/{name}"] for name in STAGES}
        training = metrics["speed/seconds_of_training"]
        found[experiments[each.info.experiment_id]] = seconds | {
            "training": training,
            "around": end - begin - training,
        }
    return found


def request(folder: Path, path: str, body: dict[str, Any] | None = None) -> Any:
    """Send a request to Prefect's server of a project, with its login and a token against forged requests."""
    headers = {
        "content-type": "application/json",
        "authorization": f"Basic {base64.b64encode(login.of(folder).encode()).decode()}",
    }
    if body is not None:
        client = str(uuid.uuid4())
        token = request(folder, f"csrf-token?client={client}")["token"]
        headers |= {"prefect-csrf-client": client, "prefect-csrf-token": token}
    data = None if body is None else json.dumps(body).encode()
    message = urllib.request.Request(f"{PREFECT}/{path}", data, headers)
    return json.load(urllib.request.urlopen(message, timeout=10))


def _training_artifacts(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the progress artifacts of a model's trainings, including earlier runs; `data` is a percentage."""
    return list(request(folder, "artifacts/filter", {"artifacts": {"key": {"any_": [f"{name}-training"]}}}))


def deployments(folder: Path, names: list[str]) -> list[float]:
    """Return for each model the seconds from `prefect deployment run` to the first update reported by its flow."""
    log = folder / "up.log"
    with log.open("w") as lines:
        up = subprocess.Popen([*PEDIGREE, "up"], cwd=folder, stdout=lines, stderr=subprocess.STDOUT)

    def wait(until: Callable[[], bool], pause: float) -> None:
        started = time.monotonic()
        while True:
            with suppress(OSError):  # a busy server answers late or with an error
                if until():
                    return
            if up.poll() is not None or time.monotonic() - started > PATIENCE:
                raise SystemExit(f"`pedigree up` ended, or took over {PATIENCE} s:\n{log.read_text()[-3000:]}")
            time.sleep(pause)

    def one(name: str) -> float:
        before = [each["id"] for each in _training_artifacts(folder, name)]
        started = time.monotonic()
        run(folder, [sys.executable, "-m", "prefect", "--no-prompt", "deployment", "run", f"{name}/local"])
        wait(
            lambda: any(each["data"] for each in _training_artifacts(folder, name) if each["id"] not in before), 0.1
        )
        seconds = time.monotonic() - started
        wait(lambda: _all_completed(folder), 1.0)  # otherwise the next flow would wait for this one
        return seconds

    try:
        wait(lambda: all(_is_deployed(folder, name) for name in names), 0.5)
        time.sleep(10)  # programs that are still starting would slow down the first flow
        return [one(name) for name in names]
    finally:
        up.terminate()
        up.wait(30)


def _is_deployed(folder: Path, name: str) -> bool:
    return bool(request(folder, f"deployments/name/{name}/local"))


def _all_completed(folder: Path) -> bool:
    states = [each["state_type"] for each in request(folder, "flow_runs/filter", {})]
    if {"FAILED", "CRASHED", "CANCELLED"} & set(states):
        raise SystemExit(f"a flow did not complete: {states}")
    return all(state == "COMPLETED" for state in states)


def main() -> None:
    """Measure, print the results, and record them for docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="clone into this new folder, and keep it")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as scratch:
        folder = clone(options.keep or Path(scratch, "project"))
        found: dict[str, Any] = {"help": [run(folder, [*PEDIGREE, "--help"]) for _ in range(5)]}
        print(f"pedigree --help: {report.spread(found['help'])} s", flush=True)
        found["runs"] = of_runs(folder, run_all(folder))
        for name, seconds in found["runs"].items():
            print(name, {what: round(number, 1) for what, number in seconds.items()}, flush=True)
        found["deployment"] = deployments(folder, list(found["runs"]))
        print(f"from deployment run to the first update: {report.spread(found['deployment'], '.1f')} s", flush=True)
        run(folder, [sys.executable, "-m", "dvc", "repro", "--quiet"])
        found["repro"] = [run(folder, [sys.executable, "-m", "dvc", "repro"]) for _ in range(5)]
        print(f"dvc repro with nothing to do: {statistics.median(found['repro']):.2f} s")
    report.record("around", found)


if __name__ == "__main__":
    main()
