"""A process goes on when nobody reads its output any more."""

import os
import shlex
import subprocess
import sys

import pytest

from tests.running import PEDIGREE

TALKS = """
import os, sys
from pipelines import output

output.keep_writable()
sys.stdin.read()
for stream in (sys.stdout, sys.stderr):
    print("nobody reads this", file=stream, flush=True)
    stream.writelines(["nor", "this"])
    stream.write("x" * 100_000)
    stream.flush()
os.write(2, b"nor what a library writes")
os.write({report}, b"went on")
"""


@pytest.fixture
def talking():
    """A process that begins to talk when its standard input is closed."""
    read, write = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", TALKS.format(report=write)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[write],
    ) as process:
        os.close(write)
        yield process, read
    os.close(read)


def test_a_process_whose_reader_was_killed_goes_on(talking):
    process, report = talking
    for stream in (process.stdout, process.stderr, process.stdin):
        stream.close()
    assert process.wait(60) == 0
    assert os.read(report, 100) == b"went on"


def test_output_that_is_read_arrives():
    code = "from pipelines import output; output.keep_writable(); print('here', end='')"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout == b"here"


def test_a_command_whose_output_is_closed_ends_as_ever():
    command = shlex.join([sys.executable, *PEDIGREE, "--help"])
    closed = f"set -o pipefail; {command} | (exec 0<&-; sleep 2)"
    done = subprocess.run(["bash", "-c", closed], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
