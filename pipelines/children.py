"""Programs that we start beside us: their ports, that they answer, and that none outlives us."""

import logging
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import typer

from components import processes
from components.errors import PedigreeError
from components.processes import Process

log = logging.getLogger("pedigree.up")

START_SECONDS = 120
MINUTE, MOST_ENDS = 60.0, 5
"""Within which a child may end, and how often before it is given up: systemd's burst (systemd.unit(5))."""


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


@dataclass
class _Child:
    arguments: list[str]
    cwd: Path | None
    program: subprocess.Popen[bytes]
    url: str
    family: set[Process] = field(default_factory=set)
    """It, and what it has started."""
    ends: list[float] = field(default_factory=list)
    """When it ended by itself."""


class Children:
    """Python modules that run beside us until the block ends; then they are gone, with all that they started."""

    def __init__(self, env: Mapping[str, str], note: Callable[[set[Process]], None] = lambda family: None) -> None:
        """Begin with none.

        Args:
            env: The environment of all of them.
            note: Told of the family whenever a child was started.
        """
        self._env, self._note = env, note
        self._children: dict[str, _Child] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        processes.end(self.family(), seconds=6)
        for child in self._children.values():
            child.program.wait()

    def start(self, what: str, arguments: list[str], url: str = "", cwd: Path | None = None) -> None:
        """Start a module, which will answer at an address, if one is given."""
        self._children[what] = _Child(arguments, cwd, self._begun(arguments, cwd), url)
        self._note(self.family())

    def wait(self) -> None:
        """Wait until all that have an address answer there.

        Raises:
            PedigreeError: one does not in two minutes, or a child ended.
        """
        end = time.monotonic() + START_SECONDS
        for what, child in self._children.items():
            while child.url and not _answers(child.url):
                self.family()  # what a child has started is known when the child has ended
                for name, other in self._children.items():
                    if other.program.poll() is not None:
                        raise _ended(name, other)
                if time.monotonic() > end:
                    raise PedigreeError(
                        f"{what} did not answer at {child.url} within {START_SECONDS} s: look at the lines above"
                    )
                time.sleep(0.2)

    def _begun(self, arguments: list[str], cwd: Path | None) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C in the terminal reaches only us, and we end the children together.
        return subprocess.Popen([sys.executable, *arguments], env=self._env, cwd=cwd, start_new_session=True)

    def family(self) -> set[Process]:
        """Return the children, and what they have started and still runs, though its parent may be gone."""
        for child in self._children.values():
            grown = child.family.union(processes.tree(child.program.pid))
            child.family = {process for process in grown if not process.gone}
        return set().union(*(child.family for child in self._children.values()))

    def keep_alive(self) -> None:
        """Start again what ended by itself.

        Raises:
            PedigreeError: a child ended for the fifth time within a minute.
        """
        self.family()
        for what, child in self._children.items():
            if child.program.poll() is None:
                continue
            if (
                child.url
            ):  # what it has left may hold its port; flows, on the other hand, go on without their parent
                processes.end(child.family, seconds=1)
            child.ends.append(time.monotonic())
            if len([end for end in child.ends if end > time.monotonic() - MINUTE]) == MOST_ENDS:
                raise _ended(what, child)
            log.warning("%s ended with exit code %d: it is started again", what, child.program.returncode)
            child.program = self._begun(child.arguments, child.cwd)
            self._note(self.family())

    def watch(self, look: Callable[[], None] = lambda: None) -> None:
        """Keep all alive until Ctrl-C, and `look` twice a second; raises as `keep_alive` does."""
        try:
            while True:
                self.keep_alive()
                look()
                time.sleep(0.5)
        except KeyboardInterrupt:
            typer.echo("taking all of it down")


def _ended(what: str, child: _Child) -> PedigreeError:
    return PedigreeError(f"{what} ended with exit code {child.program.returncode}: look at the lines above")


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()  # noqa: S310 - one of our own addresses
    except OSError:
        return False
    return True
