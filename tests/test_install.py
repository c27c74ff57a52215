"""What requirements.lock installs works together, and is what was locked."""

import importlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize(
    "name", ["torch", "torchvision.ops", "torchaudio", "ray.train.torch", "mlflow", "prefect", "dvc.api"]
)
def test_the_pinned_packages_import_beside_each_other(name):
    assert importlib.import_module(name)


@pytest.mark.long
def test_a_uv_that_is_not_the_locked_one_is_not_installed(tmp_path):
    version = re.search(r"(?m)^uv==(\S+)", (ROOT / "requirements.lock").read_text())[1]
    info = f"uv-{version}.dist-info"
    with zipfile.ZipFile(tmp_path / f"uv-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: uv\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    dry = ["make", "--dry-run", "--always-make", f"BIN={Path(sys.executable).parent}", ".venv/installed"]
    recipe = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (install,) = (line for line in recipe.splitlines() if "-m pip install" in line)
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_TARGET": str(tmp_path / "installed")}
    done = subprocess.run(
        ["sh", "-c", install], cwd=ROOT, env=os.environ | offline, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
