"""`make check` refuses code that would run what it reads: by rules of ruff, and one that ruff has not."""

import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("folder", ["components", "components/tasks/image_classification", "pipelines"])
@pytest.mark.parametrize(
    ("call", "rule"),
    [
        ("import pickle\npickle.load(file)", "S301"),
        ("import pickle\npickle.loads(data)", "S301"),
        ("import marshal\nmarshal.load(file)", "S302"),
        ("import yaml\nyaml.load(file)", "S506"),
        ("import tarfile\ntarfile.open(file).extractall(folder)", "S202"),
        ("eval(text)", "S307"),
        ("exec(text)", "S102"),
        ("import os\nos.system(text)", "S605"),
        ("import subprocess\nsubprocess.run(text, shell=True)", "S602"),
    ],
)
def test_code_that_could_run_what_it_reads_is_rejected(folder, call, rule):
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise"]
    done = subprocess.run(
        [*command, "--stdin-filename", f"{folder}/new.py", "-"],
        cwd=ROOT,
        input=call,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f" {rule} " in done.stdout


@pytest.mark.parametrize("folder", ["components", "pipelines"])
def test_neither_arrays_nor_checkpoints_are_read_with_pickle(folder):
    """Both libraries refuse it by themselves; these are the words that let it in."""
    safe = {"allow_pickle": False, "weights_only": True}
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.keyword) and node.arg in safe:
                assert isinstance(node.value, ast.Constant), file
                assert node.value.value is safe[node.arg], file
