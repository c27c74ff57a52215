"""The program `dvc` of this environment: DVC's own, but of two at once in a workspace the second waits.

DVC itself refuses the second one ("is busy", exit code 255), even when it is about another stage.
"""

import logging
import os
import sys
from pathlib import Path

from components.adapters import dvc_data

WAITING = frozenset({"add", "checkout", "commit", "exp", "move", "pull", "remove", "repro", "unprotect", "update"})
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
    with dvc_data.alone(root, f"dvc {' '.join(sys.argv[1:])}"):
        dvc_data.mend(root)
        os.environ[_INSIDE] = "1"
        return int(dvc(sys.argv[1:]))
