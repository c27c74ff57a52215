"""What people meet when something is wrong: one sentence that says what, where and what to do."""

import errno
import re


class PedigreeError(Exception):
    """A problem that the person in front of the program can mend; its text is shown, without any password."""

    def __init__(self, text: str) -> None:
        super().__init__(without_login(text))


def without_login(text: str) -> str:
    """Return a text, such as an address, without the `user:password@` of the addresses in it."""
    return re.sub(r"(?<=://)[^/?#\s]+@", "", text)


class DamagedError(PedigreeError):
    """Something is there, and is not what was written."""


_STORAGE = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space and run the same command again",
    errno.EROFS: "the file system is read-only: run in a folder that can be written",
    errno.EACCES: "permission was denied: make it readable and writable for this user",
}


def sentence(error: BaseException) -> str | None:
    """Return the sentence to show for `error`, or None where only a traceback can help."""
    if isinstance(error, PedigreeError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _STORAGE:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{_STORAGE[error.errno]}; earlier results are untouched."
    return None
