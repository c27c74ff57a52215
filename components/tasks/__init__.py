"""The tasks: one folder each, with the code for one kind of learning problem."""

import importlib
from pathlib import Path
from typing import Any

from components.contracts import Task
from components.display import brief
from components.errors import PedigreeError
from components.params import nearest


def names() -> list[str]:
    """Return the names of all tasks, which are the folders with a params.py."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/params.py"))


def load(name: str) -> Task[Any, Any]:
    """Return the task of that name.

    Raises:
        PedigreeError: there is no such task.
    """
    if name not in names():
        raise PedigreeError(
            f"there is no task {brief(name)}{nearest(name, names())}: the tasks are {', '.join(names())}"
        )
    task = importlib.import_module(f"components.tasks.{name}").TASK
    assert isinstance(task, Task)
    return task
