"""The login of this checkout's servers, in a file that only its user can read.

127.0.0.1 belongs to every account of a machine, and Prefect's server runs what it is sent.
"""

import os
import secrets
import stat
from pathlib import Path

from components.errors import PedigreeError
from components.runtime import files, locks

FILE = Path(".prefect", "login")
"""Below the project's folder."""
ELSEWHERE = "PEDIGREE_LOGIN_FILE"
"""Environment variable that names another file, for projects on file systems without owners or modes."""
VARIABLE = "PEDIGREE_LOGIN"
"""Environment variable in which `pedigree up` and `pedigree ui` pass the login to their servers.

The servers do not read the file again, which may have been replaced when one of them restarts.
"""
LOCK = Path("build", ".login.lock")
USER = "pedigree"


def new() -> str:
    """Return a new login, `user:password`, with 256 random bits."""
    return f"{USER}:{secrets.token_urlsafe(32)}"


def where() -> str:
    """Return how messages name the file."""
    return f"the file that {ELSEWHERE} names" if os.environ.get(ELSEWHERE) else str(FILE)


def _file(root: Path) -> Path:
    return root / (os.environ.get(ELSEWHERE) or FILE)


def of(root: Path) -> str:
    """Return the login of a checkout, which is created when it is first needed.

    Raises:
        PedigreeError: others can read or replace the file, or any file in its folder.
    """
    return read(root) or _create(root)


def read(root: Path) -> str | None:
    """Return the login of a checkout, or None if there is none yet.

    Raises:
        PedigreeError: others can read or replace the file.
    """
    file = _file(root)
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unsafe(file, f"is a link or cannot be read ({error.strerror})") from None
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as opened:
        if what := exposed(os.fstat(descriptor)):
            raise _unsafe(file, what)
        lines = opened.read().splitlines()
    if len(lines) != 1 or "\N{REPLACEMENT CHARACTER}" in lines[0] or not lines[0].strip().partition(":")[2]:
        raise _unsafe(file, "holds no user:password")
    return lines[0].strip()


def exposed(found: os.stat_result) -> str | None:
    """Return what is wrong with a file, as part of a sentence, if other accounts may read or change it."""
    if not stat.S_ISREG(found.st_mode):
        return "is not a file"
    if found.st_uid != os.geteuid():
        return f"belongs to another account (uid {found.st_uid})"
    if found.st_mode & 0o077:
        return f"is open to other accounts (mode {stat.S_IMODE(found.st_mode):04o})"
    return None


def _unsafe(file: Path, what: str) -> PedigreeError:
    return PedigreeError(f"{file}, the login of this checkout's servers, {what}: remove it for a new one")


def _create(root: Path) -> str:
    """Create the file with a new login, unless another process just did, and return its login."""
    with locks.alone(root / LOCK, "another start of a server"):
        if found := read(root):
            return found
        file, text = _file(root), new()
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with files.new_beside(file) as fresh:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
                if what := exposed(os.fstat(descriptor)):
                    raise PedigreeError(
                        f"{file.parent} cannot hold the login of this checkout's servers, as a new file there "
                        f"{what}: set {ELSEWHERE} to a file on a file system that keeps owners and modes"
                    )
                opened.write(f"{text}\n")
            files.publish(fresh, file)
        return text
