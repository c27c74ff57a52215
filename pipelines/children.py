"""Child programs: hold their ports, wait until they answer, restart them, and let none outlive this process."""

import logging
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import psutil

from components.display import brief
from components.errors import PedigreeError
from components.runtime import processes
from components.runtime.processes import Process
from pipelines import output

log = logging.getLogger("pedigree.up")

START_SECONDS = 120
MINUTE, MOST_ENDS = 60.0, 5
"""A child that ends this often within this many seconds is not restarted: systemd's burst (systemd.unit(5))."""


BACKLOG = 2048
"""Connections that wait for a child, as many as uvicorn lets wait."""


def listen(address: str, needs: str, flag: str) -> socket.socket:
    """Listen at an address for children, which take the connections.

    A port that is free while a child starts or restarts could be taken by another account, which would be sent the
    login. So this process listens from before the first start to after the last end.

    Args:
        address: URL with a host and a port.
        needs: Subject and verb of the error message, such as "Prefect's server needs".
        flag: Command-line option that selects another port.

    Raises:
        PedigreeError: the port is in use, or reserved for root.
    """
    parts = urlsplit(address)
    try:
        return socket.create_server((str(parts.hostname), parts.port or 0), backlog=BACKLOG)
    except PermissionError:
        raise PedigreeError(
            f"port {parts.port} on {parts.hostname} is reserved for root, but {needs} it: choose one from 1024 "
            f"with {flag}"
        ) from None
    except OSError:
        raise PedigreeError(
            f"port {parts.port} on {parts.hostname} is in use{_by(parts.port or 0)}, but {needs} it: choose "
            f"another with {flag}, or stop the program that listens there"
        ) from None


def _by(port: int) -> str:
    """Return who listens at a port, as part of a sentence, or nothing if the machine does not tell."""
    with suppress(psutil.Error, OSError):
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.pid and each.laddr and each.laddr.port == port:
                return f" by pid {each.pid} ({brief(shlex.join(psutil.Process(each.pid).cmdline()))})"
    return ""


@dataclass
class _Child:
    arguments: list[str]
    cwd: Path | None
    inherited: tuple[int, ...]
    """File descriptor of the socket that it serves, if any."""
    program: subprocess.Popen[bytes]
    url: str
    family: set[Process] = field(default_factory=set)
    """The child and its descendants."""
    ends: list[float] = field(default_factory=list)
    """When it exited unexpectedly."""


class Children:
    """Python modules run as child processes; leaving the block ends them and all their descendants."""

    def __init__(self, env: Mapping[str, str], note: Callable[[set[Process]], None] = lambda family: None) -> None:
        """Start with no children.

        Args:
            env: Environment of all children.
            note: Called with all processes whenever a child is started.
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

    def start(
        self,
        what: str,
        arguments: list[str],
        url: str = "",
        cwd: Path | None = None,
        listening: socket.socket | None = None,
    ) -> None:
        """Start a module.

        Args:
            what: Its name in messages.
            arguments: For Python.
            url: Where `wait` later waits for an answer, if given.
            cwd: Its folder, if it is another than this process's.
            listening: A socket that it serves, whose file descriptor becomes its last argument.
        """
        inherited = (listening.fileno(),) if listening else ()
        arguments = [*arguments, *map(str, inherited)]
        program = self._started(arguments, cwd, inherited)
        self._children[what] = _Child(arguments, cwd, inherited, program, url)
        self._note(self.family())

    def wait(self) -> None:
        """Wait until every child with a URL answers there.

        Raises:
            PedigreeError: one does not answer within two minutes, or a child ended.
        """
        end = time.monotonic() + START_SECONDS
        for what, child in self._children.items():
            while child.url and not _answers(child.url):
                self.family()  # record descendants while their parent is alive, to find them after it ends
                for name, other in self._children.items():
                    if other.program.poll() is not None:
                        raise _ended(name, other)
                if time.monotonic() > end:
                    raise PedigreeError(
                        f"{what} did not answer at {child.url} within {START_SECONDS} s: see its output above"
                    )
                time.sleep(0.2)

    def _started(
        self, arguments: list[str], cwd: Path | None, inherited: tuple[int, ...]
    ) -> subprocess.Popen[bytes]:
        # In a session of its own, so that Ctrl-C in the terminal reaches only us and we end the children together.
        return subprocess.Popen(
            [sys.executable, *arguments], env=self._env, cwd=cwd, pass_fds=inherited, start_new_session=True
        )

    def family(self) -> set[Process]:
        """Return all live children and descendants, including those whose parent is gone."""
        for child in self._children.values():
            grown = child.family.union(processes.tree(child.program.pid))
            child.family = {process for process in grown if not process.gone}
        return set().union(*(child.family for child in self._children.values()))

    def keep_alive(self) -> None:
        """Restart children that exited.

        Raises:
            PedigreeError: a child exited for the fifth time within a minute.
        """
        self.family()
        for what, child in self._children.items():
            if child.program.poll() is None:
                continue
            # Descendants of a server may take connections. Flows, which have no URL, go on without their parent.
            if child.url:
                processes.end(child.family, seconds=1)
            child.ends.append(time.monotonic())
            if len([end for end in child.ends if end > time.monotonic() - MINUTE]) == MOST_ENDS:
                raise _ended(what, child)
            log.warning("%s ended with exit code %d: restarting it", what, child.program.returncode)
            child.program = self._started(child.arguments, child.cwd, child.inherited)
            self._note(self.family())

    def watch(self, look: Callable[[], None] = lambda: None) -> None:
        """Keep all children alive until Ctrl-C and call `look` twice a second; raises as `keep_alive` does."""
        try:
            while True:
                self.keep_alive()
                look()
                time.sleep(0.5)
        except KeyboardInterrupt:
            output.echo("stopping")


def _ended(what: str, child: _Child) -> PedigreeError:
    return PedigreeError(f"{what} ended with exit code {child.program.returncode}: see its output above")


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()  # noqa: S310 - one of our own URLs
    except OSError:
        return False
    return True
