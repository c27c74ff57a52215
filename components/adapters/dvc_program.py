"""The program `dvc` of this environment: DVC, except that a second command in a workspace waits for the first.

DVC itself refuses a second command ("is busy", exit code 255), even for another stage. This program also runs the
stages of a model if data sets of other models are missing; if the model's own is missing, it says how to get it. It
moves and compares only what stages have written, where DVC reports the outputs of stages that never ran as missing.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from components import models
from components.adapters import dvc_data
from components.display import printable
from components.errors import PedigreeError, last_sentence
from components.runtime import files, interrupts, processes, surroundings

WAITING = frozenset(
    "add checkout commit exp freeze gc import import-url move pull remove repro unfreeze unprotect update".split()  # noqa: SIM905
)
"""Commands that change the workspace."""
OF_OUTPUTS = frozenset(("push", "pull", "fetch", "checkout", "metrics", "plots"))
"""Commands that move or compare outputs."""
PLAIN = frozenset(
    "-f --force -i --interactive --no-commit --no-run-cache -q --quiet -v --verbose".split()  # noqa: SIM905
)
"""Options of `dvc repro` that have the same meaning for a single stage."""
_INSIDE = "PEDIGREE_INSIDE_DVC"
"""Environment variable of the processes of such a command, which must not wait for it."""


def main() -> int:
    """Run DVC with this process's arguments; return its exit code."""
    surroundings.settle()
    from dvc.cli import main as dvc  # type: ignore[import-untyped]

    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / dvc_data.FOLDER).is_dir()), None)
    if words and words[0] in OF_OUTPUTS:
        _leave_out_stages_that_never_ran()
    if not words or words[0] not in WAITING or root is None or _INSIDE in os.environ:
        return int(dvc(sys.argv[1:]))
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("pedigree").setLevel(logging.INFO)
    try:
        with interrupts.interruptible(), dvc_data.alone(root, f"dvc {' '.join(sys.argv[1:])}"):
            dvc_data.repair(root)
            for folder in (root / dvc_data.DATA).glob("*/"):
                dvc_data.expect_readable(folder)
            arguments = _around_missing_data(root, sys.argv[1:])
            # As a child, so that its stage can be ended with it: DVC itself would leave the stage running.
            program = "components.adapters.dvc_program" if words[0] in OF_OUTPUTS else "dvc"
            child = subprocess.Popen(
                [sys.executable, "-m", program, *arguments], env=processes.environment(**{_INSIDE: "1"})
            )
            with dvc_data.noted(root, child.pid):
                try:
                    code = child.wait()
                finally:
                    processes.end(processes.tree(child.pid), seconds=5)
            if code and words[0] == "repro":
                _report_missing_data(root, words[1:])
            return code
    except KeyboardInterrupt:
        return interrupts.INTERRUPTED
    except (PedigreeError, OSError) as error:
        print(printable(f"error: {last_sentence(error) or error}"), file=sys.stderr)
        return 1


def _leave_out_stages_that_never_ran() -> None:
    """Keep DVC from collecting outputs that dvc.lock does not name (https://github.com/treeverse/dvc/issues/5913).

    DVC has no setting for it: `--allow-missing` still warns of each, and `dvc metrics diff` has no such option. A
    stage that is named as a target is not affected.
    """
    from dvc.repo.index import Index  # type: ignore[import-untyped]

    of_file = Index.from_file

    def of_what_ran(repo: Any, path: str) -> Any:
        index = of_file(repo, path)
        index.stages = [each for each in index.stages if not each.cmd or any(out.hash_info for out in each.outs)]
        return index

    Index.from_file = of_what_ran


def _around_missing_data(root: Path, arguments: list[str]) -> list[str]:
    """Return arguments with which `dvc repro STAGE@NAME` runs its stages one by one if data sets are missing.

    Otherwise DVC would verify all of data.dvc before a stage that reads only one data set: it would fail if another
    one is missing, and pin an empty folder as a data set without files.
    """
    targets = [word for word in arguments if not word.startswith("-") and word != "repro"]
    options = [word for word in arguments if word.startswith("-")]
    pairs = [(stage, name) for stage, _, name in (target.partition("@") for target in targets)]
    if "repro" not in arguments or not pairs or not PLAIN.issuperset(options) or not dvc_data.missing(root):
        return arguments
    data = {each.name: each.data for each in models.listed(models.read(root))}
    if any(stage not in models.STAGES or name not in data for stage, name in pairs):
        return arguments
    for each in sorted({data[name] for _, name in pairs}):
        if files.filled(raw := root / models.DATA / each):
            dvc_data.add_changed(root, each, dvc_data.hash_of(raw, root))
    chain = [f"{each}@{name}" for stage, name in pairs for each in models.STAGES[: models.STAGES.index(stage) + 1]]
    return ["repro", *options, "--single-item", *dict.fromkeys(chain)]


def _report_missing_data(root: Path, targets: Sequence[str]) -> None:
    """Print how to get the data sets that these stages lack; DVC's own message names only a folder."""
    with suppress(PedigreeError):  # params.yaml is invalid, which DVC has reported
        names = [target.partition("@")[2] for target in targets if "@" in target]
        readers = {each.data: each for each in reversed(models.chosen(models.read(root), names))}
        for data, model in sorted(readers.items()):
            if not (root / models.DATA / data).exists():  # the stage itself has reported an empty folder
                print(f"error: {models.missing_data(model)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
