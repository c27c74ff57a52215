"""Programs that we start beside us: their ports, that they answer, and that none outlives us."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import typer

from components import processes
from components.errors import PedigreeError

START_SECONDS = 120


def environment(**more: str) -> dict[str, str]:
    """Return our own environment with `more`, and with the programs that are installed beside this Python first."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"} | more


def expect_free(address: str, needs: str, remedy: str) -> None:
    """Check that nothing listens at an address.

    Args:
        address: With a host and a port.
        needs: Who needs it, and the verb: "Prefect's server needs".
        remedy: What to do, where it is in use.

    Raises:
        PedigreeError: something does.
    """
    parts = urlsplit(address)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((str(parts.hostname), parts.port or 0))
        except OSError:
            raise PedigreeError(
                f"port {parts.port} on {parts.hostname} is in use, and {needs} it: {remedy}"
            ) from None


@contextmanager
def child_of_ours(
    arguments: list[str], env: Mapping[str, str], cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python module as a child that is gone, with all of its own children, when the block ends."""
    # A session of its own: Ctrl-C in the terminal reaches only us, and we end the children in order.
    child = subprocess.Popen([sys.executable, *arguments], env=env, cwd=cwd, start_new_session=True)
    try:
        yield child
    finally:
        processes.end(processes.tree(child.pid))
        child.wait()


def await_answer(url: str, what: str, children: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """Wait until a child answers at an address.

    Raises:
        PedigreeError: it does not in two minutes, or a child ended.
    """
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        _expect_alive(children)
        try:
            urllib.request.urlopen(url, timeout=2).close()  # noqa: S310 - one of our own addresses
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise PedigreeError(f"{what} did not answer at {url} within {START_SECONDS} s: look at the lines above")


def _expect_alive(children: Mapping[str, subprocess.Popen[bytes]]) -> None:
    for what, child in children.items():
        if child.poll() is not None:
            raise PedigreeError(f"{what} ended with exit code {child.returncode}: look at the lines above")


def wait(children: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """Wait for Ctrl-C.

    Raises:
        PedigreeError: a child ended by itself.
    """
    try:
        while True:
            _expect_alive(children)
            time.sleep(0.5)
    except KeyboardInterrupt:
        typer.echo("taking all of it down")
