"""Errors for users: one sentence that says what is wrong, where, and what to do."""

import errno
import re
import traceback

from components.display import printable

DEBUG = "PEDIGREE_DEBUG"
"""Environment variable that shows tracebacks, as --debug does."""


class PedigreeError(Exception):
    """A problem that the user can solve.

    Its text has nothing that may be secret in the URLs in it, and no control characters, which a file name may
    contain.
    """

    def __init__(self, text: str) -> None:
        super().__init__(printable(without_login(text)))


def without_login(text: str) -> str:
    """Return a text with `user:password@` and queries, which may hold a token, removed from the URLs in it.

    This takes URLs that can be parsed: `addresses.expect_valid` refuses others before they get into a text.
    """
    text = re.sub(r"(?<=://)[^/?#\s]+@", "", text)
    # In errors of Python's HTTP clients, a URL is only its path: `url: /path?token=…`.
    return re.sub(r"(://[^\s?'\"]+|(?<=\burl: )/[^\s?'\"]*)\?[^\s'\")]+", r"\1", text)


class DamagedError(PedigreeError):
    """Something exists but is not what was written."""


_STORAGE = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space and run the same command again",
    errno.EROFS: "the file system is read-only: run in a writable folder",
    errno.EACCES: "permission was denied: make it readable and writable for this user",
}


def sentence(error: BaseException) -> str | None:
    """Return the sentence to show for `error`, or None if only a traceback helps."""
    if isinstance(error, PedigreeError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _STORAGE:
        where = f"{error.filename}: " if error.filename else ""
        return printable(f"{where}{_STORAGE[error.errno]}; earlier results are untouched.")
    return None


_TOOLS = {
    "mlflow": "MLflow",
    "sqlalchemy": "the database",
    "sqlite3": "the database",
    "prefect": "Prefect",
    "httpx": "Prefect's server",
}
"""Packages whose errors come from a service or a file outside this program."""


def last_sentence(error: BaseException) -> str | None:
    """Return the sentence for an unhandled error, or None if only a traceback helps."""
    text = sentence(error)
    if text is not None:
        return text
    remedy = "and run the same command again (with --debug for more)"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return printable(f"{where}{error.strerror}: check it {remedy}")
    tool = _TOOLS.get(type(error).__module__.partition(".")[0])
    if tool is None:
        return None
    return printable(without_login(f"{tool} returned an error ({first_line(error)}): check it {remedy}"))


def report(error: BaseException, debug: bool) -> str:
    """Return what to print of an error that ends the process: a sentence, or its traceback if only that helps."""
    text = last_sentence(error)
    if text is None or debug:
        return printable(without_login("".join(traceback.format_exception(error)))).rstrip()
    return f"error: {text}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
