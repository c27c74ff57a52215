"""python -m components MODEL STAGE: one stage by hand, under build/MODEL/, as dvc.yaml runs it."""

import gc
import importlib
import logging
import os
import sys
from pathlib import Path

from components import models
from components.errors import DEBUG, report
from components.models import STAGES
from components.params import nearest
from components.runtime import addresses, interrupts, surroundings

USAGE = f"usage: python -m components MODEL {'|'.join(STAGES)} [--debug]"


def run_stage(name: str, stage: str, root: Path) -> None:
    """Run one stage of a model with the parameters of params.yaml; its inputs are the files of the stage before."""
    model = models.load(root, name)
    # Only this stage's module, and what that imports: dvc.yaml runs a stage again when one of these changes.
    importlib.import_module(f"components.stages.{stage}").run(model)


def main(arguments: list[str]) -> int:
    """Return the exit code: 1 for a problem that a sentence explains, 2 for wrong usage."""
    surroundings.settle()
    debug = "--debug" in arguments or bool(os.environ.get(DEBUG))
    words = [word for word in arguments if word != "--debug"]
    if len(words) != 2 or words[1] not in STAGES:
        hint = nearest(words[1], STAGES) if len(words) == 2 else ""
        print(f"{USAGE}{hint}", file=sys.stderr)
        return 2
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("pedigree").setLevel(logging.INFO)
    try:
        addresses.expect_valid_environment()
        with interrupts.interruptible():
            run_stage(words[0], words[1], Path.cwd())
    except KeyboardInterrupt:
        return interrupts.INTERRUPTED
    except Exception as error:
        print(report(error, debug), file=sys.stderr)
        return 1
    finally:
        gc.freeze()  # otherwise the exiting interpreter traverses all objects of torch, as in pipelines/cli.py
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
