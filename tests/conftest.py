"""What is expensive and shared: one small project, each task's chain run once for the whole session."""

import importlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

# Before torch: two processes of pytest share two cores, and what they start does, too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil
import pytest
import torch
from hypothesis import HealthCheck, settings

from components import models, params
from components.adapters import dvc_data
from components.contracts import Evaluated, Prepared, Registered, Task, Trained
from components.models import Model
from components.params import TaskParams, Values
from components.training import device
from pipelines import prefect_yaml
from tests.running import python

# No test asserts a time, and what failed once fails again; `make chaos` draws others.
settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

ROOT = Path(__file__).parents[1]
CANARY = "canary-38d1f0"
"""A secret of each test's environment and of the address of the project's git remote, which no file may contain."""
os.environ["PEDIGREE_TESTS_TOKEN"] = CANARY
BF16 = pytest.mark.skipif(
    device.precision_on(torch.device("cpu"), "auto") != "bf16", reason="this processor has no bf16"
)
PARAMS = ROOT / "tests" / "params.yaml"
"""The tests' own: the project's params.yaml is its user's."""
TASK_OF = {each.name: each.task for each in models.listed(params.read(PARAMS))}
MODELS = list(TASK_OF)
EACH = [MODELS[0], *(pytest.param(name, marks=pytest.mark.long) for name in MODELS[1:])]
"""Where each model takes seconds, those of all tasks but the first wait for `make test-long`."""
MODEL_OF = {task: name for name, task in TASK_OF.items()}
"""One of each task."""


def tiny(name: str) -> ModuleType:
    """Return tests/tasks/<task>/tiny.py for a model: `SETTINGS`, `write` and `requests`."""
    return importlib.import_module(f"tests.tasks.{TASK_OF[name]}.tiny")


def copy_project(folder: Path) -> Path:
    """Copy what is tracked of this project, with tiny data and parameters that make it quick."""
    for name in ("components", "pipelines", "profiles"):
        shutil.copytree(ROOT / name, folder / name)  # with its bytecode, where there is some
    (folder / "mlruns").mkdir()
    (folder / "data").mkdir()
    for name in ("pyproject.toml", "dvc.yaml", ".gitignore", "mlruns/.gitignore"):
        shutil.copyfile(ROOT / name, folder / name)
    shrink(folder / "params.yaml")
    (folder / prefect_yaml.FILE).write_text(prefect_yaml.text(folder, models.listed(models.read(folder))))
    for name in MODELS:
        raw = folder / "data" / name
        raw.mkdir()
        tiny(name).write(raw)
    return folder


def shrink(target: Path) -> None:
    """Write the tests' params.yaml with the tasks' `SETTINGS` laid over it."""
    from ruamel.yaml import YAML

    settings = {"models": {name: tiny(name).SETTINGS for name in MODELS}}
    tree = Values(settings, {}).over(params.read(PARAMS)).tree
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
    dvc_data.add(folder, *MODELS)
    commit(folder, "A small project")
    remote = ["remote", "add", "origin", f"https://ann:{CANARY}@git.example/project.git"]
    subprocess.run(["git", *remote], cwd=folder, check=True)
    return folder


_PROJECT = pytest.StashKey[Path]()


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """A project under DVC and git, with small data; whoever changes it makes a copy first."""
    folder = pytestconfig.stash[_PROJECT] = make_project(tmp_path_factory.mktemp("project"))
    return folder


@pytest.hookimpl(tryfirst=True)  # before the test's own fixtures, and those of its module
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Connect a test of a chain to the chain's store, whatever store the tests before it were connected to."""
    root = item.config.stash.get(_PROJECT, None)
    if root and "chain_of" in getattr(item, "fixturenames", ()):
        from components.adapters import mlflow_store

        if mlflow_store.tracking_uri() != mlflow_store.store_beside(root):
            mlflow_store.connect(root)


def commit(folder: Path, message: str) -> None:
    """Commit all that git does not ignore."""
    author = ["-c", "user.name=Ann Author", "-c", "user.email=ann@example.org"]
    for command in (["add", "--all"], [*author, "commit", "--quiet", "--message", message]):
        subprocess.run(["git", *command], cwd=folder, check=True)


def copied(project: Path, folder: Path) -> Path:
    """Copy a project with its registry, but without what its runs left; a version's files stay where they are."""
    return shutil.copytree(
        project, folder, ignore=shutil.ignore_patterns("build", ".prefect", "mlruns", ".git", ".dvc")
    )


def with_broken_code(project: Path, folder: Path) -> Path:
    """Copy a project whose own code can rebuild no network any more: only what versions carry still can."""
    copied(project, folder)
    with (folder / "components" / "training" / "model_files.py").open("a") as file:
        file.write("\n\ndef rebuild(*_):\n    raise RuntimeError('the code of the checkout')\n")
    return folder


@dataclass(frozen=True)
class Chain:
    """The folders of a chain that has run, and what each stage returned."""

    model: Model
    prepared: Prepared
    trained: Trained
    evaluated: Evaluated
    registered: Registered

    @property
    def root(self) -> Path:
        """The project's folder."""
        return self.model.root

    @property
    def task(self) -> Task[Any, Any]:
        """The model's."""
        return self.model.task

    @property
    def values(self) -> TaskParams:
        """The model's parameters."""
        return self.model.params

    @property
    def raw(self) -> Path:
        """The model's raw data."""
        return self.model.raw

    def having(self, values: TaskParams) -> Model:
        """Return the model with other parameters."""
        return replace(self.model, params=values)


def register_as(chain: Chain, name: str, folder: Path) -> Registered:
    """Register a chain's model once more, under a name of the test's own, so that its aliases may move."""
    from components.stages import register

    parts = (chain.prepared, chain.trained, chain.evaluated)
    return register.register(replace(chain.model, name=name), *parts, folder / "registered.json")


def run_chain(project: Path, name: str) -> Chain:
    """Run all four stages of a model, in this process."""
    from components.adapters import mlflow_store
    from components.stages import evaluate, prepare, register, train

    model = models.load(project, name)
    build = project / "build" / f"{name}-chain"
    mlflow_store.connect(project)
    prepared = prepare.prepare(model, model.raw, build / "prepared")
    trained = train.train(model, prepared, build / "model", name=f"{name} test")
    evaluated = evaluate.evaluate(model, prepared, trained, build / "evaluation")
    registered = register.register(model, prepared, trained, evaluated, build / "registered.json")
    return Chain(model, prepared, trained, evaluated, registered)


@pytest.fixture(scope="session")
def chain_of(project: Path) -> Callable[[str], Chain]:
    """All four stages of a model, in this process, once."""
    return cache(partial(run_chain, project))


@pytest.fixture(scope="session")
def chain(chain_of: Callable[[str], Chain]) -> Chain:
    """The chain of digits, for what is the same whatever the model."""
    return chain_of("digits")


@pytest.fixture
def deepened() -> Iterator[Callable[[Path, int], None]]:
    """Make folders in one another in an existing folder, with a file in the deepest."""
    parents: list[Path] = []

    def deepen(folder: Path, levels: int) -> None:
        parents.append(folder)
        opened = os.open(folder, os.O_DIRECTORY)
        for _ in range(levels):
            os.mkdir("d", dir_fd=opened)
            inner = os.open("d", os.O_DIRECTORY, dir_fd=opened)
            os.close(opened)
            opened = inner
        os.close(os.open("1.png", os.O_CREAT, dir_fd=opened))
        os.close(opened)

    yield deepen
    subprocess.run(["rm", "-r", *parents], check=True)  # pytest's own removal recurses


def with_secrets(folder: Path) -> list[Path]:
    """Return the files below a folder that contain `CANARY`, but for git's own settings."""
    files = [path for path in folder.rglob("*") if path.is_file() and path != folder / ".git" / "config"]
    return [path for path in files if CANARY.encode() in path.read_bytes()]
