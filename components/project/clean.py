"""Finds and removes what nothing needs below build/, except for flow runs."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from components import models, params
from components.adapters import dvc_data, git, mlflow_versions
from components.errors import PedigreeError
from components.jobs.job import UNFINISHED, folder_name
from components.params import FILE, flat
from components.registry import trace
from components.runtime import files, locks
from components.stages import prepare, train


@dataclass(frozen=True)
class Removable:
    """Something that can be removed."""

    what: str
    path: Path
    parts: Sequence[Path]
    """The paths to remove: the item and its lock, or some of its content."""
    resumable: bool = False
    """Whether it was interrupted and the same command resumes it."""
    holding: Callable[[], AbstractContextManager[bool]] = lambda: nullcontext(True)
    """Tries to lock the item during removal; yields False if a process holds it."""


def found(root: Path) -> list[Removable]:
    """Return everything that can be removed, except for flow runs."""
    leftovers = list(_leftovers(root))
    return [*_trainings(root), *_reproduced(root), *leftovers, *_worktrees(root, leftovers), *_locks(root)]


def _trainings(root: Path) -> Iterator[Removable]:
    """Yield the unfinished trainings of `dvc repro` that no process holds."""
    for folder in sorted((root / "build").glob(f"*/{UNFINISHED}")):
        trainings = [path for path in sorted(folder.iterdir()) if path.is_dir()]
        resumable = _resumable(root, folder.parent.name) if trainings else None
        for training in trainings:
            lock = training.with_name(f"{training.name}.lock")
            if not locks.held(lock):
                again = resumable is None or training.name in resumable
                what = "interrupted training" if again else "orphaned training"
                parts = [training, lock, locks.note_of(lock)]
                yield Removable(what, training, parts, again, partial(locks.if_free, lock))


def _resumable(root: Path, name: str) -> set[str] | None:
    """Return the names of the training folders that a stage would resume now, or None if that is unknown."""
    if dvc_data.busy(root):  # DVC may be about to prepare the data of an interrupted training
        return None
    with suppress(PedigreeError):
        if name not in models.names(root):
            return set()
        model = models.load(root, name)
        return {folder_name(train.key_now(model, prepare.load(model.build / "prepared")))}
    return None


def _reproduced(root: Path) -> Iterator[Removable]:
    for folder in sorted((root / "build" / models.REPRODUCED).glob("[!.]*")):
        yield Removable("reproduction", folder, [folder])


def _leftovers(root: Path) -> Iterator[Removable]:
    """Yield what processes were writing when they were killed."""
    last: Path | None = None
    for path in files.left_below(root / "build"):
        if last is None or not path.is_relative_to(last):
            last = path
            yield Removable("leftover", path, [path], holding=partial(files.left_behind, path))


def _worktrees(root: Path, leftovers: Iterable[Removable]) -> Iterator[Removable]:
    """Yield worktrees of `pedigree reproduce` that git still lists although their folders are gone."""
    build = (root / "build").resolve()
    for folder in git.worktrees(root):
        inside = any(folder.is_relative_to(each.path.resolve()) for each in leftovers)
        if folder.is_relative_to(build) and not folder.exists() and not inside:
            yield Removable("git worktree", folder, [folder])


def _locks(root: Path) -> Iterator[Removable]:
    """Yield the locks of trainings and flow runs that are gone."""
    build = root / "build"
    of_runs = ((lock, lock.name.removeprefix(".")) for lock in build.glob(f"{models.RUNS}/.?*.lock"))
    of_trainings = ((lock, lock.name) for lock in build.glob(f"*/{UNFINISHED}/*.lock"))
    for lock, name in sorted([*of_runs, *of_trainings]):
        if files.is_hidden(lock):
            continue
        if not lock.with_name(name.removesuffix(".lock")).exists() and not locks.held(lock):
            parts = [lock, locks.note_of(lock)]
            yield Removable("stale lock", lock, parts, holding=partial(locks.if_free, lock))


def named(root: Path, others: Iterable[str]) -> list[Path]:
    """Return the paths below build/ that params.yaml, profiles/, any version or `others` name."""
    trees: list[Any] = [params.read(file).tree for file in (root / FILE, *sorted(root.glob("profiles/*.yaml")))]
    for version in mlflow_versions.versions():
        with suppress(PedigreeError):  # registered by hand
            trees.append(trace.lineage_of(version).params)
    build = (root / "build").resolve()
    texts = {
        value for tree in trees for value in flat(tree).values() if isinstance(value, str) and "\0" not in value
    } | {*others}
    paths = ((root / text).resolve() for text in texts)
    return sorted(path for path in paths if path.is_relative_to(build) and path != build)


def needs(item: Removable, paths: Iterable[Path]) -> bool:
    """Return whether one of the paths is inside an item's parts, or contains one of them."""
    parts = [part.resolve() for part in item.parts]
    return any(path.is_relative_to(part) or part.is_relative_to(path) for path in paths for part in parts)


def freed(items: Iterable[Removable]) -> list[int]:
    """Return the bytes freed by each item if they are removed in this order.

    A file with another hard link elsewhere, such as prepared data in a flow run's folder, frees nothing.
    """
    names: Counter[tuple[int, int]] = Counter()

    def of(file: Path) -> int:
        with suppress(FileNotFoundError):
            status = file.lstat()
            if not S_ISDIR(status.st_mode):
                names[status.st_dev, status.st_ino] += 1
                return status.st_size if names[status.st_dev, status.st_ino] == status.st_nlink else 0
        return 0

    return [sum(of(file) for part in item.parts for file in [part, *part.rglob("*")]) for item in items]


def without_inner(items: Sequence[Removable]) -> list[Removable]:
    """Return the items without those that are removed with another one."""
    parts = {part for item in items for part in item.parts}
    return [item for item in items if not any(parts.intersection(part.parents) for part in item.parts)]


def remove(item: Removable, root: Path) -> bool:
    """Remove an item with its lock, unless a process holds it; return whether it was removed.

    Raises:
        PedigreeError: a part cannot be removed.
    """
    with item.holding() as free:
        if free:
            for folder in git.worktrees(root):
                if any(folder.is_relative_to(part.resolve()) for part in item.parts):
                    git.remove_worktree(root, folder)
            for part in item.parts:
                files.remove(part)
                if part.exists():
                    raise PedigreeError(
                        f"{part} cannot be removed: make it writable for this user, and run the same command again"
                    )
        return free
