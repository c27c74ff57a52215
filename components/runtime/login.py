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
LOCK = Path("build", ".login.lock")
USER = "pedigree"


def new() -> str:
    """Return a new login, `user:password`, with 256 random bits."""
    return f"{USER}:{secrets.token_urlsafe(32)}"


def of(root: Path) -> str:
    """Return the login of a checkout, which is created when it is first needed.

    Raises:
        PedigreeError: others can read or replace the file.
    """
    return read(root) or _create(root)


def read(root: Path) -> str | None:
    """Return the login of a checkout, or None if there is none yet.

    Raises:
        PedigreeError: others can read or replace the file.
    """
    file = root / FILE
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError:
        raise _unsafe(file, "is a link or cannot be read") from None
    with os.fdopen(descriptor, encoding="utf-8") as opened:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _unsafe(file, "is not a file")
        if found.st_uid != os.geteuid():
            raise _unsafe(file, f"belongs to another account (uid {found.st_uid})")
        if found.st_mode & 0o077:
            raise _unsafe(file, f"is open to other accounts (mode {stat.S_IMODE(found.st_mode):04o})")
        text = opened.read().strip()
    if not text.partition(":")[2]:
        raise _unsafe(file, "holds no user:password")
    return text


def _unsafe(file: Path, what: str) -> PedigreeError:
    return PedigreeError(f"{file}, the login of this checkout's servers, {what}: remove it for a new one")


def _create(root: Path) -> str:
    """Create the file with a new login, unless another process just did, and return its login."""
    with locks.alone(root / LOCK, "another start of a server"):
        if found := read(root):
            return found
        file, text = root / FILE, new()
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with files.new_beside(file) as fresh:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
                opened.write(f"{text}\n")
            files.publish(fresh, file)
        return text
