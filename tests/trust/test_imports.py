"""A training is known by the code that it runs, and by no other code."""

import importlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from types import FrameType

import grimp
import pytest

from components import tasks
from components.contracts import Worker
from components.training import device, loop
from components.trust import imports
from tests.conftest import EACH, MODEL_OF, ROOT
from tests.stages.test_chain import changed

EDITS = """
import json, sys
from pathlib import Path
from components import tasks
from components.trust import imports

task = tasks.load("image_classification")
before = imports.of_training(task)
edited = {}
for name in sys.argv[1:]:
    code = Path(name).read_text()
    Path(name).write_text(code + "# An edit.\\n")
    edited[name] = (before.edited, imports.of_training(task) != before, before.differs_from(imports.hashes()))
    Path(name).write_text(code)
model = Path("components/tasks/image_classification/model.py")
model.write_text(model.read_text() + "\\n\\ndef later():\\n    from components.trust import gate\\n")
new = set(imports.of_training(task).modules) - set(before.modules)
print(json.dumps({"edited": edited, "new": sorted(new)}))
"""
OF_VISION = (
    "components/__init__.py",
    "components/adapters/ray_train.py",
    "components/classification/loss.py",
    "components/params.py",
    "components/jobs/fit.py",
    "components/training/loop.py",
    "components/training/optimization.py",
    "components/tasks/image_classification/__init__.py",
    "components/images/decoding/decode.py",
    "components/tasks/image_classification/model.py",
    "components/tasks/image_classification/params.py",
    "components/tasks/image_classification/prepare.py",
    "components/tasks/image_classification/train.py",
)
OTHER = (
    "components/adapters/mlflow_versions.py",
    "components/tasks/language_model/model.py",
    "components/stages/evaluate.py",
    "components/stages/register.py",
    "components/trust/gate.py",
    "components/tasks/image_classification/data.py",
    "components/tasks/image_classification/evaluate.py",
    "components/tasks/image_classification/serve.py",
    "pipelines/flow.py",
)


@pytest.fixture(scope="module")
def after_edits(tmp_path_factory) -> dict:
    """What became of the source of vision's training when files of a checkout were edited one by one."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("components", "pipelines"):
        shutil.copytree(ROOT / name, folder / name)
    done = subprocess.run(
        [sys.executable, "-c", EDITS, *OF_VISION, *OTHER], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("file", OF_VISION)
def test_an_edit_of_a_module_that_training_imports_is_other_code(after_edits, file):
    assert after_edits["edited"][file] == [True, True, None]


@pytest.mark.parametrize("file", OTHER)
def test_an_edit_of_other_code_leaves_a_training_as_it_is(after_edits, file):
    assert after_edits["edited"][file] == [False, False, None]


def test_what_a_module_of_the_training_newly_imports_is_of_the_training(after_edits):
    assert after_edits["new"] == ["components.trust.gate", "components.trust.intervals"]


def modules_that_run(call: Callable[[], None]) -> set[str]:
    """Return those of our modules of which a call runs functions, in whatever thread."""
    found = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith("components"):
            found.add(name)

    threading.settrace(note)
    sys.settrace(note)
    try:
        call()
    finally:
        sys.settrace(None)
        threading.settrace(None)
    return found


@pytest.mark.parametrize("name", EACH)
def test_a_training_runs_code_of_its_source_alone(chain_of, tmp_path, name):
    def fail(*_: object) -> None:
        raise AssertionError

    chain = chain_of(name)
    task = replace(chain.task, **dict.fromkeys(imports.NOT_TRAINING, fail))
    values, worker = changed(chain, epochs=1), Worker(device.CPU)
    ran = modules_that_run(lambda: loop.fit(task, values, chain.prepared, tmp_path, worker))
    assert f"components.tasks.{chain.task.name}.train" in ran
    assert ran <= {*imports.of_training(chain.task).modules}


@pytest.mark.parametrize("name", MODEL_OF)
def test_a_field_of_a_task_that_nobody_thought_of_counts_as_one_that_training_calls(name, monkeypatch):
    task = tasks.load(name)
    monkeypatch.setattr(imports, "NOT_TRAINING", ())
    everything = {*imports.of_training(task).modules}
    assert {each.__module__ for each in (getattr(task, f.name) for f in fields(task)) if callable(each)} <= {
        *everything,
        "builtins",
    }


def test_a_loss_that_is_handed_to_a_shared_step_is_of_the_training():
    task = tasks.load("image_classification")
    evaluating = importlib.import_module("components.tasks.image_classification.evaluate")
    assert evaluating.__name__ not in imports.of_training(task).modules
    with_loss = replace(task, step=partial(task.step, loss=evaluating.evaluate))
    assert evaluating.__name__ in imports.of_training(with_loss).modules


def test_a_package_runs_before_what_is_in_it_and_what_it_imports_too():
    graph = grimp.ImportGraph()
    packages = ("components", "components.a", "components.b", "components.c", "components.d")
    for name in (*packages, "components.a.deep", "components.b.deep"):
        graph.add_module(name)
    graph.add_import(importer="components.a.deep", imported="components.b.deep")
    graph.add_import(importer="components.b", imported="components.c")
    found = imports.imported(["components.a.deep"], graph)
    assert found == {*packages[:4], "components.a.deep", "components.b.deep"}
