"""The one list of tasks: the sections of params.yaml, each with a folder of its own beside this file."""

import importlib
from pathlib import Path
from typing import Any

from components.contracts import Task
from components.errors import PedigreeError
from components.params import FILE, nearest, read


def names(root: Path) -> list[str]:
    """Return the tasks that the project at `root` has parameters for, in the order of params.yaml."""
    values = read(root / FILE)
    sections = values.tree.get("tasks")
    if not isinstance(sections, dict) or not sections:
        raise PedigreeError(f"{FILE}: there is no `tasks:` section with at least one task in it: add one")
    for name in sections:
        if name not in _folders():
            raise PedigreeError(
                f"{values.place(('tasks', name))}: there is no task {name}{nearest(name, _folders())}: "
                f"mend the name, or add the folder components/{name}"
            )
    return list(sections)


def load(name: str) -> Task[Any]:
    """Return the task of that name.

    Raises:
        PedigreeError: there is no such task.
    """
    if name not in _folders():
        raise PedigreeError(f"there is no task {name!r}{nearest(name, _folders())}: the tasks are {_listed()}")
    task = importlib.import_module(f"components.{name}").TASK
    assert isinstance(task, Task)
    return task


def _folders() -> list[str]:
    """A task's folder is known by its params.py: nothing else has parameters of its own."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/params.py"))


def _listed() -> str:
    return ", ".join(_folders())
