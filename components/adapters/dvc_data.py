"""The only module that meets DVC: which version of data/ is pinned, bringing it, and reproducing stages.

Reading is done in this process and takes no lock. Whatever changes the workspace runs as `python -m dvc`, one
command at a time, for DVC refuses a second one even when it is about another stage.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components import locks, processes
from components.errors import PedigreeError
from components.trust.lineage import NONE

FOLDER = ".dvc"
DATA = "data"
PIN, LOCK = "data.dvc", "dvc.lock"
AGAIN = 5.0
"""Seconds until a DVC is asked again that was refused because of one that is not of this environment."""
MOMENT = 0.5
"""Seconds, in which whoever writes a small file has done so."""

_log = logging.getLogger("pedigree.dvc")


@dataclass(frozen=True)
class Version:
    """A folder's content, as DVC tells one from another."""

    md5: str
    """Of the sorted list of files and their MD5, with `.dir` at its end."""
    files: int


@contextmanager
def _repo(root: Path) -> Iterator[Any]:
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]
    from dvc.repo import Repo  # type: ignore[import-untyped]
    from dvc_data.hashfile.build import IgnoreInCollectedDirError

    try:
        with Repo(str(root), config=_NO_GIT if _without_git(root) else None) as repo:
            yield repo
    except (DvcException, IgnoreInCollectedDirError) as error:
        raise _problem("dvc", str(error)) from error


_NO_GIT = {"core": {"no_scm": True}}
"""What tells DVC that there is no git; else it refuses to work in a downloaded archive."""


def _without_git(root: Path) -> bool:
    # A project may be one folder of a larger repository.
    return not any((folder / ".git").exists() for folder in (root.resolve(), *root.resolve().parents))


@contextmanager
def _settings(root: Path) -> Iterator[dict[str, str]]:
    """Give the environment that says `_NO_GIT` to DVC's program where it has to be said."""
    if not _without_git(root):
        yield {}
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config").write_text("[core]\n    no_scm = true\n")
        yield {"DVC_SYSTEM_CONFIG_DIR": folder}


def version_of(folder: Path, root: Path) -> Version:
    """Return the version that `dvc add` would give to `folder`; neither data.dvc nor the cache is touched.

    Raises:
        PedigreeError: `root` is no DVC project, or DVC refuses the folder, as it does with a .dvcignore in it.
    """
    from dvc.fs import LocalFileSystem  # type: ignore[import-untyped]
    from dvc_data.hashfile.build import build

    with _repo(root) as repo:
        # Without `ignore` the hash would count files that .dvcignore keeps out of `dvc add`.
        _, meta, tree = build(
            repo.cache.local,
            str(folder.absolute()),
            LocalFileSystem(),
            "md5",
            dry_run=True,
            ignore=repo.dvcignore,
        )
    if tree.hash_info.value is None or meta.nfiles is None:
        raise PedigreeError(f"{folder} is a file: put a folder in its place")
    return Version(tree.hash_info.value, meta.nfiles)


def hash_of(folder: Path, root: Path) -> str:
    """Return the MD5 that `dvc add` would give to `folder`; raises as `version_of` does."""
    return version_of(folder, root).md5


def hash_or_none(folder: Path) -> str:
    """Return the MD5 that DVC gives to `folder`, or none when it is not there or in no DVC project."""
    if not folder.exists():
        return NONE
    roots = [root for root in folder.absolute().parents if (root / FOLDER).is_dir()]
    return hash_of(folder, roots[0]) if roots else NONE


def pinned_version(root: Path) -> Version | None:
    """Return the version of data/ that data.dvc pins, or None when there is no data.dvc.

    Raises:
        PedigreeError: data.dvc is not as DVC writes it, for example after a merge with conflicts.
    """
    try:
        out = YAML(typ="safe").load(root / PIN)["outs"][0]
        return Version(out["md5"], out["nfiles"])
    except FileNotFoundError:
        return None
    except (YAMLError, KeyError, IndexError, TypeError, UnicodeDecodeError):
        raise PedigreeError(f"{PIN} is not as DVC writes it: bring it back with `git checkout {PIN}`") from None


def pinned(root: Path) -> str | None:
    """Return the hash of data/ that data.dvc pins, or None without data.dvc; raises as `pinned_version` does."""
    version = pinned_version(root)
    return version.md5 if version else None


def has_remote(root: Path) -> bool:
    """Tell whether DVC has a default remote to pull from."""
    with _repo(root) as repo:
        return "remote" in repo.config["core"]


def holds(root: Path, md5: str | None = None) -> bool:
    """Tell whether DVC's cache holds every file of a version of data/, the pinned one if none is named."""
    wanted = md5 or pinned(root)
    if wanted is None:
        return False
    with _repo(root) as repo:
        return _complete(repo.cache.local, wanted)


def remote_holds(root: Path, md5: str) -> bool:
    """Tell whether DVC's default remote holds every file of a version of data/.

    Raises:
        PedigreeError: the remote is out of reach, so that nobody knows.
    """
    if not has_remote(root):
        return False
    with _repo(root) as repo, _reaching_remote():
        return _complete(repo.cloud.get_remote_odb(hash_name="md5"), md5)


def fetch(root: Path, md5: str) -> None:
    """Bring a version of data/ from DVC's default remote into its cache; data/ stays as it is.

    Raises:
        PedigreeError: the remote is out of reach, or does not hold all of it.
    """
    from dvc_data.hashfile.hash_info import HashInfo

    with _repo(root) as repo, _reaching_remote():
        lacking = repo.cloud.pull([HashInfo("md5", md5)]).failed  # the list of the files comes first
        if not lacking:
            lacking = repo.cloud.pull({info for _, _, info in _listed(repo.cache.local, md5)}).failed
    if lacking:
        raise PedigreeError(
            f"DVC's remote lacks {len(lacking)} of the files of data {md5}: `dvc push` them from where they are"
        )


def write_version(root: Path, md5: str, name: str, folder: Path) -> None:
    """Write the files that a version of data/, which the cache holds, has below `name` into an empty folder."""
    with _repo(root) as repo:
        cache = repo.cache.local
        for key, _, info in _listed(cache, md5):
            if key[0] == name:
                if {"", ".", ".."} & set(key):
                    raise PedigreeError(
                        f"data {md5} names a file outside its folder, {'/'.join(key)}: do not use it"
                    )
                target = folder.joinpath(*key[1:])
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(cache.oid_to_path(info.value), target)


def _listed(store: Any, md5: str) -> Any:
    """Return the list of files, as (path's parts, meta, hash), of a version that a cache or remote has."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    return Tree.load(store, HashInfo("md5", md5))


def _complete(store: Any, md5: str) -> bool:
    from dvc_objects.errors import ObjectFormatError

    try:
        wanted = {info.value for _, _, info in _listed(store, md5)}
    except (ObjectFormatError, KeyError, TypeError):  # a list that is none
        return False
    except FileNotFoundError as error:
        if error.__cause__ is None:
            return False
        raise error.__cause__ from None  # of a web server out of reach fsspec says that it has no such file
    return wanted == set(store.oids_exist(wanted))


@contextmanager
def _reaching_remote() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each kind of remote has errors of its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PedigreeError(
            f"DVC's remote is out of reach ({reason}): look at `dvc remote list`, and run the same command again"
        ) from error


def add(root: Path) -> None:
    """Pin what is in data/ now and put it in DVC's cache (`dvc add data`).

    Raises:
        PedigreeError: DVC refuses, in one sentence.
    """
    _dvc(root, "add", DATA)


def checkout(root: Path) -> None:
    """Bring the pinned data/ back from DVC's cache; raises as `add` does."""
    _dvc(root, "checkout", PIN)


def pull(root: Path) -> None:
    """Bring the pinned data/ from DVC's default remote.

    Raises:
        PedigreeError: the remote is out of reach or does not hold this version.
    """
    _dvc(root, "pull", PIN)


def repro(root: Path, stage: str) -> None:
    """Bring `stage` of dvc.yaml, and what it depends on, up to date (`dvc repro`).

    Raises:
        PedigreeError: with the sentence of the stage that failed, or else with DVC's.
    """
    _dvc(root, "repro", stage)


def alone(root: Path, doing: str = "another DVC command in this workspace") -> AbstractContextManager[None]:
    """Keep every other process and thread that uses this module from changing the workspace; blocks may nest."""
    return locks.alone(root.resolve() / "build" / ".dvc-repro.lock", doing)


def mend(root: Path) -> None:
    """End a DVC that outlives who started it, and put away what one that was killed has left half written.

    To be called by whoever is `alone`: every later DVC would refuse to work beside the one and to read the other.
    What is lost is which processes are at work, and what the stages were last run on: the next `dvc repro` runs
    them again, and a training goes on from its checkpoint.
    """
    processes.end_left(root)
    for file, read in (
        (root / FOLDER / "tmp" / "rwlock", json.load),
        (root / LOCK, YAML(typ="safe", pure=True).load),
    ):
        if _torn(file, read):
            time.sleep(MOMENT)  # somebody else's DVC may be writing it
            if _torn(file, read):
                file.replace(file.with_name(f"{file.name}.damaged"))
                _log.warning("%s was left half written, and is put away as %s.damaged", file, file.name)


def noted(root: Path, pid: int) -> AbstractContextManager[None]:
    """Keep that this process waits for a DVC, which a kill of this process would leave at work."""
    return processes.noted(processes.notes(root, "dvc"), pid)


def _torn(file: Path, read: Callable[[TextIO], Any]) -> bool:
    try:
        with file.open(encoding="utf-8") as opened:
            return not isinstance(read(opened), dict)
    except FileNotFoundError:
        return False
    except (ValueError, YAMLError):
        return True


def _dvc(root: Path, *arguments: str) -> None:
    with alone(root, f"dvc {' '.join(arguments)}"), _settings(root) as settings:
        mend(root)
        code, lines = _run(root, arguments, settings)
        while code != 0 and (others := _others("\n".join(lines))):
            _log.info("waiting for %s", others)
            time.sleep(AGAIN)
            code, lines = _run(root, arguments, settings)
    if code != 0:
        raise _problem(" ".join(["dvc", *arguments]), "\n".join(lines))


def _others(output: str) -> str:
    """Return which other DVC keeps this one from its work, or nothing where none does."""
    if "Unable to acquire lock" not in output and "it is being blocked by" not in output:
        return ""
    by = [line.strip() for line in output.splitlines() if line.startswith("  (PID ")]
    return " ".join(["another DVC command in this workspace", *by])


def _run(root: Path, arguments: tuple[str, ...], settings: Mapping[str, str]) -> tuple[int, list[str]]:
    """Pass DVC's lines on to the log; return its exit status and those lines."""
    environment = {
        **os.environ,
        **settings,
        "DVC_NO_ANALYTICS": "1",
        "PYTHONUNBUFFERED": "1",
        # dvc.yaml says `python`, and means the one that runs us.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }
    # In our own process group: Prefect cancels a run by ending that group, and so ends DVC and its stage too.
    with (
        subprocess.Popen(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process,
        noted(root, process.pid),
    ):
        try:
            lines = [_passed_on(line) for line in process.stdout or ()]
        except BaseException:
            processes.end(processes.tree(process.pid), seconds=3)  # DVC alone would leave its stage running
            raise
    return process.returncode, lines


def _passed_on(line: str) -> str:
    line = line.rstrip()
    if line:
        _log.info(line)
    return line


def _problem(command: str, output: str) -> PedigreeError:
    stage = _stage_sentence(output.splitlines())
    if stage:
        return PedigreeError(stage)
    if "not inside of a DVC repository" in output:
        return PedigreeError("this folder is no DVC project: run in the project's folder, or run `dvc init` here")
    if command.startswith("dvc pull"):
        return PedigreeError(
            f"{command} failed ({_last_words(output)}): check that `dvc remote list` names a remote that can be "
            f"reached and holds this version, or build the embedded data with `pedigree data --accept`"
        )
    return PedigreeError(f"{command} failed: {_last_words(output)}")


def _stage_sentence(lines: list[str]) -> str | None:
    """Return what a stage's program printed after `error: `, with the indented lines that go on with it."""
    starts = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if not starts:
        return None
    sentence = [lines[starts[-1]].removeprefix("error: ")]
    for line in lines[starts[-1] + 1 :]:
        if not line.startswith("  "):
            break
        sentence.append(line)
    return "\n".join(sentence)


def _last_words(output: str) -> str:
    """Return DVC's own `ERROR:` line, or the last line where it has none."""
    lines = [line for line in output.splitlines() if line] or ["it gave no reason"]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines)[-1].rstrip(":.")
