"""The code dependencies of the stages in dvc.yaml: the modules and packages that each stage imports.

DVC runs a stage again when a file in its `deps` has changed, but does not follow imports. This module derives
`deps` from the import graph, including imports inside functions. A package is one dependency, its folder, although
a stage may import only some of its modules, because the time of a `dvc repro` with nothing to do grows with the
number of dependencies.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml.error import YAMLError

from components import tasks, yaml_text
from components.errors import PedigreeError
from components.runtime import files
from components.trust.imports import CODE, imported, of_imports

FILE = "dvc.yaml"
OWN = f"{CODE}/tasks/${{item.task}}"
"""The folder of the task of a stage's model, as dvc.yaml names it; a task's `TASK` imports all of it."""
_BY_MODULE = ("stages", "tasks")
"""Packages whose modules have little to do with each other."""


def differences(root: Path) -> list[str]:
    """Return a sentence for each stage of dvc.yaml whose deps are not what it imports.

    Raises:
        PedigreeError: dvc.yaml is missing or invalid.
    """
    found = []
    for stage, deps, wanted in _stages(root, _read(root)):
        listed = _code(deps)
        if missing := wanted - listed:
            found.append(f"{FILE}: {stage} imports {', '.join(sorted(missing))}, which its deps lack")
        if needless := listed - wanted:
            found.append(f"{FILE}: {stage} does not import {', '.join(sorted(needless))}, which its deps name")
    return found


def write(root: Path) -> None:
    """Make the deps of every stage of dvc.yaml what it imports; all else stays, comments too.

    Raises:
        PedigreeError: dvc.yaml is missing, or is not what DVC could read.
    """
    tree = _read(root)
    for _, deps, wanted in _stages(root, tree):
        for needless in _code(deps) - wanted:
            deps.remove(needless)
        # What is there stays where it is, with its comments; what is new goes where its name belongs.
        for name in sorted(wanted - {*deps}, key=_order):
            after = (index for index, dep in enumerate(deps) if _order(dep) > _order(name))
            deps.insert(next(after, len(deps)), name)
    text = io.StringIO()
    yaml_text.round_trip().dump(tree, text)
    files.write_text(root / FILE, text.getvalue())


def _stages(root: Path, tree: Any) -> Iterator[tuple[str, list[Any], set[str]]]:
    """Give each stage's name, its deps, and what of our code ought to be in them, for all tasks taken together."""
    graph = of_imports(CODE)
    own = [f"{CODE}.tasks.{name}" for name in tasks.names()]
    inside = {module for name in own for module in (name, *graph.find_descendants(name))}
    for stage in tree.get("stages", {}):
        script = f"{CODE}.stages.{stage}"
        if script not in graph.modules:  # a stage that somebody added, with a command of another kind
            continue
        roots = [f"{CODE}.__main__", script, *inside]
        wanted = {_path(module, root) for module in imported(roots, graph) - inside}
        try:
            deps = tree["stages"][stage]["do"]["deps"]
        except (KeyError, TypeError):
            deps = None
        if not isinstance(deps, list):
            raise PedigreeError(
                f"{FILE}: {stage} has no `foreach` with `do` and `deps`: restore {FILE} from git"
            ) from None
        yield stage, deps, {OWN, *wanted}


def _path(module: str, root: Path) -> str:
    """Return the folder of the module's package, or the module's file."""
    package = "/".join(module.split(".")[:2])
    if package != CODE and (root / package).is_dir() and package.removeprefix(f"{CODE}/") not in _BY_MODULE:
        return package
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if (root / path).is_dir() else f"{path}.py"


def _order(dep: str) -> tuple[bool, bool, str]:
    """Data and earlier stages come first, the task's own folder last."""
    return dep.startswith(f"{CODE}/"), dep == OWN, dep


def _code(deps: Iterable[Any]) -> set[str]:
    return {str(dep) for dep in deps if str(dep).startswith(f"{CODE}/")}


def _read(root: Path) -> Any:
    try:
        tree = yaml_text.round_trip().load(root / FILE)
    except FileNotFoundError:
        raise PedigreeError(f"there is no {FILE} in {root}: restore it from git") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise PedigreeError(
            f"{FILE} is not YAML ({str(error).splitlines()[0]}): `dvc status` names the line"
        ) from None
    if not isinstance(tree, dict) or not isinstance(tree.get("stages"), dict):
        raise PedigreeError(f"{FILE} has no stages: restore it from git")
    return tree
