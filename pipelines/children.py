"""Child programs in one process group: hold their ports, await their answers, restart them, end them together."""

import itertools
import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import psutil

from components.display import brief
from components.errors import PedigreeError
from components.runtime import presence, processes
from pipelines import output

log = logging.getLogger("pedigree.up")

START_SECONDS = 120
END_SECONDS = 6.0
"""Time in which children may end by themselves."""
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
    start: Callable[[], subprocess.Popen[bytes]]
    program: subprocess.Popen[bytes]
    url: str
    ends: list[float] = field(default_factory=list)
    """When it exited unexpectedly."""


class Children:
    """Python modules run as child processes; leaving the block ends their process group.

    The group is theirs alone, so that Ctrl-C in a terminal reaches only this process. What they start, such as
    flows, is in it, also after its parent has ended.
    """

    def __init__(self, env: Mapping[str, str], notes: Path | None = None) -> None:
        """Start with no children.

        Args:
            env: Environment of all children.
            notes: Folder that records them, for `presence.end_noted` if this process is killed.
        """
        self._env, self._notes, self._group = env, notes, 0
        self._children: dict[str, _Child] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Ray's workers lead groups of their own.
        family = {each for child in self._children.values() for each in processes.tree(child.program.pid)}
        self._signal(signal.SIGTERM)
        end = time.monotonic() + END_SECONDS
        while self._signal(0) and time.monotonic() < end:
            time.sleep(0.05)
        self._signal(signal.SIGKILL)
        processes.end(family, seconds=0)
        for child in self._children.values():
            child.program.wait()

    def _signal(self, number: int) -> bool:
        """Send a signal to the group, or none if it is 0 (kill(2)); return whether the group has a process."""
        for child in self._children.values():
            child.program.poll()  # until then, one that has ended counts
        with suppress(ProcessLookupError):
            if self._group:
                os.killpg(self._group, number)
                return True
        return False

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
        inherited = [listening.fileno()] if listening else []
        start = partial(self._started, [*arguments, *map(str, inherited)], cwd, inherited)
        self._children[what] = _Child(start, start(), url)

    def wait(self) -> None:
        """Wait until every child with a URL answers there.

        Raises:
            PedigreeError: one does not answer within two minutes, or a child ended.
        """
        end = time.monotonic() + START_SECONDS
        for what, child in self._children.items():
            while child.url and not _answers(child.url):
                for name, other in self._children.items():
                    if other.program.poll() is not None:
                        raise _ended(name, other)
                if time.monotonic() > end:
                    raise PedigreeError(
                        f"{what} did not answer at {child.url} within {START_SECONDS} s: see its output above"
                    )
                time.sleep(0.2)

    def _started(self, arguments: list[str], cwd: Path | None, inherited: list[int]) -> subprocess.Popen[bytes]:
        if not self._signal(0):
            self._group = 0  # this child leads a new group
        program = subprocess.Popen(
            [sys.executable, *arguments],
            env=self._env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,  # a group in the background would be stopped when it reads from the terminal
            pass_fds=inherited,
            process_group=self._group,
        )
        self._group = self._group or program.pid
        try:
            if self._notes:
                presence.note(self._notes, [processes.of(program.pid)])
        except OSError as error:  # a full disk must not end running flows
            log.warning("could not record a started process (%s)", error)
        return program

    def keep_alive(self) -> None:
        """Restart children that exited.

        Raises:
            PedigreeError: a child exited for the fifth time within a minute.
        """
        for what, child in self._children.items():
            if child.program.poll() is None:
                continue
            child.ends.append(time.monotonic())
            if len([end for end in child.ends if end > time.monotonic() - MINUTE]) == MOST_ENDS:
                raise _ended(what, child)
            log.warning("%s ended with exit code %d: restarting it", what, child.program.returncode)
            child.program = child.start()

    def watch(self, look: Callable[[], None] = lambda: None) -> None:
        """Keep all children alive until Ctrl-C, and call `look` every ten seconds; raises as `keep_alive` does."""
        try:
            for half_seconds in itertools.count():
                self.keep_alive()
                if half_seconds % 20 == 0:
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
