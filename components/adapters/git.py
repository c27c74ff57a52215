"""The interface to git: the commit of a checkout, its uncommitted changes, and worktrees."""

import getpass
import logging
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from itertools import takewhile
from pathlib import Path, PurePosixPath

from components.errors import PedigreeError
from components.runtime import files
from components.trust.lineage import NONE

log = logging.getLogger("pedigree.git")

OUTPUTS = ("dvc.lock",)
"""Files that runs write themselves, so that their changes are no changes to a run's inputs."""
LARGEST = 1_000_000
"""Size in bytes up to which the content of a new file is recorded; of larger files only name and hash are."""
SECRET = (
    *("*.pem", "*.key", "*.p8", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.keytab", "*.ppk", "*.ovpn"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*_rsa", "*_dsa", "*_ecdsa", "*_ed25519"),
    *(".env", ".env.*", "*.env", "*.env.*", ".envrc", ".netrc", "_netrc", ".pypirc", ".npmrc", ".htpasswd"),
    *(".pgpass", ".my.cnf", ".git-credentials", ".boto", ".s3cfg", ".dockercfg", "kaggle.json", "kubeconfig*"),
    *("*credential*", "*secret*", "*service-account*", "*service_account*", "*.tfvars", "*.tfstate"),
    *(".aws", ".azure", ".docker", ".gcloud", ".gnupg", ".kube", ".ssh", "config.local*"),
    "*.ipynb",
)
"""Names, in lower case, of files and folders that may hold secrets, after those that Gitrob looks for
(https://github.com/michenriksen/gitrob) and with notebooks, whose output may. Only name and hash are recorded."""
_PRIVATE_KEY = "-----BEGIN[ A-Z0-9_-]{0,100}PRIVATE KEY"
"""First line of a private key in a file of any name: RFC 7468, and the labels of OpenSSL, OpenSSH and PGP."""
# So that `git apply` can read the diff, and none of the user's programs run, whatever git's configuration.
_PLAIN = (
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    "--submodule=short",
    "--no-relative",
)
_EXACT = ("-c", "core.safecrlf=false")
"""Mixed line ends are recorded as they are, whatever the user has git do about them."""
_ELSEWHERE = frozenset(
    f"GIT_{name}"
    for name in (
        *("DIR", "WORK_TREE", "COMMON_DIR", "INDEX_FILE", "OBJECT_DIRECTORY", "ALTERNATE_OBJECT_DIRECTORIES"),
        *("NAMESPACE", "PREFIX", "SHALLOW_FILE", "LITERAL_PATHSPECS", "GLOB_PATHSPECS", "NOGLOB_PATHSPECS"),
        "ICASE_PATHSPECS",
    )
)
"""Variables with which git looks elsewhere, or understands paths otherwise. Git sets some of them for its hooks,
whatever repository the programs that a hook starts are in."""


@dataclass(frozen=True)
class Tree:
    """The state of a checkout."""

    commit: str
    """40 hexadecimal digits; `NONE` without git, for example in a downloaded archive."""
    diff: bytes
    """Uncommitted changes and new files in the format of `git apply`; empty if there are none."""
    new: tuple[str, ...] = ()
    """The new files in the diff."""
    secret: tuple[str, ...] = ()
    """Files that may hold secrets, new or changed, of which the diff has only name and hash."""
    changed: tuple[str, ...] = ()
    """All files with uncommitted changes, new ones included."""


def tree(root: Path) -> Tree:
    """Return the state of the checkout at `root`, without writing to its index or its objects.

    Raises:
        PedigreeError: there is a repository, and git refuses to read it, or cannot compare the checkout with it.
    """
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    objects = _git(root, "rev-parse", "--git-path", "objects")
    if commit is None or objects is None:
        if shutil.which("git") is None and any((folder / ".git").exists() for folder in (root, *root.parents)):
            log.warning("git is not installed: no commit of %s is recorded", root)
        elif os.environ.get("GIT_DIR"):
            log.warning("GIT_DIR is set, and Pedigree does not follow it: no commit of %s is recorded", root)
        return Tree(NONE, b"")
    with tempfile.TemporaryDirectory() as scratch:
        own = {
            "GIT_INDEX_FILE": f"{scratch}/index",
            "GIT_OBJECT_DIRECTORY": scratch,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str((root / objects.decode().strip()).resolve()),
        }
        changes = partial(
            _git_or_raise,
            root,
            f"record the uncommitted changes of {root}",
            remedy=": `git status` there says more",
            environment=own,
        )
        changes("read-tree", "HEAD")
        new, large = _new_files(root, own)
        changes(*_EXACT, "add", "--ignore-errors", "--update", ".")
        # --remove passes over files that are gone again.
        changes(*_EXACT, "update-index", "--add", "--remove", "-z", "--stdin", stdin=_joined(new))
        excluded = [f":(exclude){name}" for name in OUTPUTS]
        staged = partial(changes, "diff", "--cached", *_PLAIN)
        # Paths from `root`, as those of new files are; a renamed file with both its names.
        names = partial(staged, "--relative", "--name-only", "--no-renames", "-z")
        paths = ("HEAD", "--", ".", *excluded)
        changed = sorted({*_split(names(*paths)), *large})
        named = [name for name in changed if may_hold_secrets(name)]
        with_key = [name for name in _split(names("--text", f"-G{_PRIVATE_KEY}", *paths)) if not _is_code(name)]
        secret = sorted({*named, *with_key})
        if secret:
            from_stdin = ("--pathspec-from-file=-", "--pathspec-file-nul")
            changes("--literal-pathspecs", "reset", "--quiet", *from_stdin, "HEAD", stdin=_joined(secret))
        diff = staged("--binary", "--full-index", *paths)
        lines = b"".join(_line(root, name, name in new or name in large) for name in sorted({*large, *secret}))
    recorded = tuple(name for name in new if name not in secret and name not in OUTPUTS)
    return Tree(commit.decode().strip(), lines + diff, recorded, tuple(secret), tuple(changed))


def may_hold_secrets(name: str) -> bool:
    """Return whether a file's path says that it may hold secrets. Python modules are code, whatever their name."""
    parts = PurePosixPath(name.lower()).parts
    return not _is_code(name) and any(fnmatchcase(part, pattern) for part in parts for pattern in SECRET)


def _is_code(name: str) -> bool:
    return name.endswith(".py")


def _line(root: Path, name: str, is_new: bool) -> bytes:
    """Return a line for a file that is not in the diff, which `git apply` ignores."""
    shown = re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\x{ord(match[0]):02x}", name)
    try:
        state, digest = "new" if is_new else "changed", f" sha256 {files.sha256(root / name)}"
    except OSError:
        state, digest = "deleted", ""
    return os.fsencode(f"{state} {_LEFT_OUT}{shown}{digest}\n")


_LEFT_OUT = "file, not kept here: "


def left_out(diff: bytes) -> list[str]:
    """Return the files that a diff from `tree` names without their content."""
    lines = (re.fullmatch(rf"\w+ {_LEFT_OUT}(.+?)(?: sha256 \w+)?", line) for line in os.fsdecode(diff).split("\n"))
    return [line[1] for line in takewhile(bool, lines) if line]


def _joined(names: Sequence[str]) -> bytes:
    return b"\0".join(map(os.fsencode, names))


def _split(names: bytes) -> list[str]:
    return [os.fsdecode(name) for name in names.split(b"\0") if name]


def _new_files(root: Path, environment: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the new files of at most `LARGEST` bytes, and the larger ones."""
    listed = _git(root, "ls-files", "--others", "--exclude-standard", "-z", ".", environment=environment) or b""
    small: list[str] = []
    large: list[str] = []
    for name in _split(listed):
        path = root / name
        # git lists a nested repository as a folder, and a file may be gone again.
        if path.is_symlink() or not path.is_file() or not os.access(path, os.R_OK):
            continue
        with suppress(FileNotFoundError):
            (small if path.stat().st_size <= LARGEST else large).append(name)
    return small, large


def has(root: Path, commit: str) -> bool:
    """Return whether the commit is in this repository."""
    return commit != NONE and _git(root, "cat-file", "-e", f"{commit}^{{commit}}") is not None


@contextmanager
def worktree(root: Path, commit: str, diff: bytes, folder: Path) -> Iterator[Path]:
    """Check a commit out into `folder`, and apply a diff from `tree`; the worktree is removed when the block ends.

    Yields the folder that corresponds to `root`: a subfolder if the project is part of a larger repository.

    Raises:
        PedigreeError: git refuses.
    """
    plain = ("-c", "core.hooksPath=/dev/null")  # hooks, such as those of `dvc install`, are not part of the commit
    add = (*plain, "worktree", "add", "--detach", "--force", str(folder), commit)
    try:
        _git_or_raise(root, f"check out commit {commit}", *add)
        if diff:
            apply = ("apply", "--allow-empty", "--whitespace=nowarn", "-")
            _git_or_raise(folder, "apply the uncommitted changes", *apply, stdin=diff)
        yield folder / os.fsdecode(_git(root, "rev-parse", "--show-prefix") or b"").strip()
    finally:
        remove_worktree(root, folder)


def worktrees(root: Path) -> list[Path]:
    """Return all worktrees of this repository that git lists, including those whose folders are gone."""
    listed = os.fsdecode(_git(root, "worktree", "list", "--porcelain") or b"").splitlines()
    return [Path(line.removeprefix("worktree ")) for line in listed if line.startswith("worktree ")]


def remove_worktree(root: Path, folder: Path) -> None:
    """Remove a worktree with everything in it, and git's record of it."""
    _git(root, "worktree", "remove", "--force", "--force", str(folder))


def changed(root: Path, folder: str, old: str, new: str | None = None) -> list[str]:
    """Return the files below `folder` that differ between two commits, or between a commit and the working tree.

    The list is empty if a commit is not in this repository.
    """
    commits = [old, new] if new else [old]
    listed = _git(root, "diff", "--name-only", "-z", *_PLAIN, "--end-of-options", *commits, "--", folder) or b""
    return _split(listed)


def user(root: Path) -> str:
    """Return the name and email address that git would record in a commit, or else the account's name."""
    # Needs no repository, so one that git refuses to read is no hindrance.
    asked = [_run(root, ("config", f"user.{what}")) for what in ("name", "email")]
    name, address = (os.fsdecode(done.stdout).strip() if done else "" for done in asked)
    return f"{name} <{address}>" if name else _account()


def _account() -> str:
    """Return the name of the operating system's account, or its number if it has no name, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # KeyError until Python 3.12
        return f"uid {os.getuid()}"


def _git_or_raise(
    root: Path,
    what: str,
    *arguments: str,
    remedy: str = "",
    environment: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
) -> bytes:
    """Return git's output; with `--ignore-errors`, single files that cannot be read are no failure."""
    done = _run(root, arguments, environment=environment, stdin=stdin)
    if done is None or done.returncode not in ((0, 1) if "--ignore-errors" in arguments else (0,)):
        reason = done.stderr.decode(errors="replace").strip().splitlines() if done else ["git is not installed"]
        raise PedigreeError(f"git cannot {what} ({(reason or ['no reason given'])[-1]}){remedy}")
    return done.stdout


def _git(root: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> bytes | None:
    """Return git's output, or None if it fails, is not installed, or finds no repository.

    Raises:
        PedigreeError: there is a repository, and git refuses to read it.
    """
    done = _run(root, arguments, environment=environment)
    if done and done.returncode:
        _expect_readable(root)
    return done.stdout if done and done.returncode == 0 else None


def _expect_readable(root: Path) -> None:
    """Check that git does not refuse the repository at `root`; a refusal must not be taken for its absence."""
    done = _run(root, ("rev-parse", "--git-dir"))
    if done is None or done.returncode == 0:
        return
    lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
    reason = lines[0].removeprefix("fatal: ")
    if reason.startswith("not a git repository (or any"):  # else it names what a worktree's .git refers to
        return
    remedy = "repair it, or remove .git to work without a commit"
    if "dubious ownership" in reason:
        # git's own line names the folder that it compares, which is above `root` in a larger repository.
        named = re.search(r"repository at '(.+)'", reason)
        folder = named[1] if named else str(root)
        reason = f"{folder} belongs to another user"
        remedy = f"run `git config --global --add safe.directory {shlex.quote(folder)}`"
    raise PedigreeError(f"git refuses to read the repository of {root} ({reason}): {remedy}")


def _run(
    root: Path,
    arguments: tuple[str, ...],
    *,
    environment: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
) -> subprocess.CompletedProcess[bytes] | None:
    """Run git; return None if it is not installed."""
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=root,
            env={
                **{name: value for name, value in os.environ.items() if name not in _ELSEWHERE},
                "LC_ALL": "C",  # messages are read in English
                **(environment or {}),
            },
            input=stdin or b"",
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        return None
