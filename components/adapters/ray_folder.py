"""The folder of this process's local Ray, which no other account can enter: sessions, sockets and the key for TLS.

It does not import Ray, which reads the settings that come from here when it is imported.
"""

import ipaddress
import os
import platform
import sys
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from components.errors import PedigreeError
from components.runtime import files, locks

LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107
"""Most bytes in the path of a Unix socket."""
PREFIX, SESSIONS, KEY, LOCK = "ray-", "r", "tls.pem", f"{platform.node()}.lock"
"""Names of a process's folder, and of Ray's sessions, the key and a lock in it.

The lock names its host: on a folder that hosts share, each can tell only of its own processes whether they live.
"""
_BELOW = len(f"/{PREFIX}12345678/{SESSIONS}/session_2026-11-29_11-28-43_770505_4194304/sockets/plasma_store")
"""Bytes of such a path below the folder for temporary files."""
_SHORT = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))  # noqa: S108 - a folder of our own below one of them


def sessions() -> Path:
    """Return the folder for Ray's sessions.

    Ray lets every account write to it (ray/_common/utils.py, `try_to_create_directory`), but the folder above lets
    none pass.
    """
    return _own() / SESSIONS


def certificate() -> dict[str, str]:
    """Return the environment with which Ray's processes answer only those that have this process's key.

    The token does not suffice: a request without a node's id to the service that synchronises nodes ends Ray before
    it looks at the token (2.60, src/ray/ray_syncer/ray_syncer_server.cc, `GetNodeIDFromServerContext`).
    """
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime(1970, 1, 1, tzinfo=UTC))  # whatever the clock says: it ends with this process
        .not_valid_after(datetime(9999, 12, 31, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(loopback, critical=False)
        .sign(key, hashes.SHA256())
    )
    file = _own() / KEY
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + signed.public_bytes(pem))
    names = ("RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")
    return {"RAY_USE_TLS": "1"} | dict.fromkeys(names, str(file))


def inherited() -> bool:
    """Return whether the environment names the key of another process, which ends with that one."""
    file = Path(os.environ.get("RAY_TLS_SERVER_KEY", ""))
    return file.name == KEY and file.parent.name.startswith(PREFIX)


@cache
def _own() -> Path:
    """Return this process's folder; a later start removes it if the process is killed."""
    folder = _new()
    # As a lock that is free shows a dead process, it gets its name only when it is held.
    locks.hold(folder / "new")
    (folder / "new").rename(folder / LOCK)
    return folder


def _new() -> Path:
    """Make a folder with short enough names for sockets, below the usual one for temporary files if possible.

    Raises:
        PedigreeError: no folder is short and writable.
    """
    usual = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or _SHORT[0]).absolute()
    for above in (usual, *_SHORT):
        if len(os.fsencode(above)) + _BELOW <= LONGEST_SOCKET:
            with suppress(OSError):
                above.mkdir(parents=True, exist_ok=True)
                _remove_left(above)
                return Path(tempfile.mkdtemp(prefix=PREFIX, dir=above))
    raise PedigreeError(
        f"Ray cannot put its sockets below {usual}, which is not writable, or so long that their paths would have "
        f"more than {LONGEST_SOCKET} bytes: set RAY_TMPDIR to a short, writable folder"
    )


def _remove_left(above: Path) -> None:
    """Remove the folders of killed processes of this account on this host."""
    for lock in above.glob(f"{PREFIX}????????/{LOCK}"):
        with suppress(OSError):  # another process has removed it
            # Everyone may write to the folder above, and so could have put a link there.
            if lock.parent.lstat().st_uid == os.getuid() and not locks.held(lock):
                _remove(lock.parent)


def remove() -> None:
    """Remove this process's folder, if it has one."""
    if _own.cache_info().currsize:
        _remove(_own())


def _remove(folder: Path) -> None:
    """Remove a folder; its lock goes last, so that a later start finds what could not be removed."""
    files.remove(folder / SESSIONS)
    if not (folder / SESSIONS).exists():
        files.remove(folder)
