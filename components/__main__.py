"""python -m components <task> <stage>: one stage by hand, under build/<task>/, as dvc.yaml runs it."""

import gc
import importlib
import logging
import os
import sys
from pathlib import Path

from components import interrupts, params, tasks
from components.errors import last_sentence
from components.params import nearest

STAGES = ("prepare", "train", "evaluate", "register")
USAGE = "usage: python -m components <task> prepare|train|evaluate|register [--debug]"


def run_stage(name: str, stage: str, root: Path) -> None:
    """Run one stage of a task with the parameters of params.yaml; its inputs are the files of the stage before."""
    task = tasks.load(name)
    values = params.validate(task.params, params.read(root / params.FILE), ("tasks", name))
    # Only this stage's module, and what that imports: dvc.yaml runs a stage again when one of these changes.
    importlib.import_module(f"components.stages.{stage}").run(task, values, root)


def main(arguments: list[str]) -> int:
    """Return the exit code: 1 for a problem that a sentence explains, 2 for wrong usage."""
    debug = "--debug" in arguments or bool(os.environ.get("PEDIGREE_DEBUG"))
    words = [word for word in arguments if word != "--debug"]
    if len(words) != 2 or words[1] not in STAGES:
        hint = nearest(words[1], STAGES) if len(words) == 2 else ""
        print(f"{USAGE}{hint}", file=sys.stderr)
        return 2
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("pedigree").setLevel(logging.INFO)
    try:
        with interrupts.interruptible():
            run_stage(words[0], words[1], Path.cwd())
    except KeyboardInterrupt:
        return interrupts.INTERRUPTED
    except Exception as error:
        text = last_sentence(error)
        if text is None or debug:
            raise
        print(f"error: {text}", file=sys.stderr)
        return 1
    finally:
        gc.freeze()  # as in pipelines/cli.py: Python would look through all that torch and the others have made
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
