"""What a measurement in a process of its own needs at most: memory of it and its descendants, and disk space."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.cases import ROOT
from components.runtime import processes

INTERVAL = 0.5
"""Seconds between two looks."""


def watched(
    module: str, arguments: Sequence[str], cores: int | None = None, folder: Path | None = None
) -> dict[str, Any]:
    """Run `python -m module arguments`; return what its last line says, in JSON, with the peaks.

    These are `memory` of all processes and `memory of one`, the largest, in MiB: RssAnon of proc(5), which excludes
    memory-mapped files. With a folder, `disk` is that of its files, in MiB.

    Args:
        module: Name of the module.
        arguments: Its arguments.
        cores: How many cores it may use; None: all.
        folder: Where it writes.
    """
    command = [sys.executable, "-m", module, *arguments]
    if cores:
        command = ["taskset", "--cpu-list", f"0-{cores - 1}", *command]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as wrong:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=wrong)
        most = largest = disk = 0.0
        while process.poll() is None:
            sizes = [_own(each.pid) for each in processes.tree(process.pid)]
            most, largest = max(most, sum(sizes)), max([largest, *sizes])
            disk = max(disk, size(folder)) if folder else 0.0
            time.sleep(INTERVAL)
        output.seek(0)
        wrong.seek(0)
        if process.returncode:
            raise SystemExit(f"{command}:\n{wrong.read()[-3000:]}")
        found = json.loads(output.read().splitlines()[-1]) | {"memory": most, "memory of one": largest}
        return found | ({"disk": disk} if folder else {})


def size(folder: Path) -> float:
    """Return the size of a folder's files in MiB; a file that disappears meanwhile counts as none."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):
            total += file.stat().st_size if file.is_file() else 0
    return total / 2**20


def _own(pid: int) -> float:
    with suppress(OSError):
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return int(lines["RssAnon"].split()[0]) / 1024 if "RssAnon" in lines else 0.0  # a zombie has none
    return 0.0
