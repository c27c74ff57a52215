"""The commands and the code of docs/tasks/image_generation.md, as they are written there."""

import re
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import ROOT
from tests.running import PEDIGREE

PAGE = (ROOT / "docs" / "tasks" / "image_generation.md").read_text()


def blocks(word):
    """Return the page's indented blocks that contain a word."""
    found = re.findall(r"(?:^    .*\n)+", PAGE, re.MULTILINE)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in found if word in block]


def test_the_code_loads_the_weights_in_plain_torch(chain_of):
    chain = chain_of("made-digits")
    (code,) = blocks("load_file")
    tiny = code.replace("classes=10", "classes=4").replace("width=48", "width=8")
    tiny = tiny.replace("build/made-digits/model", str(chain.trained.folder))
    names: dict[str, object] = {}
    exec(tiny, names)
    found, expected = names["model"].state_dict(), load_file(chain.trained.folder / "weights.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.long
def test_the_commands_write_the_images_that_the_page_names(chain_of, tmp_path):
    root = tmp_path / "project"
    left_out = shutil.ignore_patterns("build", ".prefect", "mlruns", ".git", ".dvc")
    shutil.copytree(chain_of("made-digits").root, root, ignore=left_out)
    (commands,) = blocks("pedigree predict")
    (root / "rows.csv").write_text("class,count\n0,2\n3,\n")
    pedigree = f"{sys.executable} {PEDIGREE[0]} '{PEDIGREE[1]}'"
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", commands.replace("pedigree", pedigree).replace('"7"', '"2"')],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (root / "seven").iterdir()) == [f"stdin-1-{n}.png" for n in range(1, 5)]
    drawn = ["rows-2-1.png", "rows-2-2.png", "rows-3-1.png"]
    assert sorted(path.name for path in (root / "drawn").iterdir()) == drawn
