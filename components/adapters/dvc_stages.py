"""What the stages of dvc.yaml depend on of our own code: exactly the modules that each of them imports.

DVC runs a stage again when a file of its `deps` has changed, and knows nothing of imports. So the import graph is
walked here, imports inside functions included.
"""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import grimp
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components import files, tasks
from components.errors import PedigreeError

FILE = "dvc.yaml"
CODE = "components"
OWN = f"{CODE}/${{key}}"
"""The folder of the task that a stage runs for, as dvc.yaml names it; a task's `TASK` imports all of it."""
_BY_PATH = {"register": f"{CODE}.adapters.served_model"}
"""Code that a stage hands to MLflow as a file: no import leads to it."""


def differences(root: Path) -> list[str]:
    """Return a sentence for each stage of dvc.yaml whose deps are not the modules that it imports.

    Raises:
        PedigreeError: dvc.yaml is missing, or is not what DVC could read.
    """
    found = []
    for stage, deps, wanted in _stages(root, _read(root)):
        listed = _code(deps)
        if missing := wanted - listed:
            found.append(f"{FILE}: {stage} imports {', '.join(sorted(missing))}, which its deps lack")
        if needless := listed - wanted:
            found.append(f"{FILE}: {stage} imports no {', '.join(sorted(needless))}, which its deps name")
    return found


def write(root: Path) -> None:
    """Make the deps of every stage of dvc.yaml the modules that it imports; all else stays, comments too.

    Raises:
        PedigreeError: dvc.yaml is missing, or is not what DVC could read.
    """
    tree = _read(root)
    for _, deps, wanted in _stages(root, tree):
        for needless in _code(deps) - wanted:
            deps.remove(needless)
        # What is there stays where it is, with its comments; what is new goes where its name belongs.
        for name in sorted(wanted - {*deps}, key=_order):
            after = (place for place, dep in enumerate(deps) if _order(dep) > _order(name))
            deps.insert(next(after, len(deps)), name)
    text = io.StringIO()
    _yaml().dump(tree, text)
    files.write_text(root / FILE, text.getvalue())


def imported(roots: Iterable[str], graph: grimp.ImportGraph) -> set[str]:
    """Return the modules that Python runs for these: what they import, and the packages that a module is in."""
    found: set[str] = set()
    new = set(roots)
    while new:
        module = new.pop()
        found.add(module)
        new |= {*graph.find_modules_directly_imported_by(module), module.rpartition(".")[0]} - found - {""}
    return found


def _stages(root: Path, tree: Any) -> Iterator[tuple[str, list[Any], set[str]]]:
    """Give each stage's name, its deps, and what of our code ought to be in them, for all tasks taken together."""
    # No cache: it is quick, and a cache is one more thing that can be of yesterday.
    graph = grimp.build_graph(CODE, cache_dir=None, exclude_type_checking_imports=True)
    own = [f"{CODE}.{name}" for name in tasks.names(root)]
    inside = {module for name in own for module in (name, *graph.find_descendants(name))}
    for stage in tree.get("stages", {}):
        script = f"{CODE}.stages.{stage}"
        if script not in graph.modules:  # a stage that somebody added, with a command of another kind
            continue
        roots = [f"{CODE}.__main__", script, *inside, *filter(None, [_BY_PATH.get(stage)])]
        wanted = {_path(module, root) for module in imported(roots, graph) - inside}
        try:
            deps = tree["stages"][stage]["do"]["deps"]
        except (KeyError, TypeError):
            raise PedigreeError(
                f"{FILE}: {stage} has no `foreach` with `do` and `deps`: take {FILE} from git"
            ) from None
        yield stage, deps, {OWN, *wanted}


def _path(module: str, root: Path) -> str:
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if (root / path).is_dir() else f"{path}.py"


def _order(dep: str) -> tuple[bool, bool, str]:
    """Data and earlier stages come first, the task's own folder last."""
    return dep.startswith(f"{CODE}/"), dep == OWN, dep


def _code(deps: Iterable[Any]) -> set[str]:
    return {str(dep) for dep in deps if str(dep).startswith(f"{CODE}/")}


def _read(root: Path) -> Any:
    try:
        tree = _yaml().load(root / FILE)
    except FileNotFoundError:
        raise PedigreeError(f"there is no {FILE} in {root}: take it from git") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise PedigreeError(
            f"{FILE} is not YAML ({str(error).splitlines()[0]}): `dvc status` names the line"
        ) from None
    if not isinstance(tree, dict) or not isinstance(tree.get("stages"), dict):
        raise PedigreeError(f"{FILE} has no stages: take it from git")
    return tree


def _yaml() -> YAML:
    yaml = YAML()
    yaml.width = 4096  # no line is broken
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml
