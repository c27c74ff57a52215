"""The only module that meets git: which commit the tree stands on, what in it is not committed, and worktrees."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.errors import PedigreeError

NONE = "none"
"""The commit of a folder that git does not know: a downloaded archive, or a machine without git."""
OUTPUTS = ("dvc.lock",)
"""Files that runs write themselves: that they differ from the commit says nothing of what a run was made from."""


@dataclass(frozen=True)
class Tree:
    """What a checkout is made of."""

    commit: str
    """40 hexadecimal digits, or "none"."""
    diff: str
    """What is not committed, new files too, as `git apply` takes it; empty when there is nothing."""


def tree(root: Path) -> Tree:
    """Return the state of the checkout at `root`; its index stays as it is."""
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    if commit is None:
        return Tree(NONE, "")
    with tempfile.TemporaryDirectory() as scratch:
        # In an index of our own, so that new files count and the user's index stays as it is.
        index = Path(scratch) / "index"
        there = Path((_git(root, "rev-parse", "--git-path", "index") or "").strip())
        if (root / there).is_file():
            shutil.copyfile(root / there, index)
        environment = {"GIT_INDEX_FILE": str(index)}
        _expect(root, "add", "--all", ".", environment=environment)
        unlike = [f":(exclude){name}" for name in OUTPUTS]
        diff = _expect(root, "diff", "--cached", "--binary", "HEAD", "--", ".", *unlike, environment=environment)
    return Tree(commit.strip(), diff)


@contextmanager
def worktree(root: Path, commit: str, diff: str, folder: Path) -> Iterator[Path]:
    """Give a checkout of `commit` with `diff` applied in the new folder, gone when the block ends.

    Raises:
        PedigreeError: the commit is not here, or the difference does not fit it.
    """
    if not has(root, commit):
        raise PedigreeError(
            f"commit {commit} is not in the git repository at {root}: fetch it with `git fetch --all`"
        )
    below = (_git(root, "rev-parse", "--show-prefix") or "").strip()  # where the project is in the repository
    try:
        _expect(root, "worktree", "add", "--detach", str(folder), commit)
        if diff:
            _expect(folder / below, "apply", "--whitespace=nowarn", "-", given=diff)
        yield folder / below
    finally:
        _git(root, "worktree", "remove", "--force", str(folder))


def has(root: Path, commit: str) -> bool:
    """Tell whether the commit is in this repository."""
    return commit != NONE and _git(root, "cat-file", "-e", f"{commit}^{{commit}}") is not None


def user(root: Path) -> str:
    """Return the name and address that git would put on a commit, or the account's name."""
    name, address = (_git(root, "config", f"user.{what}") for what in ("name", "email"))
    account = os.environ.get("USER") or os.environ.get("LOGNAME") or "unknown"
    return f"{name.strip()} <{(address or '').strip()}>" if name else account


def _git(
    root: Path, *arguments: str, environment: Mapping[str, str] | None = None, given: str | None = None
) -> str | None:
    """Return what git prints, or None when it fails or is not there."""
    try:
        done = _run(root, arguments, environment or {}, given)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def _expect(
    root: Path, *arguments: str, environment: Mapping[str, str] | None = None, given: str | None = None
) -> str:
    done = _run(root, arguments, environment or {}, given)
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["it gave no reason"]
        raise PedigreeError(f"git {arguments[0]} failed in {root}: {words[-1]}")
    return done.stdout


def _run(
    root: Path, arguments: tuple[str, ...], environment: Mapping[str, str], given: str | None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", *arguments],
        cwd=root,
        env={**os.environ, **environment},
        input=given or "",
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
    )
