"""The interface to DVC: pinned versions of data sets, and reproducing stages.

A data set is a folder in data/ with its own entry in data.dvc, so that `dvc pull data/<name>` fetches it alone.

Reading happens in this process, without a lock. Everything that changes the workspace runs as `python -m dvc`, one
command at a time, as DVC refuses a second one even for another stage.
"""

import io
import json
import logging
import os
import re
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from components.adapters import dvc_listing
from components.datasets import raw_files
from components.display import printable_name
from components.errors import PedigreeError
from components.runtime import files, locks, presence, processes
from components.runtime.background import in_thread
from components.runtime.progress import Progress
from components.trust.lineage import NONE

FOLDER = ".dvc"
DATA = "data"
PIN, LOCK = "data.dvc", "dvc.lock"
LARGEST, DEEPEST = 2**20, 5
"""Maximum bytes and levels of data.dvc, enough for 7,000 data sets; DVC writes three levels, and no anchors."""
AGAIN = 5.0
"""Seconds between attempts while a DVC of another environment blocks ours."""
MOMENT = 0.5
"""Seconds within which a process finishes writing a small file."""
SILENT_SECONDS = 20.0
"""Time between two lines of progress where the number of files is not known."""

_log = logging.getLogger("pedigree.dvc")


@dataclass(frozen=True)
class Version:
    """The identity of a folder's content in DVC."""

    md5: str
    """MD5 of the sorted list of files and their MD5s, with the suffix `.dir`."""
    files: int

    @property
    def size(self) -> str:
        """The number of files in words: "5,000 files", "1 file"."""
        return f"{self.files:,} file" + "s" * (self.files != 1)


@contextmanager
def repo_of(root: Path) -> Iterator[Any]:
    """Open the DVC project at `root`.

    Raises:
        PedigreeError: it is none, or DVC raises an error in the block.
    """
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]
    from dvc.repo import Repo  # type: ignore[import-untyped]
    from dvc_data.hashfile.build import IgnoreInCollectedDirError

    try:
        with Repo(str(root), config=_NO_GIT if _without_git(root) else None) as repo:
            yield repo
    except (DvcException, IgnoreInCollectedDirError) as error:
        raise _problem("dvc", str(error)) from error


_NO_GIT = {"core": {"no_scm": True}}
"""DVC configuration without git, such as in a downloaded archive, where DVC would otherwise refuse to work."""


def _without_git(root: Path) -> bool:
    # A project may be one folder of a larger repository.
    return not any((folder / ".git").exists() for folder in (root.resolve(), *root.resolve().parents))


@contextmanager
def _settings(root: Path) -> Iterator[dict[str, str]]:
    """Yield the environment that passes `_NO_GIT` to the `dvc` program if there is no git."""
    if not _without_git(root):
        yield {}
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config").write_text("[core]\n    no_scm = true\n")
        yield {"DVC_SYSTEM_CONFIG_DIR": folder}


def _project_of(folder: Path) -> Path | None:
    """Return the root of the DVC project that a folder is in, or None."""
    return next((root for root in folder.absolute().parents if (root / FOLDER).is_dir()), None)


def survey(folder: Path) -> raw_files.Files:
    """List a raw folder as `raw_files.survey` does; links into the cache of its DVC project are files."""

    @cache
    def cached() -> str:
        if (root := _project_of(folder)) is None:
            return ""
        with repo_of(root) as repo:
            return os.path.realpath(str(repo.cache.local.path))

    return raw_files.survey(folder, cached)


def version_of(folder: Path, root: Path, *, recorded: bool = False) -> Version:
    """Return the version that `dvc add` would give to `folder`, without changing data.dvc or the cache.

    Entries that DVC could not pin, such as broken links, are left out; see `survey`.

    Args:
        folder: The folder.
        root: The DVC project.
        recorded: Take the hashes of files that DVC has hashed before from its record. Only for what is shown:
            the record takes a file for unchanged if its time, size and inode are, and so overlooks one that was
            unpacked or copied with its time in place of another.

    Raises:
        PedigreeError: `root` is not a DVC project, or DVC refuses the folder, for example with a .dvcignore in it,
            or would pin only a part of what can be read.
    """
    from dvc.fs import Callback, LocalFileSystem  # type: ignore[import-untyped]
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.state import StateNoop
    from dvc_data.hashfile.tree import Tree

    present = survey(folder)
    with repo_of(root) as repo:
        store = copy(repo.cache.local)
        if not recorded:
            store.state = StateNoop()
        _, meta, tree = build(
            store,
            str(folder.absolute()),
            LocalFileSystem(),
            "md5",
            dry_run=True,
            ignore=_Ignore(repo.dvcignore, folder.absolute(), {each.file for each in present.rejected}),
            callback=Callback(hooks={"progress": progress(str(folder), len(present.readable))}),
        )
    if tree.hash_info.value is None or meta.nfiles is None:
        raise PedigreeError(f"{folder} is a file: put a folder in its place")
    assert isinstance(tree, Tree)
    if ignored := sorted(present.readable - {"/".join(key) for key, _, _ in tree}):
        raise PedigreeError(
            f"{folder}: because of .dvcignore DVC does not pin {raw_files.listed(ignored)}: move these files away, "
            "or remove the pattern from .dvcignore"
        )
    return Version(tree.hash_info.value, meta.nfiles)


def progress(what: str, total: int) -> Callable[..., None]:
    """Return what is called, by DVC for example, after each file with the number of those that are hashed."""
    lines = Progress(_log)

    def report(size: int | None, done: int, **_: Any) -> None:
        # DVC also hashes some files that nothing reads, such as hidden ones.
        lines.say(f"{what}: {done:,} of about {total:,} files hashed")

    return report


@dataclass(frozen=True)
class _Ignore:
    """What DVC leaves out of a folder: what .dvcignore says, and entries that it cannot read."""

    dvcignore: Any
    folder: Path
    unreadable: Collection[str]

    def walk(self, fs: Any, path: Any, **options: Any) -> Iterator[tuple[str, list[str], list[str]]]:
        for root, folders, names in self.dvcignore.walk(fs, path, **options):
            below = Path(root).relative_to(self.folder)
            paths = {name: printable_name((below / name).as_posix()) for name in names}
            yield root, folders, [name for name in names if paths[name] not in self.unreadable]

    def find(self, fs: Any, path: Any) -> Iterator[str]:
        for root, _, names in self.walk(fs, path):
            yield from (f"{root}/{name}" for name in names)


def hash_of(folder: Path, root: Path) -> str:
    """Return the MD5 that `dvc add` would give to `folder`; raises as `version_of` does."""
    return version_of(folder, root).md5


def hash_or_none(folder: Path) -> str:
    """Return the MD5 that DVC gives to `folder`, or `NONE` if it does not exist or is in no DVC project."""
    if not folder.exists():
        return NONE
    root = _project_of(folder)
    return hash_of(folder, root) if root else NONE


def has_version(folder: Path, md5: str) -> bool:
    """Return whether a folder holds exactly the files of a version; not if DVC could not pin it."""
    try:
        return files.filled(folder) and hash_or_none(folder) == md5
    except PedigreeError:
        return False


def pinned_version(root: Path, data: str) -> Version | None:
    """Return the pinned version of a data set, or None if it is not pinned.

    Raises:
        PedigreeError: data.dvc is invalid, for example after a merge with conflicts.
    """
    for out in _outs(root):
        if out["path"] == f"{DATA}/{data}" and "md5" in out:
            return Version(out["md5"], out.get("nfiles", 1))
    return None


def _outs(root: Path) -> list[dict[str, Any]]:
    """Return the entries of data.dvc, one per data set."""
    try:
        with (root / PIN).open("rb") as file:
            text = file.read(LARGEST + 1)
        _expect_plain(text)
        tree = YAML(typ="safe").load(text)
        outs = tree["outs"]
    except FileNotFoundError:
        return []
    except (YAMLError, ValueError, KeyError, TypeError):  # of ruamel itself some, such as those of a wrong date
        raise _not_as_written() from None
    if not isinstance(outs, list) or not all(map(_is_entry, outs)) or tree.keys() & {"cmd", "deps", "wdir"}:
        raise _not_as_written()
    for path in [out["path"] for out in outs]:
        if dvc_listing.problem(path) or path.split("/")[0] != DATA:
            raise PedigreeError(f"{PIN} pins {path}, which is not in {DATA}/: remove this entry from {PIN}")
    return outs


def _expect_plain(text: bytes) -> None:
    """Raise a ValueError for YAML that is too large, or takes too long to load, as deep levels or anchors do."""
    depth = 0
    if len(text) > LARGEST:
        raise ValueError(f"over {LARGEST:,} bytes")
    for event in YAML(typ="safe").parse(text):  # lazily: ruamel.yaml crashes on very deep levels when it loads them
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if isinstance(event, AliasEvent) or depth > DEEPEST:
            raise ValueError(f"an anchor, or over {DEEPEST} levels")


def _is_entry(out: Any) -> bool:
    kinds = (("path", str, None), ("md5", str, ""), ("nfiles", int, 0))
    if not isinstance(out, dict) or not all(isinstance(out.get(key, absent), kind) for key, kind, absent in kinds):
        return False
    # A listing in data.dvc itself, as for a remote that has versions of its own, would not be checked.
    return "files" not in out and ("md5" not in out or bool(_HASH.fullmatch(out["md5"])))


_HASH = re.compile(rf"{dvc_listing.MD5.pattern}(\.dir)?")


def _not_as_written() -> PedigreeError:
    return PedigreeError(f"{PIN} is not as DVC writes it: restore it with `git checkout {PIN}`")


def pinned(root: Path, data: str) -> str | None:
    """Return the pinned hash of a data set, or None if it is not pinned; raises as `pinned_version` does."""
    version = pinned_version(root, data)
    return version.md5 if version else None


def add(root: Path, *data: str) -> None:
    """Pin the present files of data sets and put them in DVC's cache; other entries of data.dvc stay.

    Raises:
        PedigreeError: DVC refuses, or takes files for those that were there before; data.dvc is unchanged.
    """
    file = root / PIN
    for each in data:
        expect_readable(root / DATA / each)
        _expect_unlinked(root, root / DATA / each)
    with alone(root, f"the pinning of {', '.join(data)}"):
        before = file.read_text(encoding="utf-8") if _outs(root) else None
        try:
            _enter(root, data)
            with _reporting(f"DVC is copying the files of {', '.join(data)} to its cache"):
                _dvc(root, "add", *(f"{DATA}/{each}" for each in data))
            for each in data:
                _expect_pinned(root, each)
        except BaseException:
            if before is None:
                file.unlink(missing_ok=True)
            else:
                files.write_text(file, before)
            raise


@contextmanager
def _reporting(what: str) -> Iterator[None]:
    """Log what goes on and for how long, as DVC itself draws its progress only in a terminal."""
    ended, start = threading.Event(), time.monotonic()

    def say() -> None:
        while not ended.wait(SILENT_SECONDS):
            _log.info("%s: %d seconds so far", what, time.monotonic() - start)

    saying = in_thread(say, "progress")
    try:
        yield
    finally:
        ended.set()
        saying.result()


def _expect_pinned(root: Path, data: str) -> None:
    """Check that data.dvc pins what a data set holds; DVC goes by a file's time, size and inode (`version_of`)."""
    folder = root / DATA / data
    if pinned(root, data) != hash_of(folder, root):
        raise PedigreeError(
            f"DVC pins older files of {DATA}/{data} than are there, as some have the same time and size as before: "
            f"run `find {DATA}/{data} -type f -exec touch {{}} +`, and then the same command again"
        )


def expect_readable(folder: Path) -> None:
    """Check that DVC can pin all entries of a raw folder.

    Raises:
        PedigreeError: it cannot pin some; or as `survey` does.
    """
    if rejected := survey(folder).rejected:
        names = [f"{entry.file} ({entry.reason})" for entry in rejected]
        raise PedigreeError(f"{folder}: DVC cannot pin {raw_files.listed(names)}")


def _expect_unlinked(root: Path, folder: Path) -> None:
    """Check that DVC will not change the mode of files elsewhere that are hard links to files of a data set.

    With `cache.type` `hardlink`, it makes hard links of the files in its cache, and these read-only.
    """
    linked = []
    for path in folder.rglob("*"):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_nlink > 1 and stat.S_IMODE(status.st_mode) != _READ_ONLY:
            linked.append(path.relative_to(folder).as_posix())
    if not linked:
        return
    with repo_of(root) as repo:
        if repo.cache.local.cache_types[0] == "hardlink":
            raise PedigreeError(
                f"{folder}: DVC, whose cache.type is hardlink, would make files read-only under all their names "
                f"({raw_files.listed(sorted(linked))}): put copies of them in their place"
            )


_READ_ONLY = 0o444
"""The mode of files in DVC's cache."""


def _enter(root: Path, data: Iterable[str]) -> None:
    """Add missing entries to data.dvc, as DVC would otherwise pin a new data set in a file of its own."""
    yaml, text = YAML(), io.StringIO()
    tree = yaml.load(root / PIN) if _outs(root) else {"outs": []}
    paths = [out["path"] for out in tree["outs"]]
    new = [path for each in data if (path := f"{DATA}/{each}") not in paths]
    if not new and DATA not in paths:
        return
    if DATA in paths:
        del tree["outs"][paths.index(DATA)]
    tree["outs"] += [{"path": path} for path in new]
    yaml.dump(tree, text)
    files.write_text(root / PIN, text.getvalue())


def add_changed(root: Path, data: str, found: str) -> None:
    """Update the pin of a data set whose hash has changed, as `dvc repro` does; one that is not pinned stays so.

    Raises:
        PedigreeError: as `add` does.
    """
    if pinned(root, data) not in (None, found):
        add(root, data)
        _log.info("%s pins the changed files of %s/%s: commit it to git", PIN, DATA, data)


def missing(root: Path) -> list[str]:
    """Return the pinned folders that are missing or empty."""
    return [path for out in _outs(root) if not files.filled(root / (path := out["path"]))]


def checkout(root: Path, data: str) -> None:
    """Restore a pinned data set from DVC's cache, which `dvc_cache.expect_intact` should have checked.

    Raises:
        PedigreeError: as `add` does.
    """
    _dvc(root, "checkout", f"{DATA}/{data}")


def repro(root: Path, stage: str) -> None:
    """Bring a stage of dvc.yaml that reads only raw data up to date, even if other data sets are missing.

    This does not update the pin of changed data: `add_changed` does.

    Raises:
        PedigreeError: the stage failed; the message is the stage's, or else DVC's.
    """
    lock = root / LOCK
    before = lock.read_bytes() if lock.exists() else b""
    _dvc(root, "repro", "--single-item", stage)
    if lock.exists() and lock.read_bytes() != before:
        _log.info("%s records the output of %s: commit it to git", LOCK, stage)


def alone(root: Path, doing: str) -> AbstractContextManager[None]:
    """Hold the lock under which this module changes the workspace; blocks may nest.

    Args:
        root: The project's folder.
        doing: What the block does, for the message of those who wait: "pedigree data digits".
    """
    return locks.alone(_lock(root), doing)


def alone_if_free(root: Path, doing: str) -> AbstractContextManager[bool]:
    """Hold that lock if nobody else does; yields whether it is held."""
    return locks.alone_if_free(_lock(root), doing)


def holder(root: Path) -> str:
    """Return who holds that lock: "dvc repro (pid 12 on node)"."""
    return locks.holder(_lock(root))


def busy(root: Path) -> bool:
    """Return whether a DVC command is changing this workspace."""
    return locks.held(_lock(root))


def _lock(root: Path) -> Path:
    return root.resolve() / "build" / ".dvc-repro.lock"


def repair(root: Path) -> None:
    """End orphaned DVC processes, and move away files that a killed DVC left half written.

    Call it under the lock `alone`. Otherwise every later DVC would refuse to run. Moving the files away loses what
    the stages were last run on: the next `dvc repro` runs them again, and a training resumes from its checkpoint.
    """
    presence.end_orphans(root)
    for file, read in (
        (root / FOLDER / "tmp" / "rwlock", json.load),
        (root / LOCK, YAML(typ="safe").load),  # by libyaml, as the file has thousands of lines
    ):
        if _torn(file, read):
            time.sleep(MOMENT)  # another environment's DVC may be writing it
            if _torn(file, read):
                file.replace(file.with_name(f"{file.name}.damaged"))
                _log.warning("%s was half written: renamed it to %s.damaged", file, file.name)


def noted(root: Path, pid: int) -> AbstractContextManager[None]:
    """Record the DVC process that this process waits for, so that it can be ended if this process is killed."""
    return presence.noted(presence.notes(root, "dvc"), pid)


def _torn(file: Path, read: Callable[[TextIO], Any]) -> bool:
    try:
        with file.open(encoding="utf-8") as opened:
            return not isinstance(read(opened), dict)
    except FileNotFoundError:
        return False
    except (ValueError, YAMLError):
        return True


def expect_current_pin(root: Path) -> None:
    """Check that data.dvc pins each data set by itself.

    Raises:
        PedigreeError: it pins all of data/ as one.
    """
    if any(out["path"] == DATA for out in _outs(root)):
        raise PedigreeError(
            f"{PIN} pins all of {DATA}/ as one, which is an old format: pin each data set separately with "
            "`pedigree data --accept`"
        )


def _dvc(root: Path, *arguments: str) -> None:
    expect_current_pin(root)
    with alone(root, f"dvc {' '.join(arguments)}"), _settings(root) as settings:
        repair(root)
        code, lines = _run(root, arguments, settings)
        while code != 0 and (others := _others("\n".join(lines))):
            _log.info("waiting for %s", others)
            time.sleep(AGAIN)
            code, lines = _run(root, arguments, settings)
    if code != 0:
        raise _problem(" ".join(["dvc", *arguments]), "\n".join(lines))


def _others(output: str) -> str:
    """Return a description of the DVC that blocks this one, or an empty string."""
    if "Unable to acquire lock" not in output and "it is being blocked by" not in output:
        return ""
    by = [line.strip() for line in output.splitlines() if line.startswith("  (PID ")]
    return " ".join(["another DVC command in this workspace", *by])


def _run(root: Path, arguments: tuple[str, ...], settings: Mapping[str, str]) -> tuple[int, list[str]]:
    """Run DVC and log its output; return its exit code and its lines."""
    # In our process group, which Prefect ends to cancel a run, so that DVC and its stage end, too.
    with (
        subprocess.Popen(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=root,
            env=processes.environment(**settings, DVC_NO_ANALYTICS="1", PYTHONUNBUFFERED="1"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process,
        noted(root, process.pid),
    ):
        lines: list[str] = []
        try:
            for line in process.stdout or ():
                if line.startswith(_ERROR):  # it becomes our error, and what follows is that error or says it again
                    lines.extend([line.rstrip(), *map(str.rstrip, process.stdout or ())])
                else:
                    lines.append(_passed_on(line))
        except BaseException:
            processes.end(processes.tree(process.pid), seconds=3)  # DVC alone would leave its stage running
            raise
    return process.returncode, lines


_ERROR = "error: "
"""Begins what a stage prints of the problem that ends it."""


def _passed_on(line: str) -> str:
    line = line.rstrip()
    if line and not line.strip().startswith(_HINTS):
        _log.info(line)
    return line


_HINTS = (
    "To track the changes with git, run:",
    "git add ",
    "To enable auto staging, run:",
    "dvc config core.autostage true",
    "Use `dvc push` to send your updates to remote storage.",
)
"""What DVC advises after most commands; what there is to commit is said by whoever runs one."""


def _problem(command: str, output: str) -> PedigreeError:
    stage = _stage_sentence(output.splitlines())
    if stage:
        return PedigreeError(stage)
    if "not inside of a DVC repository" in output:
        return PedigreeError("this folder is not a DVC project: run in a project's folder, or `dvc init` here")
    return PedigreeError(f"{command} failed: {_reason(output)}")


def _stage_sentence(lines: list[str]) -> str | None:
    """Return the message that a stage printed after `error: `, with its indented continuation lines."""
    starts = [number for number, line in enumerate(lines) if line.startswith(_ERROR)]
    if not starts:
        return None
    sentence = [lines[starts[-1]].removeprefix(_ERROR)]
    for line in lines[starts[-1] + 1 :]:
        if not line.startswith("  "):
            break
        sentence.append(line)
    return "\n".join(sentence)


def _reason(output: str) -> str:
    """Return DVC's last `ERROR:` line, or the last line if there is none."""
    lines = [line for line in output.splitlines() if line] or ["it gave no reason"]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines)[-1].rstrip(":.")
