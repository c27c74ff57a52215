"""The README's commands for one's own data, pasted as one block into a shell in a fresh clone."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.running import install

pytestmark = pytest.mark.long


@pytest.fixture
def clone(project, tmp_path):
    """A clone, without any data, whose `.venv` has the program `pedigree`."""
    folder = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", project, folder], check=True)
    install(folder)
    return folder


def pasted(clone: Path, mine: Path) -> subprocess.CompletedProcess[str]:
    """Paste the block that follows the title into bash, which goes on after a line that fails."""
    text = (ROOT / "README.md").read_text().partition("## Your own data\n\n")[2]
    block = re.match("(    .*\n)+", text)[0].replace("/path/to/mine", str(mine))
    return subprocess.run(["bash", "-c", block], cwd=clone, capture_output=True, text=True, check=False)


def test_they_train_a_model_on_ones_own_data(clone, project):
    done = pasted(clone, project / "data" / "digits")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^xrays: accuracy [\d.]+ \(version 1, champion\)$", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"xrays +image_classification +xrays: 148 files, pinned", done.stdout)


def test_where_the_folder_is_not_there_nothing_is_written_and_nothing_is_trained(clone, tmp_path):
    done = pasted(clone, tmp_path / "typo")
    assert "typo is not a folder with files" in done.stderr
    assert "there is no model 'xrays'" in done.stderr
    assert not (clone / "mlflow.db").exists()
    assert not list(clone.glob("data/*"))
    changes = subprocess.run(["git", "status", "--short"], cwd=clone, capture_output=True, text=True, check=True)
    assert changes.stdout == ""
