"""The import graph of our own code: which modules others import, and the hash of their source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.contracts import Task
from components.runtime import files
from components.trust.lineage import digest, of_source

if TYPE_CHECKING:  # a training worker only hashes given modules and needs no graph
    import grimp

CODE = "components"
WORKER = ("components.jobs.fit", "components.adapters.ray_train")
"""The modules that every training worker imports, whatever its task."""
NOT_TRAINING = (
    "embedded",
    "public_data",
    "survey",
    "prepare",
    "outcomes",
    "score",
    "further_scores",
    "evaluate",
    "further_metrics",
    "served",
    "load_predict",
    "rows",
    "row_params",
    "outcomes_from",
    "draw",
    "tags",
)
"""Fields of a task that training does not call. Fields not listed here, such as new ones, count as called."""


@dataclass(frozen=True)
class Imported:
    """Modules, with the hash of their source at one moment."""

    modules: tuple[str, ...]
    sha256: str

    @property
    def edited(self) -> bool:
        """Whether the source has changed since, or differs on this host."""
        return _digest(self.modules) != self.sha256

    def differs_from(self, expected: Mapping[str, str]) -> str | None:
        """Return a file whose present hash differs from the one in `expected`, a result of `hashes`, or None."""
        files_of = {module: _file(module) for module in self.modules if module.partition(".")[0] == CODE}
        differ = (file for module, file in files_of.items() if _hash(file) != expected.get(module))
        return next((file.relative_to(_folder(CODE).parent).as_posix() for file in differ), None)


def source_now() -> str:
    """Return the hash of the present source of components/."""
    return of_source(_folder(CODE))


def of_training(task: Task[Any, Any]) -> Imported:
    """Return the modules that affect the training of a task, with the hash of their present source.

    These are all modules that a worker imports, with one exception. A task's package imports all modules of the
    task, to build `TASK`. A module is left out if only fields that training does not call (`NOT_TRAINING`) use it
    and no other module of the training imports it.
    """
    package = task.params.__module__.rpartition(".")[0]
    graph = of_imports(CODE, package.partition(".")[0])
    called, left_out = _called(task)
    for module in left_out & graph.find_modules_directly_imported_by(package):
        graph.remove_import(importer=package, imported=module)
    modules = tuple(sorted(imported([*WORKER, package, *(called & graph.modules)], graph)))
    return Imported(modules, _digest(modules))


def _called(task: Task[Any, Any]) -> tuple[set[str], set[str]]:
    """Return the modules with functions that a training calls, and those with functions that none calls."""
    called, others = set[str](), set[str]()
    for each in fields(task):
        (others if each.name in NOT_TRAINING else called).update(_defined_in(getattr(task, each.name)))
    return called, others - called


def _defined_in(value: Any) -> set[str]:
    """Return the modules that define a field's functions and classes."""
    if isinstance(value, Mapping):
        return set().union(*map(_defined_in, value.values()))
    if isinstance(value, partial):
        return set().union(*map(_defined_in, (value.func, *value.args, *value.keywords.values())))
    module = getattr(value, "__module__", None)
    return {module} if isinstance(module, str) else set()


def of_imports(*packages: str) -> grimp.ImportGraph:
    """Return the import graph of packages, including imports inside functions."""
    import grimp

    # No cache: building is quick, and a cache can be stale.
    return grimp.build_graph(*dict.fromkeys(packages), cache_dir=None, exclude_type_checking_imports=True)


def imported(roots: Iterable[str], graph: grimp.ImportGraph) -> set[str]:
    """Return these modules and all that Python imports for them, including their packages."""
    seen: set[str] = set()
    new = set(roots)
    while new:
        module = new.pop()
        seen.add(module)
        new |= {*graph.find_modules_directly_imported_by(module), module.rpartition(".")[0]} - seen - {""}
    return seen


def hashes() -> dict[str, str]:
    """Return the hash of the present source of each module in components/."""
    folder = _folder(CODE)
    names = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.py"))
    modules = (".".join([CODE, *name.parts]).removesuffix(".__init__") for name in names)
    return {module: files.sha256(_file(module)) for module in modules}


def _digest(modules: Iterable[str]) -> str:
    return digest([[module, _hash(_file(module))] for module in modules])


def _hash(file: Path) -> str | None:
    return files.sha256(file) if file.is_file() else None


def _file(module: str) -> Path:
    package, *rest = module.split(".")
    path = _folder(package).joinpath(*rest)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])
