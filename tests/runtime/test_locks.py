"""Locks between processes, and what is said while one waits for another."""

import logging
import subprocess
import sys
import threading
import time

import pytest
from filelock import FileLock

from components.runtime import files, locks, processes


@pytest.mark.parametrize("stale", [False, True], ids=["no note", "a dead one's note"])
def test_who_waits_says_for_whom_though_the_holder_writes_it_down_only_after_it_has_the_lock(
    stale, tmp_path, caplog
):
    caplog.set_level(logging.INFO, "pedigree.lock")
    file = tmp_path / "lock"
    note = tmp_path / "lock.json"
    if stale:
        dead = processes.this().model_dump() | {"pid": 2**22 + 1}
        files.write_json(note, {"doing": "what is over", "host": "node", **dead})
    other, waited = FileLock(file, thread_local=False, is_singleton=False), threading.Event()

    def wait() -> None:
        with locks.alone(file, "the second"):
            waited.set()

    with other:
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.3)
        files.write_json(note, {"doing": "the first", "host": "node", **processes.this().model_dump()})
        while "waiting for" not in caplog.text:
            assert thread.is_alive()
            time.sleep(0.01)
        assert not waited.is_set()
    thread.join(10)
    assert waited.is_set()
    assert caplog.messages[0].startswith("waiting for the first (pid ")


KEEP = """
import sys
from pathlib import Path
from components.runtime import locks
locks.hold(Path(sys.argv[1]))
print(flush=True)
sys.stdin.read()
"""


def test_a_lock_is_held_until_its_process_ends(tmp_path):
    lock = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", KEEP, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        assert locks.held(lock)
        other.kill()
        other.wait()
        assert not locks.held(lock)


def test_each_of_several_has_locks_of_its_own_and_who_wants_more_than_are_free_waits_for_them_first(
    tmp_path, caplog
):
    caplog.set_level(logging.INFO, "pedigree.lock")
    files_of = {name: tmp_path / name for name in "abc"}
    found: dict[str, list[str]] = {}
    enough = {name: threading.Event() for name in ("one", "both", "late")}

    def hold(name: str, number: int) -> None:
        with locks.some(files_of, number, tmp_path / "turn", f"the {name}"):
            assert enough[name].wait(90)

    def note(name: str, number: int) -> None:
        with locks.some(files_of, number, tmp_path / "turn", f"the {name}") as held:
            found[name] = list(held)
            assert enough[name].wait(90)

    def until(condition) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.01)

    def started(call, *arguments) -> threading.Thread:
        thread = threading.Thread(target=call, args=arguments)
        thread.start()
        return thread

    one = started(hold, "one", 2)
    until(lambda: locks.held(files_of["b"]))
    both = started(note, "both", 2)
    until(lambda: "the both (pid " in locks.holder(tmp_path / "turn"))  # "one" had it before
    until(lambda: "waiting for the one (pid " in caplog.text)
    late = started(note, "late", 1)
    until(lambda: "waiting for the both (pid " in caplog.text)
    assert found == {}, "c is kept for the one that came first"
    enough["one"].set()
    until(lambda: len(found) == 2)
    assert found == {"both": ["a", "c"], "late": ["b"]}
    for event in enough.values():
        event.set()
    for thread in (one, both, late):
        thread.join(10)
    assert not any(locks.held(file) for file in files_of.values())
