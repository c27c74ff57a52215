"""Hashes and copies what parameters of type `params.Source` name: files, folders, registered versions."""

import logging
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from components import models, params
from components.adapters import mlflow_versions
from components.contracts import Sources
from components.errors import DamagedError, PedigreeError
from components.params import INIT, VERSION, TaskParams
from components.runtime import files
from components.training import model_files
from components.trust import lineage
from components.trust.lineage import Source

log = logging.getLogger("pedigree.sources")

AGAIN = "run the same command again to use what is there now"
"""The remedy when a source changes before training starts."""
FOLDER = model_files.SOURCES


_EVALUATION = "evaluate."
"""Begins the parameters whose sources evaluation alone needs."""


def identify(values: TaskParams, root: Path) -> dict[str, Source]:
    """Return the exact source of each parameter, with its hash and with aliases resolved to versions.

    An optional one that does not exist is left out.

    Raises:
        PedigreeError: a source does not exist.
    """
    return _existing(params.sources(values), params.optional_sources(values), root)


def _existing(named: Mapping[str, str], optional: Collection[str], root: Path) -> dict[str, Source]:
    found: dict[str, Source] = {}
    for key, name in named.items():
        try:
            found[key] = identified(key, name, root)
        except DamagedError:
            raise
        except PedigreeError as reason:
            if key not in optional:
                raise
            log.info("%s; what needs it is left out", reason)
    return found


def identified(key: str, named: str, root: Path) -> Source:
    """Return the source that the parameter `key` names; raises as `identify` does."""
    if named.startswith(VERSION):
        with _naming(key):
            version = mlflow_versions.find(named)
            exact = f"{VERSION}{version.name}/{version.version}"
            return Source(named=named, exact=exact, sha256=lineage.of_version(version.tags, exact))
    path = root / named
    if path.is_file():
        return Source(named=named, exact=named, sha256=files.sha256(path))
    if path.is_dir():
        return Source(named=named, exact=named, sha256=lineage.digest(files.listing(path)))
    raise models.missing_source(key, named)


def of_evaluation(values: TaskParams, root: Path) -> dict[str, Source]:
    """Return the sources of parameters of the section `evaluate`, exactly; raises as `identify` does."""
    named = {key: name for key, name in params.sources(values).items() if key.startswith(_EVALUATION)}
    return _existing(named, params.optional_sources(values), root)


def of_training(identified: Mapping[str, Source]) -> dict[str, Source]:
    """Return the sources that decide on the weights: all but those of evaluation."""
    return {key: source for key, source in identified.items() if not key.startswith(_EVALUATION)}


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Prefix errors about a version with the parameter that names it."""
    try:
        yield
    except PedigreeError as error:
        raise type(error)(f"{key}: {error}") from None


@contextmanager
def naming_originals(identified: Mapping[str, Source], local: Sources) -> Iterator[None]:
    """In errors of the block, name the files that the user gave and not their copies."""
    try:
        yield
    except PedigreeError as error:
        text = str(error)
        for key, path in local.items():
            text = text.replace(str(path), identified[key].named)
        raise type(error)(text) from error


def fetch(identified: Mapping[str, Source], root: Path, into: Path, remedy: str = AGAIN) -> Sources:
    """Copy identified sources below the folder `into`, unless they are there already; return their paths.

    Args:
        identified: Sources by parameter.
        root: The project's folder.
        into: Gets a folder for each parameter.
        remedy: What to do if a source has changed since.

    Raises:
        PedigreeError: a source is gone.
        DamagedError: a source has changed since it was identified.
    """
    local: dict[str, Path] = {}
    for key, source in identified.items():
        target = into / key
        if not target.exists():
            with files.scratch(target) as scratch:
                new = _copied(key, source, root, scratch, remedy)
                if _hash(source, new) != source.sha256:
                    raise DamagedError(
                        f"{source.exact}, which {key} names, has changed (its SHA-256 started with "
                        f"{source.sha256[:12]}): {remedy}"
                    )
                new.rename(target)
        local[key] = next(iter(target.iterdir()))
    return MappingProxyType(local)


def _copied(key: str, source: Source, root: Path, scratch: Path, remedy: str) -> Path:
    """Return a new folder that contains only the copy."""
    new = scratch / "copy"
    new.mkdir()
    path = root / source.exact
    if source.exact.startswith(VERSION):
        with _naming(key):
            version = mlflow_versions.find(source.exact)
            model = mlflow_versions.files_of(version, scratch / "version").model
        files.link_folder(model, new / f"{version.name}-{version.version}")
    elif path.is_dir():
        with files.replacing(new / path.name) as folder:  # copies, not links: users may write into their own files
            shutil.copytree(path, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)
    elif path.is_file():
        files.copy(path, new / path.name)
    else:
        raise PedigreeError(f"{source.exact}, which {key} names, is gone: {remedy}")
    return new


def _hash(source: Source, folder: Path) -> str:
    (copy,) = folder.iterdir()
    if source.exact.startswith(VERSION):
        return files.sha256(copy / model_files.WEIGHTS)
    return files.sha256(copy) if copy.is_file() else lineage.digest(files.listing(copy))


def for_answers(local: Sources) -> Sources:
    """Return the sources that the trained model needs: all but its initial weights."""
    return {key: path for key, path in local.items() if key != INIT}
