"""Prefect's profile, which its own commands read: during `pedigree up`, it has the server's address and login."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import PedigreeError
from components.runtime import login

if TYPE_CHECKING:
    from prefect.settings.legacy import Setting


@contextmanager
def holding(api: str, its_login: str) -> Iterator[None]:
    """Make the `prefect` command in this checkout use this server while the block runs.

    It reads `.prefect/profiles.toml`, as set in pyproject.toml; `prefect config set` writes there, too. The user's
    own entries are there again afterwards.

    Raises:
        PedigreeError: others could read the file, which contains the login.
    """
    from prefect.settings import get_current_settings, load_current_profile

    clear()
    profiles = get_current_settings().profiles_path
    profiles.parent.mkdir(parents=True, exist_ok=True)
    profiles.touch(mode=0o600)
    with suppress(PermissionError):  # another account's, which is reported
        profiles.chmod(0o600)  # it may have been created by hand
    if what := login.exposed(profiles.stat()):
        raise PedigreeError(
            f"{profiles} cannot hold the login of Prefect's server, as it {what}: set PREFECT_PROFILES_PATH to a "
            "file on a file system that keeps owners and modes"
        )
    earlier = load_current_profile().settings
    _update(api, its_login)
    try:
        yield
    finally:
        _update(*(earlier.get(each) for each in _entries()))


def clear() -> None:
    """Remove from Prefect's profile what a `pedigree up` that was killed left there: its address and login."""
    from prefect.settings import load_current_profile

    _, auth_string = (load_current_profile().settings.get(each) for each in _entries())
    if auth_string and auth_string == login.read(Path.cwd()):
        _update(None, None)


def _entries() -> "tuple[Setting, Setting]":
    from prefect import settings

    return settings.PREFECT_API_URL, settings.PREFECT_API_AUTH_STRING


def _update(*values: object) -> None:
    from prefect.settings import update_current_profile

    update_current_profile(dict(zip(_entries(), values, strict=True)))
