"""python -m benchmarks.around: the minutes around training, in a fresh clone of what is committed, with its data.

What is not training of a `pedigree run` of all tasks, one after the other; a `dvc repro` that has nothing to do;
`pedigree --help`; and from `prefect deployment run` to the first update of the weights.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from benchmarks import report

ROOT = Path(__file__).parents[1]
PREFECT = "http://127.0.0.1:4200/api"
PEDIGREE = [sys.executable, "-c", "from pipelines.cli import main; main()"]
"""As the installed command, with the code of the current folder."""


def clone(folder: Path) -> Path:
    """Return a clone with its data and bytecode, in which nothing has run."""
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


def of_runs(folder: Path, whole: float) -> dict[str, dict[str, float]]:
    """Return the seconds of each task's stages, of its training alone, and of what is around that."""
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    found: dict[str, dict[str, float]] = {}
    experiments = {each.experiment_id: each.name for each in client.search_experiments()}
    runs = [each for each in client.search_runs(list(experiments)) if "seconds/train" in each.data.metrics]
    for each in sorted(runs, key=lambda each: each.info.start_time):
        metrics = each.data.metrics
        stages = {name: metrics[f"seconds/{name}"] for name in ("prepare", "train", "evaluate", "register")}
        training = metrics["speed/seconds_of_training"]
        found[experiments[each.info.experiment_id]] = stages | {
            "training": training,
            "around": sum(stages.values()) - training,
        }
    started = whole - sum(each["around"] + each["training"] for each in found.values())
    first = next(iter(found.values()))
    return found | {next(iter(found)): first | {"start and end": started, "around": first["around"] + started}}


def asked(path: str, body: dict[str, Any] | None = None) -> Any:
    """Ask Prefect's server."""
    request = urllib.request.Request(
        f"{PREFECT}/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    return json.load(urllib.request.urlopen(request, timeout=10))


def _training_artifacts(name: str) -> list[dict[str, Any]]:
    """Return how far each training of a task is, in percent as `data`, those of earlier runs too."""
    found = asked("artifacts/filter", {"artifacts": {"key": {"any_": [f"{name}-training"]}}})
    return list(found)


def deployment(folder: Path, name: str) -> float:
    """Return the seconds from `prefect deployment run` to the first update that a flow tells of."""
    with (folder / "up.log").open("w") as log:
        up = subprocess.Popen([*PEDIGREE, "up"], cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        while True:
            with suppress(urllib.error.URLError):
                asked(f"deployments/name/{name}/local")
                break
            assert up.poll() is None, (folder / "up.log").read_text()
            time.sleep(0.5)
        time.sleep(10)  # it is up
        before = [each["id"] for each in _training_artifacts(name)]
        started = time.monotonic()
        run(folder, [sys.executable, "-m", "prefect", "--no-prompt", "deployment", "run", f"{name}/local"])
        while True:
            if any(each["data"] for each in _training_artifacts(name) if each["id"] not in before):
                return time.monotonic() - started
            time.sleep(0.1)
    finally:
        up.terminate()
        up.wait(30)


def main() -> None:
    """Measure, tell, and keep what was found for docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="clone into this new folder, and leave it there")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as scratch:
        folder = clone(options.keep or Path(scratch, "project"))
        found: dict[str, Any] = {"help": [run(folder, [*PEDIGREE, "--help"]) for _ in range(5)]}
        print(f"pedigree --help: {report.spread(found['help'])} s", flush=True)
        whole = run(folder, [*PEDIGREE, "run"])
        found["runs"] = of_runs(folder, whole)
        for name, seconds in found["runs"].items():
            print(name, {what: round(number, 1) for what, number in seconds.items()}, flush=True)
        found["deployment"] = [deployment(folder, name) for name in found["runs"]]
        print(f"from deployment run to the first update: {report.spread(found['deployment'], '.1f')} s", flush=True)
        run(folder, [sys.executable, "-m", "dvc", "repro", "--quiet"])
        found["repro"] = [run(folder, [sys.executable, "-m", "dvc", "repro"]) for _ in range(5)]
        print(f"dvc repro with nothing to do: {statistics.median(found['repro']):.2f} s")
    report.keep("around", found)


if __name__ == "__main__":
    main()
