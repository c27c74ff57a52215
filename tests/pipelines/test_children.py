"""What `pedigree up` starts is known from its first moment, so that a kill of `up` never leaves it unknown."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from components.errors import PedigreeError
from components.runtime import processes
from pipelines import crashed
from pipelines.children import Children

pytestmark = pytest.mark.long

SERVER_THAT_NEVER_ANSWERS = """
from functools import partial
from pathlib import Path
from pipelines import crashed
from components.runtime import processes
from pipelines.children import Children
with Children(processes.environment(), partial(crashed.note_children, Path.cwd())) as children:
    children.start("it", ["-c", "import time; time.sleep(600)"], "http://127.0.0.1:1/health")
    children.wait()
"""


def test_what_a_killed_up_was_only_starting_is_ended_by_the_next_one(tmp_path):
    env = os.environ | {"PYTHONPATH": str(Path.cwd())}
    up = subprocess.Popen([sys.executable, "-c", SERVER_THAT_NEVER_ANSWERS], cwd=tmp_path, env=env)
    while not (tmp_path / crashed.CHILDREN).exists():
        time.sleep(0.05)
    (child,) = processes.tree(up.pid)[1:]
    up.send_signal(signal.SIGKILL)
    up.wait()
    assert not child.gone
    crashed.end_children(tmp_path)
    assert child.gone


def test_what_a_child_that_ended_too_early_had_started_is_ended_too(tmp_path):
    note = tmp_path / "grandchild"
    begins = (
        "import subprocess, sys, time, pathlib; "
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        f"pathlib.Path({str(note)!r}).write_text(str(p.pid)); time.sleep(2)"
    )

    def run():
        with Children(processes.environment()) as children:
            children.start("it", ["-c", begins])
            children.start("another", ["-c", "import time; time.sleep(600)"], "http://127.0.0.1:1/health")
            children.wait()

    with pytest.raises(PedigreeError, match="it ended with exit code 0"):
        run()
    assert not psutil.pid_exists(int(note.read_text()))
