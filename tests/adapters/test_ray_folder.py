"""The folder of a process's local Ray: no other account can enter it, and it ends with its process."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from components.adapters import ray_folder
from components.errors import PedigreeError
from tests.conftest import ROOT

KILLED = """
import os, signal
from components.adapters import ray_folder
os.umask(0)
ray_folder.sessions().mkdir()
ray_folder.certificate()
print(oct(ray_folder.sessions().parent.stat().st_mode & 0o777), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def above(monkeypatch):
    """A folder for temporary files with a name that is short enough, which RAY_TMPDIR names."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


def test_a_start_removes_the_folder_of_a_killed_process_and_not_that_of_a_live_one(above):
    live = ray_folder._own.__wrapped__()
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=ROOT, stdout=subprocess.PIPE, check=False)
    assert killed.stdout == b"0o700\n", "whatever the umask is"
    assert len([*above.iterdir()]) == 2
    new = ray_folder._new()
    assert sorted(above.iterdir()) == sorted([live, new])


KEYS = """
import os, subprocess, sys
from components.adapters import ray_cluster
print(os.environ["RAY_TLS_SERVER_KEY"], flush=True)
if len(sys.argv) > 1:
    subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
"""


@pytest.mark.long
def test_a_process_that_another_one_starts_has_a_key_of_its_own(above, monkeypatch):
    for name in [name for name in os.environ if name.startswith("RAY_TLS") or name == "RAY_USE_TLS"]:
        monkeypatch.delenv(name)
    done = subprocess.run(
        [sys.executable, "-c", KEYS, KEYS], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    first, second = done.stdout.split()
    assert first != second
    assert {Path(first).parents[1], Path(second).parents[1]} == {above}


def test_on_a_folder_that_hosts_share_the_folders_of_another_host_stay(above):
    """Only locks between hosts could tell whether its processes live, and not every shared folder has these."""
    killed = "import platform; platform.node = lambda: 'other.example'" + KILLED
    subprocess.run([sys.executable, "-c", killed], cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
    (other,) = above.iterdir()
    new = ray_folder._new()
    assert sorted(above.iterdir()) == sorted([other, new])


def test_what_is_not_of_a_dead_process_stays(above, tmp_path):
    (tmp_path / ray_folder.LOCK).touch()
    planted, own = above / "ray-planted1", above / "ray-training"
    planted.symlink_to(tmp_path)
    if os.getuid() == 0:
        os.chown(planted, 65534, 65534, follow_symlinks=False)
    own.mkdir()
    (own / "weights").touch()
    ray_folder._new()
    assert (tmp_path / ray_folder.LOCK).exists()
    assert (own / "weights").exists()


def test_where_no_folder_is_short_enough_for_rays_sockets_the_remedy_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(ray_folder, "_SHORT", (tmp_path / "file",))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("a" * 60)))
    with pytest.raises(PedigreeError, match=r"^Ray cannot put its sockets below .*: set RAY_TMPDIR to a short"):
        ray_folder._new()
