"""Registers models as people did before params.yaml had `models:`; runs in a checkout of that commit.

python register_old.py PROJECT QUESTIONS makes a project and registers vision twice, language and speech in it. For
each model it writes a file to ask about to QUESTIONS, and to expected.json what evaluation found for that file.
"""

import json
import sys
from pathlib import Path

from ruamel.yaml import YAML

from tests.classifiers import predictions
from tests.conftest import Chain, commit, make_project, run_chain, tiny


def ask(chain: Chain, questions: Path) -> dict[str, str | float]:
    """Write the content of a test sample to a file; return what evaluation found for it."""
    rows, _ = tiny(chain.task.name).requests(chain.raw, chain.evaluated.folder)
    ((column, content),) = rows[0].items()
    content = content if isinstance(content, bytes) else content.encode()
    (questions / chain.task.name).write_bytes(content)
    if column == "text":
        return {"loss": chain.evaluated.metrics["loss"]}
    first = predictions(chain.evaluated.folder)[0]
    return {"predicted": first["predicted"], "probability": float(first["probability"])}


def another_seed(project: Path) -> None:
    """Commit params.yaml with another seed for vision."""
    tree = YAML().load(project / "params.yaml")
    tree["tasks"]["vision"]["train"]["seed"] = 1
    YAML().dump(tree, project / "params.yaml")
    commit(project, "Another seed")


def main(project: Path, questions: Path) -> None:
    """Make the project and register its versions."""
    make_project(project)
    expected = {name: ask(run_chain(project, name), questions) for name in ("vision", "language", "speech")}
    (questions / "expected.json").write_text(json.dumps(expected))
    another_seed(project)
    run_chain(project, "vision")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
