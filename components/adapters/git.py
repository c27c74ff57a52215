"""The only module that meets git: which commit the tree stands on, and what in it is not committed."""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components import files
from components.errors import PedigreeError
from components.trust.lineage import NONE

OUTPUTS = ("dvc.lock",)
"""Files that runs write themselves: that they differ from the commit says nothing of what a run was made from."""
LARGEST = 1_000_000
"""Bytes that a new file may have for its content to be kept; of a larger one only name and hash are."""
# Whatever the user has set, `git apply` has to be able to read it, and no program of theirs is run.
_PLAIN = (
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    "--submodule=short",
    "--no-relative",
)


@dataclass(frozen=True)
class Tree:
    """What a checkout is made of."""

    commit: str
    """40 hexadecimal digits; none for a downloaded archive, or where there is no git."""
    diff: bytes
    """What is not committed, new files too, as `git apply` takes it; empty when there is nothing."""


def tree(root: Path) -> Tree:
    """Return the state of the checkout at `root`; neither its index nor its objects are written to."""
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    objects = _git(root, "rev-parse", "--git-path", "objects")
    if commit is None or objects is None:
        return Tree(NONE, b"")
    with tempfile.TemporaryDirectory() as scratch:
        own = {
            "GIT_INDEX_FILE": f"{scratch}/index",
            "GIT_OBJECT_DIRECTORY": scratch,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str((root / objects.decode().strip()).resolve()),
        }
        _git(root, "read-tree", "HEAD", environment=own)
        new, large = _new_files(root, own)
        _git(root, "add", "--update", "--ignore-errors", ".", environment=own)
        if new:
            _git(root, "add", "--ignore-errors", "--", *new, environment=own)
        unlike = [f":(exclude){name}" for name in OUTPUTS]
        shown = ("diff", "--cached", "--binary", "--full-index", *_PLAIN, "HEAD", "--", ".", *unlike)
        diff = _git(root, *shown, environment=own) or b""
    return Tree(commit.decode().strip(), large + diff)


def _new_files(root: Path, environment: Mapping[str, str]) -> tuple[list[str], bytes]:
    """Return the new files whose content is kept, and lines for the others, which `git apply` passes over."""
    listed = _git(root, "ls-files", "--others", "--exclude-standard", "-z", ".", environment=environment) or b""
    kept, lines = [], b""
    for name in map(os.fsdecode, filter(None, listed.split(b"\0"))):
        path = root / name
        if path.is_symlink() or not path.is_file():  # another repository is listed as its folder
            continue
        if path.stat().st_size <= LARGEST:
            kept.append(name)
        else:
            lines += os.fsencode(f"new file, not kept here: {name} sha256 {files.sha256(path)}\n")
    return kept, lines


def has(root: Path, commit: str) -> bool:
    """Tell whether the commit is in this repository."""
    return commit != NONE and _git(root, "cat-file", "-e", f"{commit}^{{commit}}") is not None


@contextmanager
def worktree(root: Path, commit: str, diff: bytes, folder: Path) -> Iterator[Path]:
    """Check a commit out into `folder`, with a difference as `tree` gives it; it is gone when the block ends.

    Gives what `root` is in it: a folder inside, where the project is one of a larger repository's.

    Raises:
        PedigreeError: git refuses, in one sentence.
    """
    plain = ("-c", "core.hooksPath=/dev/null")  # a hook, such as those of `dvc install`, is no part of the commit
    add = (*plain, "worktree", "add", "--detach", "--force", str(folder), commit)
    try:
        _done(root, f"check out commit {commit}", *add)
        if diff:
            apply = ("apply", "--allow-empty", "--whitespace=nowarn", "-")
            _done(folder, "apply the uncommitted changes", *apply, given=diff)
        yield folder / os.fsdecode(_git(root, "rev-parse", "--show-prefix") or b"").strip()
    finally:
        _git(root, "worktree", "remove", "--force", "--force", str(folder))


def changed(root: Path, folder: str, old: str, new: str | None = None) -> list[str]:
    """Return the files below `folder` that differ between two commits, or a commit and what is here now.

    There are none where a commit is not in this repository.
    """
    commits = [old, new] if new else [old]
    listed = _git(root, "diff", "--name-only", "-z", *_PLAIN, "--end-of-options", *commits, "--", folder) or b""
    return [os.fsdecode(name) for name in listed.split(b"\0") if name]


def user(root: Path) -> str:
    """Return the name and address that git would put on a commit, or the account's name."""
    name, address = (_git(root, "config", f"user.{what}") for what in ("name", "email"))
    if not name:
        return os.environ.get("USER") or os.environ.get("LOGNAME") or "unknown"
    return f"{os.fsdecode(name).strip()} <{os.fsdecode(address or b'').strip()}>"


def _done(root: Path, what: str, *arguments: str, given: bytes | None = None) -> None:
    done = _run(root, arguments, given=given)
    if done is None or done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines() if done else ["there is no git"]
        raise PedigreeError(f"git cannot {what} ({(reason or ['no reason given'])[-1]})")


def _git(root: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> bytes | None:
    """Return what git prints, or None when it fails or is not there."""
    done = _run(root, arguments, environment=environment)
    return done.stdout if done and done.returncode == 0 else None


def _run(
    root: Path,
    arguments: tuple[str, ...],
    *,
    environment: Mapping[str, str] | None = None,
    given: bytes | None = None,
) -> subprocess.CompletedProcess[bytes] | None:
    """Run git; return None where there is none."""
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=root,
            env={**os.environ, **(environment or {})},
            input=given or b"",
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        return None
