"""A data set of a million files, and its listing, are read in a memory that a small machine has."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.long

FILES = 1_000_000
GROWTH = """
import sys
from pathlib import Path

def peak():  # of this program; ru_maxrss is at least that of the process which started it
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
"""
SURVEY = f"""{GROWTH}
from components.datasets import raw_files
before = peak()
print(len(raw_files.survey(Path(sys.argv[1])).readable), peak() - before)
"""
LISTING = f"""{GROWTH}
import json
from dvc_data.hashfile.db import get_odb
from dvc_objects.fs.local import LocalFileSystem
from components.adapters import dvc_listing
store, md5 = get_odb(LocalFileSystem(), sys.argv[1]), f"{{'ab' * 16}}.dir"
listing = Path(store.oid_to_path(md5))
listing.parent.mkdir()
entry = json.dumps({{"md5": "0" * 32, "relpath": "class/%d.png"}})
with listing.open("w") as file:
    file.write(f"[{{entry % 0}}")
    file.writelines(f", {{entry % number}}" for number in range(1, {FILES}))
    file.write("]")
before = peak()
print(len(dvc_listing.read(store, md5)), peak() - before)
"""


def growth(program: str, folder: Path) -> float:
    """Run a program that prints how many files it read and by how much its memory grew; return the latter in MB."""
    done = subprocess.run(
        [sys.executable, "-c", program, folder], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    files, megabytes = done.stdout.split()
    assert int(files) == FILES
    return float(megabytes)


@pytest.fixture
def million():
    """A folder with as many empty files, in memory where that can be had."""
    shared = Path("/dev/shm")
    top = Path(tempfile.mkdtemp(dir=shared if shared.is_dir() else None))
    try:
        for label in range(FILES // 10_000):
            (top / f"class{label}").mkdir()
            opened = os.open(top / f"class{label}", os.O_DIRECTORY)
            for number in range(10_000):
                os.mknod(f"{number}.png", dir_fd=opened)
            os.close(opened)
        yield top
    finally:
        subprocess.run(["rm", "-r", top], check=True)  # faster than shutil.rmtree


def test_a_million_files_are_listed_in_a_bounded_memory(million):
    assert growth(SURVEY, million) < 300  # 130 when measured


def test_a_listing_of_a_million_files_is_read_in_a_bounded_memory(tmp_path):
    assert growth(LISTING, tmp_path) < 1000  # 570 when measured
