"""Brings data/: the version that data.dvc pins, or a public data set that becomes the pinned version."""

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from components import files
from components.adapters import dvc_data
from components.adapters.dvc_data import DATA, PIN, Version
from components.contracts import Task
from components.errors import PedigreeError
from components.params import nearest
from components.trust.lineage import NONE, Data

Tasks = Mapping[str, Task[Any]]

_log = logging.getLogger("pedigree.data")


def bring(root: Path, tasks: Tasks, accept: bool) -> str:
    """Make data/ what data.dvc pins; with `accept`, make data.dvc pin what data/ is.

    The pinned version comes from DVC's cache, from its remote, or is rebuilt from the tasks' embedded data.

    Args:
        root: The project's folder.
        tasks: By name; each has its raw files in data/<name>/.
        accept: Pin what is there, whatever it is; with nothing there, the embedded data.

    Returns:
        A sentence on what was done.

    Raises:
        PedigreeError: data/ is something else than data.dvc pins, or the pinned version cannot be had.
    """
    with dvc_data.alone(root):
        pin = dvc_data.pinned_version(root)
        if not _filled(root / DATA):
            return _rebuild(root, tasks, None) if accept else _restore(root, tasks, pin)
        if accept:
            return _pin(root, "what is there")
        found = dvc_data.version_of(root / DATA, root)
        if found != pin:
            raise _differs(root, found, pin)
        return f"data/ is what {PIN} pins ({_short(found)}): nothing to do"


def fetch(root: Path, tasks: Tasks, name: str, cache: Path) -> str:
    """Put the public data set `name` in the place of its task's folder in data/, and pin the new version.

    Args:
        root: The project's folder.
        tasks: By name; the first whose `public_data` has `name` gets it.
        name: Of the data set, for example cifar10.
        cache: Folder for downloads, made here; what is in it is not downloaded again.

    Returns:
        A sentence on what was done.

    Raises:
        PedigreeError: nobody knows `name`, or the present files are in no version that DVC could bring back.
    """
    task, write = _public(tasks, name)
    if not _filled(root / DATA) and dvc_data.pinned(root) is not None:
        bring(root, tasks, accept=False)  # or else the new version would be without the other tasks' files
    _refuse_loss(root, task)
    cache.mkdir(parents=True, exist_ok=True)
    with files.scratch(root / DATA) as scratch:
        _log.info("fetching %s into data/%s; downloads are kept in %s", name, task, cache)
        folder = scratch / task
        folder.mkdir()
        write(folder, cache)
        with dvc_data.alone(root):
            _refuse_loss(root, task)  # once more: a download takes long enough for somebody to change data/
            with files.replacing(root / DATA / task) as new:
                new.rmdir()
                shutil.move(folder, new)
            return _pin(root, f"{name} in data/{task}")


def bring_raw(root: Path, task: Task[Any], wanted: Data, folder: Path) -> None:
    """Put a task's raw files, as a version was trained on them, into the new `folder`; data/ stays as it is.

    They come from data/ if that is still the same, from DVC's cache, from its remote, or are rebuilt where they
    are the task's embedded data.

    Raises:
        PedigreeError: they are no longer anywhere, or the remote that may have them is out of reach.
    """
    here, unreachable = root / DATA / task.name, ""
    if _filled(here) and wanted.raw in (NONE, dvc_data.hash_or_none(here)):
        files.link_folder(here, folder)
        return
    folder.mkdir(parents=True)
    if wanted.pinned != NONE:
        try:
            if not dvc_data.holds(root, wanted.pinned) and dvc_data.has_remote(root):
                _log.info("fetching data %s from DVC's remote", wanted.pinned)
                dvc_data.fetch(root, wanted.pinned)
        except PedigreeError as error:
            unreachable = f"; {error}"
        if dvc_data.holds(root, wanted.pinned):
            dvc_data.write_version(root, wanted.pinned, task.name, folder)
            return
    _log.info("building the embedded data of %s", task.name)
    task.default_data(folder)
    if dvc_data.hash_or_none(folder) != wanted.raw:
        raise PedigreeError(
            f"the raw data {wanted.raw} are neither in data/{task.name}, nor in DVC's cache or remote, nor what "
            f"{task.name} has embedded{unreachable or f': bring them back to data/{task.name}'}"
        )


def _public(tasks: Tasks, name: str) -> tuple[str, Callable[[Path, Path], None]]:
    for task, values in tasks.items():
        if name in values.public_data:
            return task, values.public_data[name]
    known = [known for values in tasks.values() for known in values.public_data]
    raise PedigreeError(
        f"there is no public data set {name!r}{nearest(name, known)}: the known ones are {', '.join(known)}"
    )


def _refuse_loss(root: Path, task: str) -> None:
    if not _filled(root / DATA / task):
        return
    if dvc_data.pinned(root) == dvc_data.hash_of(root / DATA, root) and dvc_data.holds(root):
        return
    raise PedigreeError(
        f"data/{task} would be lost, for DVC's cache does not hold data/ as it is: pin it first with "
        f"`pedigree data --accept`, or move data/{task} away"
    )


def _restore(root: Path, tasks: Tasks, pin: Version | None) -> str:
    if pin is None:
        raise PedigreeError(
            f"there is neither data/ nor {PIN}: `pedigree data --accept` builds the embedded data and pins it"
        )
    if dvc_data.holds(root):
        dvc_data.checkout(root)
        return f"data/ came from DVC's cache ({_short(pin)}), as {PIN} pins it"
    if dvc_data.has_remote(root):
        _log.info("pulling data/ from DVC's remote")
        dvc_data.pull(root)
        return f"data/ came from DVC's remote ({_short(pin)}), as {PIN} pins it"
    return _rebuild(root, tasks, pin)


def _rebuild(root: Path, tasks: Tasks, pin: Version | None) -> str:
    """Write the embedded data to data/ and pin it; with a `pin` given, only if that is what comes out."""
    if (root / DATA).is_symlink():
        raise PedigreeError(
            "data is a symbolic link, in which DVC tracks nothing: remove it, or mount the disk there"
        )
    with files.replacing(root / DATA) as new:
        for name, task in tasks.items():
            _log.info("building the embedded data of %s", name)
            folder = new / name
            folder.mkdir()
            task.default_data(folder)
        found = dvc_data.version_of(new, root)
        if pin is not None and found != pin:
            raise PedigreeError(
                f"the rebuilt data has the hash {found.md5} but {PIN} pins {pin.md5}, perhaps for other package "
                f"versions: install from requirements.lock, or pin what comes out here as a new version with "
                f"`pedigree data --accept`"
            )
    return _pin(root, "the embedded data")


def _pin(root: Path, what: str) -> str:
    before = dvc_data.pinned_version(root)
    dvc_data.add(root)
    now = dvc_data.pinned_version(root)
    if now is None or now == before:
        return f"data/ holds {what}, and {PIN} pins it unchanged" + (f" ({_short(now)})" if now else "")
    return f"data/ holds {what}, and {PIN} pins it anew ({_short(now)}): commit {PIN} to git"


def _differs(root: Path, found: Version, pin: Version | None) -> PedigreeError:
    here = f"data/ has {found.files} files with the hash {found.md5}"
    if pin is None:
        return PedigreeError(f"{here} but there is no {PIN}: pin it with `pedigree data --accept`")
    back = f"`dvc checkout {PIN}`" if dvc_data.holds(root) else "moving data/ away and running `pedigree data`"
    return PedigreeError(
        f"{here} but {PIN} pins {pin.files} files with the hash {pin.md5}: pin what is there as a new version "
        f"with `pedigree data --accept`, or get the pinned one back by {back}"
    )


def _filled(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))


def _short(version: Version) -> str:
    return f"{version.files} files, {version.md5[:8]}…"
