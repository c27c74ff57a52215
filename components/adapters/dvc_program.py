"""The program `dvc` of this environment: DVC's own, but of two at once in a workspace the second waits.

DVC itself refuses the second one ("is busy", exit code 255), even when it is about another stage.
"""

import logging
import os
import subprocess
import sys
from pathlib import Path

from components import interrupts, processes
from components.adapters import dvc_data
from components.errors import PedigreeError, last_sentence

WAITING = frozenset(
    "add checkout commit exp freeze gc import import-url move pull remove repro unfreeze unprotect update".split()  # noqa: SIM905
)
"""Commands that change the workspace."""
_INSIDE = "PEDIGREE_INSIDE_DVC"
"""In the environment of what such a command starts, which must not wait for it."""


def main() -> int:
    """Run DVC with our arguments; return its exit code."""
    from dvc.cli import main as dvc  # type: ignore[import-untyped]

    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / dvc_data.FOLDER).is_dir()), None)
    if not words or words[0] not in WAITING or root is None or _INSIDE in os.environ:
        return int(dvc(sys.argv[1:]))
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("pedigree").setLevel(logging.INFO)
    try:
        with interrupts.interruptible(), dvc_data.alone(root, f"dvc {' '.join(sys.argv[1:])}"):
            dvc_data.mend(root)
            # As a child, so that its stage can be ended with it: DVC alone would leave that running.
            child = subprocess.Popen([sys.executable, "-m", "dvc", *sys.argv[1:]], env=os.environ | {_INSIDE: "1"})
            with dvc_data.noted(root, child.pid):
                try:
                    return child.wait()
                finally:
                    processes.end(processes.tree(child.pid), seconds=5)
    except KeyboardInterrupt:
        return interrupts.INTERRUPTED
    except (PedigreeError, OSError) as error:
        print(f"error: {last_sentence(error) or error}", file=sys.stderr)
        return 1
