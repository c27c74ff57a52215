"""What is expensive and shared: one small project, each task's chain run once for the whole session."""

import importlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

# Before torch: two processes of pytest share two cores, and what they start does, too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil
import pytest
import torch

from components import tasks
from components.contracts import Evaluated, Prepared, Registered, Task, Trained
from components.params import TaskParams
from components.training import device
from tests.running import python

ROOT = Path(__file__).parents[1]
BF16 = pytest.mark.skipif(
    device.precision_on(torch.device("cpu"), "auto") != "bf16", reason="this processor has no bf16"
)
TASKS = tasks.names(ROOT)


def tiny(name: str) -> ModuleType:
    """Return a task's tests/<name>/tiny.py: `SETTINGS`, `write` and `requests`."""
    return importlib.import_module(f"tests.{name}.tiny")


def copy_project(folder: Path) -> Path:
    """Copy what is tracked of this project, with tiny data and parameters that make it quick."""
    for name in ("components", "pipelines", "profiles"):
        shutil.copytree(ROOT / name, folder / name)  # with its bytecode, where there is some
    (folder / "mlruns").mkdir()
    for name in ("pyproject.toml", "dvc.yaml", "prefect.yaml", ".gitignore", "mlruns/.gitignore"):
        shutil.copyfile(ROOT / name, folder / name)
    shrink(folder / "params.yaml")
    for name in TASKS:
        raw = folder / "data" / name
        raw.mkdir(parents=True)
        tiny(name).write(raw)
    return folder


def shrink(target: Path) -> None:
    """Write params.yaml with the tasks' `SETTINGS` laid over it."""
    from ruamel.yaml import YAML

    from components.params import Values, read

    settings = {"tasks": {name: tiny(name).SETTINGS for name in TASKS}}
    tree = Values(settings, {}).over(read(ROOT / "params.yaml")).tree
    with target.open("w") as file:
        YAML().dump(tree, file)


def run_in(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a Python module in a project to its end."""
    return python(folder, 200, "-m", *arguments, **env)


def listening(pid: int) -> set[str]:
    """Return the addresses on which a process and its descendants take connections."""
    top, found = psutil.Process(pid), set()
    for process in [top, *top.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            sockets = process.net_connections("inet")
            found |= {s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN or s.type == socket.SOCK_DGRAM}
    return found


LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
"""The last is how a socket of IPv6 says 127.0.0.1."""


def make_project(folder: Path) -> Path:
    """Make a project under DVC and git, with small data, in an empty folder."""
    copy_project(folder)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder, check=True)
    for name in (".dvc/config", ".dvcignore"):
        shutil.copyfile(ROOT / name, folder / name)
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data"], cwd=folder, check=True)
    commit(folder, "A small project")
    return folder


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project under DVC and git, with small data; whoever changes it makes a copy first."""
    return make_project(tmp_path_factory.mktemp("project"))


def commit(folder: Path, message: str) -> None:
    """Commit all that git does not ignore."""
    author = ["-c", "user.name=Ann Author", "-c", "user.email=ann@example.org"]
    for command in (["add", "--all"], [*author, "commit", "--quiet", "--message", message]):
        subprocess.run(["git", *command], cwd=folder, check=True)


def with_broken_code(project: Path, folder: Path) -> Path:
    """Copy a project whose own code can rebuild no network any more: only what versions carry still can."""
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns("build", ".prefect", "mlruns", ".git", ".dvc"))
    with (folder / "components" / "training" / "saved.py").open("a") as file:
        file.write("\n\ndef rebuild(*_):\n    raise RuntimeError('the code of the checkout')\n")
    return folder


@dataclass(frozen=True)
class Chain:
    """The folders of a chain that has run, and what each stage returned."""

    root: Path
    task: Task[Any]
    values: TaskParams
    prepared: Prepared
    trained: Trained
    evaluated: Evaluated
    registered: Registered

    @property
    def raw(self) -> Path:
        """The task's raw data."""
        return self.root / "data" / self.task.name


def register_as(chain: Chain, name: str, folder: Path) -> Registered:
    """Register a chain's model once more, under a name of the test's own, so that its aliases may move."""
    from components.stages import register

    as_named = chain.values.register_.model_copy(update={"name": name})
    values = chain.values.model_copy(update={"register_": as_named})
    parts = (chain.prepared, chain.trained, chain.evaluated)
    return register.register(chain.task, values, *parts, folder / "registered.json")


def run_chain(project: Path, name: str) -> Chain:
    """Run all four stages of a task, in this process."""
    from components import params
    from components.adapters import mlflow_store
    from components.stages import evaluate, prepare, register, train
    from components.stages.origin import Origin

    task = tasks.load(name)
    values = params.validate(task.params, params.read(project / "params.yaml"), ("tasks", name))
    build = project / "build" / f"{name}-chain"
    mlflow_store.connect(project)
    prepared = prepare.prepare(task, values, project / "data" / name, build / "prepared")
    trained = train.train(task, values, prepared, build / "model", Origin(project), f"{name} test")
    evaluated = evaluate.evaluate(task, values, prepared, trained, build / "evaluation")
    registered = register.register(task, values, prepared, trained, evaluated, build / "registered.json")
    return Chain(project, task, values, prepared, trained, evaluated, registered)


@pytest.fixture(scope="session")
def chain_of(project: Path) -> Callable[[str], Chain]:
    """All four stages of a task, in this process, once."""
    return cache(partial(run_chain, project))


@pytest.fixture(scope="session")
def chain(chain_of: Callable[[str], Chain]) -> Chain:
    """The chain of vision, for what is the same whatever the task."""
    return chain_of("vision")
