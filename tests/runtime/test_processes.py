"""Processes are distinguished by birth, and ended with their children."""

import signal
import subprocess
import sys
import time

import pytest

from components.runtime import interrupts, processes
from components.runtime.processes import Process


def test_a_process_is_gone_when_its_number_belongs_to_another():
    me = processes.this()
    assert not me.gone
    assert Process(machine=me.machine, pid=me.pid, born="1").gone
    assert not Process(machine="another", pid=me.pid, born="1").gone
    assert not Process(machine="another", pid=me.pid, born="1").here
    assert processes.labelled(me.label) == me
    assert processes.labelled("no-label") is None


def test_a_process_that_ended_is_gone_even_before_anybody_has_waited_for_it():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        known = processes.of(child.pid)
        assert not known.gone
        child.kill()
        end = time.monotonic() + 10
        while not known.gone:
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.mark.parametrize("seconds", [0, 0.1])
def test_processes_are_ended_the_hard_way_when_they_do_not_go(seconds):
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "much = b'1' * 2**29; print(flush=True); time.sleep(600)"  # whose end takes the kernel a moment
    )
    with subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE, text=True) as child:
        child.stdout.readline()
        (known,) = processes.tree(child.pid)
        assert processes.end([known], seconds=seconds) == [known]
        assert known.gone


SLOW = """
import signal, subprocess, sys, time
from components.runtime import interrupts
signal.signal(signal.SIGHUP, signal.{hangup})
with interrupts.interruptible(seconds={seconds}):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        print(child.pid, flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        time.sleep(600)
"""


def await_gone(pid: int) -> None:
    end = time.monotonic() + 10
    while processes.of(pid).born:
        assert time.monotonic() < end
        time.sleep(0.01)


def started(seconds: float, hangup: str = "SIG_DFL") -> tuple[subprocess.Popen[str], int]:
    slow = subprocess.Popen(
        [sys.executable, "-c", SLOW.format(seconds=seconds, hangup=hangup)], stdout=subprocess.PIPE, text=True
    )
    return slow, int(slow.stdout.readline())


def test_a_second_interruption_ends_a_program_and_its_children_at_once():
    slow, child = started(seconds=600)
    slow.terminate()
    assert slow.stdout.readline() == "interrupted\n"
    slow.send_signal(signal.SIGINT)
    assert slow.wait(10) == interrupts.INTERRUPTED
    await_gone(child)


def test_a_terminal_that_is_closed_ends_a_program_as_ctrl_c_does():
    slow, child = started(seconds=0.2)
    slow.send_signal(signal.SIGHUP)
    assert slow.stdout.readline() == "interrupted\n"
    assert slow.wait(10) == interrupts.INTERRUPTED
    await_gone(child)


def test_a_terminal_that_is_closed_ends_no_program_that_nohup_began():
    slow, child = started(seconds=600, hangup="SIG_IGN")
    slow.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    slow.terminate()
    assert slow.stdout.readline() == "interrupted\n"
    time.sleep(0.3)
    assert slow.poll() is None, "SIGTERM was the first to interrupt it"
    slow.kill()
    slow.wait()
    processes.end([processes.of(child)])


def test_a_program_that_does_not_end_when_it_is_asked_to_is_ended():
    slow, child = started(seconds=0.2)
    slow.send_signal(signal.SIGINT)
    assert slow.wait(10) == interrupts.INTERRUPTED
    await_gone(child)


def test_a_process_that_computes_keeps_its_memory_but_as_a_person_has_set_it(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "7")
    monkeypatch.delenv("MALLOC_MMAP_MAX_", raising=False)
    settings = processes.keeping_memory()
    assert settings["MALLOC_ARENA_MAX"] == "7"
    assert settings["MALLOC_MMAP_MAX_"] == "0"
