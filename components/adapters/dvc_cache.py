"""What of a data set's versions DVC's cache and remote hold, and fetching it from there."""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.adapters import dvc_listing
from components.adapters.dvc_data import progress, repo_of
from components.datasets import raw_files
from components.errors import DamagedError, PedigreeError
from components.runtime import addresses


class LackingError(PedigreeError):
    """The remote does not have all files of a version."""


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
        listed = _listed(cache, md5, below)
        objects = [(".", md5), *(("/".join(parts), oid) for parts, oid in listed.items())]
        report, broken = progress("DVC's cache", len(objects)), []
        for number, (name, oid) in enumerate(objects):
            if _md5(Path(cache.oid_to_path(oid))) != oid.removesuffix(".dir"):
                broken.append(name)
            report(None, number)
        return broken


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

    The listing is checked before anything is fetched; one in the cache that is damaged is fetched again. Files with
    another hash do not stay in the cache.

    Raises:
        LackingError: the remote lacks files.
        PedigreeError: the remote is unreachable, or has other files under their names; or the listing names a file
            outside its folder.
    """
    with repo_of(root) as repo, _reaching_remote():
        cache, remote = repo.cache.local, repo.cloud.get_remote_odb(hash_name="md5")
        try:
            own = Path(dvc_listing.path_in(cache, md5))
            if own.exists() and _md5(own) != md5.removesuffix(".dir"):
                own.unlink()
            listed = _listed(cache if own.exists() else remote, md5, below)
        except FileNotFoundError as error:
            if error.__cause__ is not None:  # fsspec also reports an unreachable web server as a missing file
                raise error.__cause__ from None
            raise _lacking(1, md5) from None
        _fetch(repo, remote, md5, {md5: "its listing"})
        _fetch(repo, remote, md5, {oid: "/".join(parts) for parts, oid in listed.items()})


def _fetch(repo: Any, remote: Any, md5: str, names: Mapping[str, str]) -> None:
    """Fetch the objects of a version with these hashes, and remove what has another hash from the cache.

    DVC takes a file in its cache that is read-only, as all that it has fetched are, for what its name says.
    """
    from dvc_data.hashfile.hash_info import HashInfo

    fetched = repo.cloud.pull({HashInfo("md5", oid) for oid in names}, odb=remote)
    files = {info.value: Path(repo.cache.local.oid_to_path(info.value)) for info in fetched.transferred}
    altered = [oid for oid, file in files.items() if _md5(file) != oid.removesuffix(".dir")]
    for oid in altered:
        files[oid].unlink()
    if altered:
        raise PedigreeError(
            f"DVC's remote has other content than was pushed for files of data {md5} "
            f"({raw_files.listed(sorted(names[oid] for oid in altered))}): do not use it, and replace these files "
            "from a checkout that has them"
        )
    if fetched.failed:
        raise _lacking(len(fetched.failed), md5)


def _lacking(number: int, md5: str) -> LackingError:
    return LackingError(
        f"DVC's remote lacks {number} of the files of data {md5}: run `dvc push` in a checkout that has them"
    )


def expect_intact(root: Path, md5: str, below: str = "") -> None:
    """Check a version in the cache, or a folder of it, before its files are written anywhere.

    Raises:
        PedigreeError: a file is damaged in the cache, or is named as one outside the folder.
    """
    broken = damaged(root, md5, below)
    if not broken:
        return
    with repo_of(root) as repo:
        cache = repo.cache.local
        oids = {"/".join(parts): oid for parts, oid in _listed(cache, md5, below).items()} | {".": md5}
        objects = [cache.oid_to_path(oids[name]) for name in broken]
    raise PedigreeError(
        f"files of data {md5} are damaged in DVC's cache ({raw_files.listed(broken)}): copy them from another "
        f"cache, or move {raw_files.listed(objects)} away and fetch them again"
    )


def write_version(root: Path, md5: str, folder: Path, below: str = "") -> None:
    """Write the files of a version in the cache, or of a folder of it, into an empty folder.

    Raises:
        PedigreeError: as `expect_intact` does.
    """
    expect_intact(root, md5, below)
    with repo_of(root) as repo:
        cache = repo.cache.local
        for parts, oid in _listed(cache, md5, below).items():
            target = folder.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(cache.oid_to_path(oid), target)


def _listed(store: Any, md5: str, below: str) -> dict[tuple[str, ...], str]:
    """Return the files that a version in a cache or remote has below a folder, as `dvc_listing.read` does."""
    files = dvc_listing.read(store, md5)
    return {parts[1:]: oid for parts, oid in files.items() if parts[0] == below} if below else files


def _complete(store: Any, md5: str, below: str) -> bool:
    try:
        wanted = set(_listed(store, md5, below).values())
    except DamagedError:
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
    except PedigreeError:
        raise
    except Exception as error:  # each kind of remote has its own errors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PedigreeError(
            f"DVC's remote is unreachable ({reason}): check `dvc remote list`, and run the same command again"
        ) from error
