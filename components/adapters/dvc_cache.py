"""What of a data set's versions DVC's cache and remote hold, and fetching it from there."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.adapters.dvc_data import repo_of
from components.datasets import raw_files
from components.errors import PedigreeError
from components.runtime import addresses


def has_remote(root: Path) -> bool:
    """Return whether DVC has a default remote to pull from.

    Raises:
        PedigreeError: its address cannot be parsed.
    """
    with repo_of(root) as repo:
        name = repo.config["core"].get("remote")
        address = repo.config["remote"].get(name, {}).get("url", "")
    if "://" in address:  # otherwise it is a folder
        addresses.expect_valid(address, f"the address of DVC's remote {name}")
    return name is not None


def holds(root: Path, md5: str | None, below: str = "") -> bool:
    """Return whether DVC's cache contains every file of a version, or every one below a folder of it."""
    if md5 is None:
        return False
    with repo_of(root) as repo:
        return _complete(repo.cache.local, md5, below)


def damaged(root: Path, md5: str, below: str = "") -> list[str]:
    """Return the files of a version, or of a folder of it, whose content in DVC's cache has another hash.

    The list of the files is itself checked, under the name `.`.
    """
    with repo_of(root) as repo:
        cache = repo.cache.local
        objects = [(".", md5), *(("/".join(parts), info.value) for parts, info in _listed(cache, md5, below))]
        return [name for name, oid in objects if _md5(Path(cache.oid_to_path(oid))) != oid.removesuffix(".dir")]


def _md5(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "md5").hexdigest()


def remote_holds(root: Path, md5: str, below: str = "") -> bool:
    """Return whether DVC's default remote contains every file of a version, or every one below a folder of it.

    Raises:
        PedigreeError: the remote is unreachable.
    """
    if not has_remote(root):
        return False
    with repo_of(root) as repo, _reaching_remote():
        return _complete(repo.cloud.get_remote_odb(hash_name="md5"), md5, below)


def fetch(root: Path, md5: str, below: str = "") -> None:
    """Fetch a version, or a folder of it, from DVC's default remote into the cache only.

    Raises:
        PedigreeError: the remote is unreachable, or lacks files.
    """
    from dvc_data.hashfile.hash_info import HashInfo

    with repo_of(root) as repo, _reaching_remote():
        lacking = repo.cloud.pull([HashInfo("md5", md5)]).failed  # the list of the files comes first
        if not lacking:
            lacking = repo.cloud.pull({info for _, info in _listed(repo.cache.local, md5, below)}).failed
    if lacking:
        raise PedigreeError(
            f"DVC's remote lacks {len(lacking)} of the files of data {md5}: run `dvc push` in a checkout that has "
            "them"
        )


def write_version(root: Path, md5: str, folder: Path, below: str = "") -> None:
    """Write the files of a version in the cache, or of a folder of it, into an empty folder.

    Raises:
        PedigreeError: a file is damaged in the cache, or is named as one outside the folder.
    """
    with repo_of(root) as repo:
        cache = repo.cache.local
        index = Path(cache.oid_to_path(md5))
        listed = {parts: Path(cache.oid_to_path(info.value)) for parts, info in _listed(cache, md5, below)}
    for parts in listed:
        if {"", ".", ".."} & set(parts):
            raise PedigreeError(f"data {md5} names a file outside its folder, {'/'.join(parts)}: do not use it")
    if broken := damaged(root, md5, below):
        objects = [index if name == "." else listed[tuple(name.split("/"))] for name in broken]
        raise PedigreeError(
            f"files of data {md5} are damaged in DVC's cache ({raw_files.listed(broken)}): copy them from another "
            f"cache, or move {raw_files.listed([str(each) for each in objects])} away and run `dvc pull`"
        )
    for parts, source in listed.items():
        target = folder.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def _listed(store: Any, md5: str, below: str) -> list[tuple[tuple[str, ...], Any]]:
    """Return the files, as (path's parts, hash), that a version in a cache or remote has below a folder."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    files = [(tuple(key), info) for key, _, info in Tree.load(store, HashInfo("md5", md5))]
    return [(key[1:], info) for key, info in files if key[0] == below] if below else files


def _complete(store: Any, md5: str, below: str) -> bool:
    from dvc_objects.errors import ObjectFormatError

    try:
        wanted = {info.value for _, info in _listed(store, md5, below)}
    except (ObjectFormatError, KeyError, TypeError):  # an invalid file list
        return False
    except FileNotFoundError as error:
        if error.__cause__ is None:
            return False
        raise error.__cause__ from None  # fsspec also reports an unreachable web server as a missing file
    return wanted == set(store.oids_exist(wanted))


@contextmanager
def _reaching_remote() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each kind of remote has its own errors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PedigreeError(
            f"DVC's remote is unreachable ({reason}): check `dvc remote list`, and run the same command again"
        ) from error
