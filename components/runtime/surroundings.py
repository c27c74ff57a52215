"""What the tools below take for granted about the process's surroundings, supplied where it is missing.

Each entry point calls `settle` first. Everything is set in `os.environ`, so that child processes inherit it; what
the user has set stays as it is.
"""

import logging
import os
import pwd
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from components.display import printable
from components.errors import without_login

LOGGER = "pedigree"
"""Name of the logger above all of ours."""
OWN = ("127.0.0.1", "localhost", "::1")
"""Hosts of the product's own servers."""
HOME = Path("build", ".home")
"""Below the project's folder: the home folder of a user that has none."""
SITE_CACHE = Path("build", ".dvc-site-cache")
"""Below the project's folder: DVC's locks and indices."""
_FAILING = ("", "strict", "surrogateescape")
"""Error handlers with which a stream raises an error at characters that its encoding lacks."""


def settle() -> None:
    """Complete the environment of this process and its children; let its output lack characters without failing."""
    _have_standard_streams()
    _reach_own_servers()
    _have_user()
    _start_ray_without_uv()
    _have_dvc_write_here()
    _print_what_can_be_printed()
    _log_what_can_be_shown()


def _have_standard_streams() -> None:
    """Open /dev/null for a standard stream that is closed (`pedigree run >&-`).

    The next file that is opened would get its number otherwise, and what child processes print would go there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
            os.set_inheritable(number, True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - open to the end


def _reach_own_servers() -> None:
    """Exempt this machine from proxies: a proxy would look for our servers on its own 127.0.0.1."""
    names = {name.lower() for name, value in os.environ.items() if value and name.lower().endswith("_proxy")}
    if names <= {"no_proxy"}:
        return  # without any variable, macOS's own settings count
    # Some programs read only one of the two, and most prefer the lower-case one.
    lower, upper = os.environ.get("no_proxy", ""), os.environ.get("NO_PROXY", "")
    for name, value in (("no_proxy", lower or upper), ("NO_PROXY", upper or lower)):
        hosts = [host.strip() for host in value.split(",") if host.strip()]
        if "*" not in hosts:  # which Python understands only if it stands alone
            os.environ[name] = ",".join(dict.fromkeys([*hosts, *OWN]))


def _have_user() -> None:
    """Name a user that the system does not know (`docker run --user 1234`); getpass and pathlib would raise."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        known = os.environ.get("LOGNAME") or os.environ.get("USER") or f"uid-{os.getuid()}"
        for name in ("LOGNAME", "USER"):
            os.environ[name] = os.environ.get(name) or known
        if not os.environ.get("HOME") and (project := _project()):
            os.environ["HOME"] = str(project / HOME)


def _start_ray_without_uv() -> None:
    """Start Ray's workers with this Python; under `uv run`, Ray would start them in an environment without Ray."""
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")


def _have_dvc_write_here() -> None:
    """Give DVC a folder in the project, unless the user has chosen one.

    In its usual one, /var/tmp/dvc, every account may replace files, among them databases whose values DVC
    unpickles. The folder is made here, because DVC would let every account write to it (dvc/repo/__init__.py,
    `site_cache_dir`).
    DVC prefers the environment variable to a setting in its configuration, so such a setting is looked for here.
    """
    project = _project()
    if project is None or "DVC_SITE_CACHE_DIR" in os.environ:
        return
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or Path(os.environ.get("HOME", "/"), ".config"))
    for file in (project / ".dvc/config.local", project / ".dvc/config", settings / "dvc/config"):
        if file.is_file() and re.search(r"(?m)^\s*site_cache_dir\s*=", file.read_text(errors="replace")):
            return
    with suppress(OSError):  # the project is read-only
        (project / SITE_CACHE / "repo").mkdir(parents=True, exist_ok=True)
        os.environ["DVC_SITE_CACHE_DIR"] = str(project / SITE_CACHE)


def _print_what_can_be_printed() -> None:
    """Print characters that an output's encoding lacks as escapes; otherwise they would end the work."""
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) in _FAILING and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    if encoding and errors in _FAILING:  # for children that are other programs, such as Prefect's server
        os.environ["PYTHONIOENCODING"] = f"{encoding}:backslashreplace"


def _log_what_can_be_shown() -> None:
    """Escape control characters and remove credentials in URLs in our log lines: they quote data and errors."""
    logging.setLogRecordFactory(_record)


_USUAL_RECORD = logging.getLogRecordFactory()


def _record(name: str, *arguments: Any, **options: Any) -> logging.LogRecord:
    record = _USUAL_RECORD(name, *arguments, **options)
    if name.partition(".")[0] == LOGGER:
        record.msg, record.args = printable(without_login(record.getMessage())), ()
    return record


def _project() -> Path | None:
    """Return the nearest folder, from the current one upwards, that contains a params.yaml, if there is one."""
    try:
        here = Path.cwd()
    except FileNotFoundError:  # it was deleted, which the command itself reports
        return None
    return next((folder for folder in (here, *here.parents) if (folder / "params.yaml").is_file()), None)
