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


_TOOLS = {
    "mlflow": "MLflow",
    "sqlalchemy": "the database",
    "sqlite3": "the database",
    "prefect": "Prefect",
    "httpx": "Prefect's server",
}
"""Packages whose errors are those of something that runs, or is kept, outside this program."""


def last_sentence(error: BaseException) -> str | None:
    """Return the sentence for an error that nobody has dealt with, or None where only a traceback can help."""
    known = sentence(error)
    if known is not None:
        return known
    again = "look at it, and run the same command again (with --debug for more)"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}: {again}"
    tool = _TOOLS.get(type(error).__module__.partition(".")[0])
    if tool is None:
        return None
    return without_login(f"{tool} does not do as it is told ({first_line(error)}): {again}")


def first_line(error: BaseException) -> str:
    """Return what an error says at first; its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
