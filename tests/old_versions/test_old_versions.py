"""Versions registered before params.yaml had `models:`, in a project that has pulled today's code since."""

import base64
import io
import json
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT, commit
from tests.running import PEDIGREE, free_ports, pedigree, python

pytestmark = pytest.mark.long

OLD = "eb014ca022fbad853e1fe6e7de812ce74abf1a6d"
"""The last commit before `models:`; its three tasks were registered under the tasks' names."""
NAMES = ("vision", "language", "speech")
SECONDS = 120


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)


@dataclass
class Pulled:
    """A project whose versions are older than its code."""

    folder: Path
    questions: Path
    """With a file for each model, of that name."""
    expected: dict[str, dict]
    """What evaluation found for that file before the version was registered."""
    commits: list[str]
    """The old ones: first the commit that the first version of each model was made from."""


@pytest.fixture(scope="module")
def pulled(tmp_path_factory):
    if git(ROOT, "cat-file", "-e", f"{OLD}^{{commit}}").returncode:
        pytest.skip(f"commit {OLD[:7]} is not in this clone: fetch the whole history to test what it registered")
    top = tmp_path_factory.mktemp("old versions")
    code, project, questions = (top / name for name in ("old code", "project", "questions"))
    with tarfile.open(fileobj=io.BytesIO(git(ROOT, "archive", OLD).stdout)) as archive:
        archive.extractall(code, filter="data")
    project.mkdir()
    questions.mkdir()
    script = Path(__file__).with_name("register_old.py")
    done = python(code, 600, str(script), str(project), str(questions), PYTHONPATH=str(code))
    assert done.returncode == 0, done.stdout + done.stderr
    commits = git(project, "rev-list", "--reverse", "HEAD").stdout.decode().split()
    pull(project)
    # A data set that has another name now: its files under the old name are in DVC's cache alone.
    (project / "data" / "vision").rename(project / "data" / "digits")
    return Pulled(project, questions, json.loads((questions / "expected.json").read_text()), commits)


def pull(project: Path) -> None:
    """Commit today's files in place of the old ones; what git ignores stays as it is, as in a pull."""
    assert git(project, "rm", "-r", "--quiet", ".").returncode == 0
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, project / name)
    commit(project, "Today's code")


def right(pulled: Pulled, name: str, answer: dict) -> bool:
    """Return whether a model answers the file of its questions as its evaluation did."""
    expected = pulled.expected[name]
    if "loss" in expected:
        return -statistics.mean(answer["log_probabilities"]) == pytest.approx(expected["loss"], abs=1e-5)
    probability = pytest.approx(expected["probability"], abs=1e-5)
    return expected["predicted"] in answer.values() and answer["probability"] == probability


@pytest.mark.parametrize("name", NAMES)
def test_an_old_versions_data_commit_run_and_weights_are_found(pulled, name):
    traced = pedigree(pulled.folder, "trace", f"models:/{name}@champion")
    assert traced.returncode == 0, traced.stderr
    for what in ("data", "code", "run", "weights"):
        assert re.search(rf"\b{what}  .* here *$", traced.stdout, re.MULTILINE), traced.stdout
    assert re.search(rf"\bcode  .*({'|'.join(pulled.commits)})", traced.stdout), traced.stdout


@pytest.mark.parametrize("name", NAMES)
def test_an_old_version_answers_a_file_as_its_evaluation_did(pulled, name):
    settings = ["--set", "score=true"] if name == "language" else []
    asked = pedigree(
        pulled.folder, "predict", f"{name}/1", str(pulled.questions / name), "--format", "json", *settings
    )
    assert asked.returncode == 0, asked.stderr
    assert right(pulled, name, json.loads(asked.stdout)), asked.stdout


@pytest.mark.parametrize(("name", "column"), [("vision", "image"), ("language", "text"), ("speech", "audio")])
def test_an_old_version_answers_over_http_as_its_evaluation_did(pulled, tmp_path, name, column):
    (port,) = free_ports(1)
    address, log = f"http://127.0.0.1:{port}", tmp_path / "log"
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, *PEDIGREE, "serve", f"{name}/1", "--port", str(port)],
            cwd=pulled.folder,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        until_up(server, address, log)
        content = (pulled.questions / name).read_bytes()
        value = content.decode() if column == "text" else base64.b64encode(content).decode()
        asked = {"dataframe_records": [{column: value}]} | ({"params": {"score": True}} if column == "text" else {})
        request = urllib.request.Request(
            f"{address}/invocations", json.dumps(asked).encode(), {"content-type": "application/json"}
        )
        (answer,) = json.load(urllib.request.urlopen(request))["predictions"]
        assert right(pulled, name, answer), answer
    finally:
        server.terminate()
        server.wait(30)


def until_up(server: subprocess.Popen, address: str, log: Path) -> None:
    end = time.monotonic() + SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{address}/ping").close()
        except OSError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        else:
            return


@pytest.mark.parametrize("name", NAMES)
def test_an_old_version_trained_again_from_its_commit_has_bitwise_the_same_weights(pulled, name):
    again = python(pulled.folder, 300, *PEDIGREE, "reproduce", f"{name}/1")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "identical" in again.stdout
    assert pulled.commits[0][:12] in again.stdout


def test_two_old_versions_are_compared_by_parameters_and_by_the_same_test_samples(pulled):
    compared = pedigree(pulled.folder, "diff", "vision/1", "vision/2")
    assert compared.returncode == 0, compared.stderr
    assert re.search(r"\btrain\.seed +0 +1\b", compared.stdout), compared.stdout
    number = r"[+-]?\d[\d.e+-]*"
    assert re.search(rf"{number} \[{number}, {number}\]", compared.stdout), compared.stdout
