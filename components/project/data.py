"""Restores a pinned data set, or downloads a public one and pins it."""

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components import models, tasks
from components.adapters import dvc_cache, dvc_data
from components.adapters.dvc_data import DATA, PIN, Version
from components.contracts import Task
from components.display import brief, first
from components.errors import PedigreeError
from components.models import Listed
from components.params import nearest
from components.runtime import files
from components.trust import old_versions
from components.trust.lineage import NONE, Lineage

_log = logging.getLogger("pedigree.data")


@dataclass(frozen=True)
class DataSet:
    """A folder of data/, with the models that read it."""

    name: str
    task: Task[Any, Any]
    """The task of the first of these models, or else of the first that can write the data set."""
    models: tuple[str, ...]
    """The first model of each task."""

    @property
    def model(self) -> str:
        """One of the models, by which commands name the data set."""
        return self.models[0]

    @property
    def embedded(self) -> bool:
        """Whether a task can write it."""
        return self.name in self.task.embedded

    @property
    def path(self) -> str:
        """Its path, relative to the project's folder."""
        return f"{DATA}/{self.name}"

    @property
    def accept(self) -> str:
        """The command that pins only this data set."""
        return f"`pedigree data --accept {self.model}`"


def of_models(listed: Iterable[Listed]) -> list[DataSet]:
    """Return the data sets of models without duplicates."""
    readers: dict[str, dict[str, str]] = {}
    for each in listed:
        readers.setdefault(each.data, {}).setdefault(each.task, each.name)
    return [_data_set(name, by_task) for name, by_task in readers.items()]


def _data_set(name: str, models_by_task: Mapping[str, str]) -> DataSet:
    their_tasks = [tasks.load(task) for task in models_by_task]
    writer = next((task for task in their_tasks if name in task.embedded), their_tasks[0])
    return DataSet(name, writer, tuple(models_by_task.values()))


def bring_all(root: Path, wanted: Sequence[str], accept: bool, everything: bool = False) -> Iterator[str]:
    """Restore, or with `accept` pin, the data sets of models; yield a message for each.

    Args:
        root: The project's folder.
        wanted: Names of models. If empty, restore the embedded data sets, or pin all data sets that exist.
        accept: Pin the present files.
        everything: If `wanted` is empty, restore the data sets of all models.

    Raises:
        PedigreeError: there is no such model; or, after all others are done, as `bring` does.
    """
    sets = of_models(models.chosen(models.read(root), wanted))
    if not accept:
        dvc_data.expect_current_pin(root)
    if not wanted and not everything:
        sets = [each for each in sets if (files.filled(root / each.path) if accept else each.embedded)]
        if not sets and accept:
            raise PedigreeError(f"{DATA}/ has no files of any model's data set to pin: put them in {DATA}/<name>/")
        if not sets:
            raise PedigreeError(f"no model has an embedded data set: name models, or put files in {DATA}/<name>/")
    problems = []
    for each in sets:
        try:
            yield bring(root, each, accept)
        except PedigreeError as error:
            problems.append(str(error))
    if problems:
        raise PedigreeError("\n  ".join(first(problems)))


def bring(root: Path, data: DataSet, accept: bool) -> str:
    """Restore the pinned version of a data set; with `accept`, pin the present one.

    The pinned version comes from DVC's cache or remote. Embedded data can also be written again, and are pinned if
    they were not.

    Args:
        root: The project's folder.
        data: The data set.
        accept: Pin the present files.

    Returns:
        A message on what was done.

    Raises:
        PedigreeError: the files differ from the pinned version, or that is not available; or there are no files to
            pin.
    """
    with dvc_data.alone(root, f"pedigree data {data.name}"):
        pin = dvc_data.pinned_version(root, data.name)
        if not files.filled(root / data.path):
            dvc_data.survey(root / data.path)  # neither it nor the folder above may be a link
            if accept:
                raise _nothing_to_pin(root, data, pin)
            return _restore(root, data, pin)
        if accept:
            warn_of_rejection(root, data)
            return _pin(root, data, "the present files")
        present = dvc_data.version_of(root / data.path, root)
        if present != pin:
            raise _differs(root, data, present, pin)
        return f"{data.path} matches {PIN} ({_short(present)}): nothing to do"


def warn_of_rejection(root: Path, data: DataSet) -> None:
    """Warn if the files of a data set are in no layout that preparation takes; no sample is read for it."""
    for each in models.chosen(models.read(root), data.models):
        survey = tasks.load(each.task).survey
        if survey is None:
            continue
        try:
            survey(root / data.path, models.load(root, each.name).params.prepare)
        except PedigreeError as error:
            _log.warning("`pedigree run %s` will fail: %s", each.name, error)


def fetch(root: Path, data: DataSet, name: str, cache: Path) -> str:
    """Replace a data set with the public data set `name`, and pin the new version.

    Args:
        root: The project's folder.
        data: The data set to replace.
        name: Name of a public data set of the task, for example cifar10.
        cache: Folder of downloads; files in it are not downloaded again.

    Returns:
        A message on what was done.

    Raises:
        PedigreeError: the task has no such data set, or DVC could not restore the present files.
    """
    write = _public(data.task, name)
    dvc_data.expect_current_pin(root)
    _refuse_loss(root, data)
    cache.mkdir(parents=True, exist_ok=True)
    with files.scratch(root / data.path) as scratch:
        _log.info("fetching %s into %s; downloads are kept in %s", name, data.path, cache)
        folder = scratch / data.name
        folder.mkdir()
        write(folder, cache)
        with dvc_data.alone(root, f"pedigree data {data.name} --fetch {name}"):
            _refuse_loss(root, data)  # again: somebody may have changed the data during the download
            with files.replacing(root / data.path) as new:
                new.rmdir()
                shutil.move(folder, new)
            return _pin(root, data, name)


def bring_raw(root: Path, ancestry: Lineage, folder: Path) -> None:
    """Put the raw files on which a version was trained into the new `folder`; data/ does not change.

    They come from data/, DVC's cache or its remote; embedded data can also be written again.

    Raises:
        PedigreeError: they do not exist any more, or the remote is unreachable.
    """
    task, raw = tasks.load(old_versions.task(ancestry)), ancestry.data.raw
    name, unreachable = old_versions.data_folder(ancestry), ""
    own = root / DATA / name
    for here in (own, *(root / DATA / each for each in task.embedded)):
        if (raw == NONE and here == own and files.filled(here)) or dvc_data.has_version(here, raw):
            dvc_data.survey(here)
            files.link_folder(here, folder)
            return
    folder.mkdir(parents=True)
    # First the data set's own hash, then what was pinned, which in old versions is all of data/.
    for md5, below in {raw: "", ancestry.data.pinned: old_versions.below(ancestry)}.items():
        if md5 == NONE:
            continue
        try:
            if not dvc_cache.holds(root, md5, below) and dvc_cache.has_remote(root):
                _log.info("fetching data %s from DVC's remote", md5)
                dvc_cache.fetch(root, md5, below)
        except PedigreeError as error:
            unreachable = f"; {error}"
        if dvc_cache.holds(root, md5, below):
            dvc_cache.write_version(root, md5, folder, below)
            if raw not in (NONE, dvc_data.hash_or_none(folder)):
                raise PedigreeError(
                    f"the data {md5} that the version's lineage names are not those with the hash {raw} from which "
                    "it says it was trained: its lineage contradicts itself"
                )
            return
    _log.info("writing the embedded data of %s", task.name)
    first_set = next(iter(task.embedded))  # what old versions, whose data set had the task's name, were trained on
    task.embedded[name if name in task.embedded else first_set](folder)
    if dvc_data.hash_or_none(folder) != raw:
        raise PedigreeError(
            f"the raw data {raw} are neither in {DATA}/{name} nor in DVC's cache or remote, and are not the "
            f"embedded data of {task.name}{unreachable or f': restore them to {DATA}/{name}'}"
        )


def _public(task: Task[Any, Any], name: str) -> Callable[[Path, Path], None]:
    if name in task.public_data:
        return task.public_data[name]
    choices = ", ".join(task.public_data)
    raise PedigreeError(
        f"the task {task.name} has no public data set {brief(name)}{nearest(name, task.public_data)}: "
        + (f"choose one of {choices}" if choices else f"put the files in {DATA}/<name>/ yourself")
    )


def _refuse_loss(root: Path, data: DataSet) -> None:
    if not files.filled(root / data.path):
        return
    present = dvc_data.hash_of(root / data.path, root)
    if dvc_data.pinned(root, data.name) == present and dvc_cache.holds(root, present):
        return
    raise PedigreeError(
        f"{data.path} would be lost, as its present version is not in DVC's cache: pin it first with "
        f"{data.accept}, or move {data.path} away"
    )


def _restore(root: Path, data: DataSet, pin: Version | None) -> str:
    if pin is None and data.embedded:
        return _rebuild(root, data, None)
    if pin is None:
        raise PedigreeError(
            f"{data.path} is missing, and {PIN} does not pin it: put the files in {data.path}/ and pin them with "
            f"{data.accept}"
        )
    here = dvc_cache.holds(root, pin.md5)
    if here or _fetched(root, data, pin):
        dvc_cache.expect_intact(root, pin.md5)
        dvc_data.checkout(root, data.name)
        origin = "cache" if here else "remote"
        return f"restored {data.path} from DVC's {origin} ({_short(pin)}), as pinned in {PIN}"
    if not data.embedded:
        raise PedigreeError(
            f"{data.path} is missing, and DVC's cache does not hold what {PIN} pins ({_short(pin)}): add the "
            "remote that has it with `dvc remote add --default NAME ADDRESS`, or put the files there yourself"
        )
    return _rebuild(root, data, pin)


def _fetched(root: Path, data: DataSet, pin: Version) -> bool:
    """Fetch the pinned version into DVC's cache; return False if it has to come from elsewhere."""
    if not dvc_cache.has_remote(root):
        return False
    _log.info("fetching %s from DVC's remote", data.path)
    try:
        dvc_cache.fetch(root, pin.md5)
    except dvc_cache.LackingError:
        if not data.embedded:
            raise
        _log.info("DVC's remote does not have %s", data.path)  # nobody has pushed what each checkout can write
        return False
    return True


def _nothing_to_pin(root: Path, data: DataSet, pin: Version | None) -> PedigreeError:
    what = f"{data.path} has no files" if (root / data.path).exists() else f"there is no {data.path}"
    back = f", or bring the pinned version back with `pedigree data {data.model}`" if pin else ""
    return PedigreeError(f"{what} to pin: put the files there first{back}")


def _rebuild(root: Path, data: DataSet, pin: Version | None) -> str:
    """Write the embedded data and pin it; if `pin` is given, fail unless the result matches it."""
    with files.replacing(root / data.path) as new:
        _log.info("writing the embedded data set %s", data.name)
        data.task.embedded[data.name](new)
        found = dvc_data.version_of(new, root)
        if pin is not None and found != pin:
            raise PedigreeError(
                f"the embedded data {data.name} has the hash {found.md5} but {PIN} pins "
                f"{pin.md5}, perhaps because of other package versions: install from requirements.lock, or remove "
                f"the entry of {data.path} from {PIN} and run the same command again, which pins the result"
            )
    return _pin(root, data, "the embedded data")


def _pin(root: Path, data: DataSet, what: str) -> str:
    before = dvc_data.pinned_version(root, data.name)
    dvc_data.add(root, data.name)
    now = dvc_data.pinned_version(root, data.name)
    if now is None or now == before:
        return f"{data.path} holds {what}, and {PIN} pins it unchanged" + (f" ({_short(now)})" if now else "")
    return f"{data.path} holds {what}, and {PIN} pins it anew ({_short(now)}): commit {PIN} to git"


def _differs(root: Path, data: DataSet, found: Version, pin: Version | None) -> PedigreeError:
    here = f"{data.path} has {found.size} with the hash {found.md5}"
    if pin is None:
        return PedigreeError(f"{here} and {PIN} does not pin it: pin it with {data.accept}")
    back = (
        f"`dvc checkout {data.path}`"
        if dvc_cache.holds(root, pin.md5)
        else f"moving {data.path} away and running `pedigree data {data.model}`"
    )
    return PedigreeError(
        f"{here} but {PIN} pins {pin.size} with the hash {pin.md5}: pin what is there as a new version "
        f"with {data.accept}, or get the pinned one back by {back}"
    )


def _short(version: Version) -> str:
    return f"{version.size}, {version.md5[:8]}…"
