"""Pages of docs/tasks: their code and their commands, as they are written there."""

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from tests.conftest import ROOT
from tests.running import install


def page(task: str) -> str:
    """Return the page of a task."""
    return (ROOT / "docs" / "tasks" / f"{task}.md").read_text()


def blocks(text: str, word: str) -> list[str]:
    """Return the indented blocks of a page that contain a word."""
    found = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in found if word in block]


def metrics(text: str) -> set[str]:
    """Return the names in the first column of the page's table of metrics, without those of groups."""
    table = text.partition("| metric |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    return {name.partition("/")[0] for cell in cells for name in re.findall("`([^`]+)`", cell)}


def run(commands: str, root: Path) -> str:
    """Run commands in a project, each of which has to succeed; return what they print."""
    programs = root / ".venv" / "bin"
    path = f"{programs if programs.exists() else install(root)}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", commands],
        cwd=root,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded(text: str, weights: Mapping[str, Tensor], folder: Path, **names: Any) -> dict[str, Any]:
    """Run the code of a page that loads weights, which are written where it reads them; return what it defines."""
    (code,) = blocks(text, "load_file")
    file = folder / re.search(r'load_file\("(.*)"\)', code)[1]
    file.parent.mkdir(parents=True)
    save_file(dict(weights), file)
    with chdir(folder):
        exec(code, names)
    return names


def train(text: str, data: str, write: Callable[[Path], None], project: Path, folder: Path) -> str:
    """Run the commands of a page for own data in ~/<data>, in a clone of a project; return what they print."""
    write(folder / data)
    subprocess.run(["git", "clone", "--quiet", project, folder / "clone"], check=True)
    (commands,) = blocks(text, f"--data ~/{data}")
    return run(commands.replace("~", str(folder)), folder / "clone")


def request_of(text: str, folder: Path) -> str:
    """Return what the command of a page sends to the server for a photo.jpg in a folder."""
    (block,) = blocks(text, "curl")
    return run(block.partition("\n")[2].partition(" |\n")[0], folder).replace("\n", "")  # as curl's --data does
