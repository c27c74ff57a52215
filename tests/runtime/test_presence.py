"""Whoever holds a lock lives, whatever its host is called; children of the dead are ended."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from components.runtime import locks, presence, processes
from components.runtime.processes import Process
from tests.conftest import ROOT
from tests.runtime.test_surroundings import RENAMED, needs_namespaces

PARENT = """
import subprocess, sys
from pathlib import Path
from components.runtime import locks, presence, processes
root = Path(sys.argv[1])
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
presence.note(presence.notes(root, "test"), [processes.of(child.pid)])
print(presence.announce(root).model_dump_json(), child.pid, flush=True)
input()
"""
CONTAINED = ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
"""Runs a program in a PID namespace of its own, as a container does."""


@contextmanager
def parent(root: Path, *around: str) -> Iterator[tuple[subprocess.Popen[str], Process, int]]:
    """Run a process that has announced itself and noted a child; yield it as both see it."""
    command = [*around, sys.executable, "-c", PARENT, str(root)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        said, _, child = started.stdout.readline().rpartition(" ")
        yield started, Process.model_validate_json(said), int(child)
        started.kill()


@pytest.mark.parametrize("around", [[], pytest.param(RENAMED, marks=needs_namespaces)])
def test_the_children_of_a_killed_process_are_ended_whatever_its_host_was_called(tmp_path, around):
    with parent(tmp_path, *around) as (started, process, child):
        assert presence.lives(tmp_path, process)
        assert presence.end_orphans(tmp_path) == []
        started.kill()
        started.wait()
        assert not presence.lives(tmp_path, process)
        presence.end_orphans(tmp_path)
        assert not psutil.pid_exists(child) or not processes.of(child).born
    assert list((tmp_path / presence.FOLDER).iterdir()) == []


@needs_namespaces
def test_a_process_in_another_container_lives_as_long_as_it_holds_its_lock_and_nothing_here_has_its_pid(tmp_path):
    with parent(tmp_path, *CONTAINED) as (started, process, _):
        assert process.pid < 10, "a number that some process here may have, too"
        assert presence.lives(tmp_path, process)
        assert not process.here
        assert not process.gone
        assert processes.end([process]) == []
        assert presence.end_orphans(tmp_path) == []
        started.kill()
        started.wait()
        while presence.lives(tmp_path, process):  # the kernel ends those in the namespace
            pass
        assert presence.end_orphans(tmp_path) == []
    (folder,) = (tmp_path / presence.FOLDER).iterdir()  # with notes that only its container understands
    yesterday = time.time() - presence.FOREIGN_SECONDS - 60
    os.utime(folder, (yesterday, yesterday))
    presence.end_orphans(tmp_path)
    assert not folder.exists()


def test_who_looks_for_the_living_does_not_count_as_one(tmp_path):
    process = presence.announce(tmp_path).model_copy(update={"machine": "another"})
    lock = tmp_path / presence.FOLDER / process.label / presence.LOCK
    lock.parent.mkdir(parents=True)
    lock.touch()
    with lock.open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # as `lives` does
        assert not presence.lives(tmp_path, process)
        fcntl.flock(other, fcntl.LOCK_EX)
        assert presence.lives(tmp_path, process)


def test_a_process_whose_folder_was_removed_announces_itself_anew_and_keeps_its_children(tmp_path):
    presence.announce(tmp_path)
    shutil.rmtree(tmp_path / "build")
    folder = presence.notes(tmp_path, "work")
    assert locks.held(folder.parent / presence.LOCK)


def test_a_process_of_an_earlier_boot_is_not_taken_for_one_with_its_pid_and_its_start_time(tmp_path):
    me = presence.announce(tmp_path)
    assert presence.lives(tmp_path, me)
    assert not presence.lives(tmp_path, me.model_copy(update={"machine": "of an earlier boot"}))
