"""`pedigree doctor`: checks the project, and prints each problem with its remedy as one sentence."""

from collections.abc import Callable, Sequence
from pathlib import Path

import components
from components import models
from components.adapters import dvc_stages
from components.errors import PedigreeError
from components.runtime import files
from pipelines import output, prefect_yaml

Check = Callable[[Path], list[str]]
"""Returns a sentence for each problem."""


def dependencies(root: Path) -> list[str]:
    """Check that dvc.yaml lists the modules that each stage imports."""
    return [f"{each}: `pedigree doctor --fix` corrects it" for each in dvc_stages.differences(root)]


def data_names(root: Path) -> list[str]:
    """Check that each model in params.yaml names its data set, which dvc.yaml reads."""
    values = models.read(root)
    return [
        f"{values.location((models.MODELS, each.name))}: {each.name} has no `data:`, so DVC cannot run any stage "
        f"of any model: add `data: {each.data}`"
        for each in models.listed(values)
        if not each.says_data
    ]


def deployments(root: Path) -> list[str]:
    """Check that prefect.yaml has one deployment per model."""
    if not prefect_yaml.differs(root, models.listed(models.read(root))):
        return []
    return [f"{prefect_yaml.FILE} does not have one deployment per model: `pedigree doctor --fix` writes them"]


CHECKS: Sequence[Check] = (dependencies, data_names, deployments)


def doctor(root: Path, fix: bool) -> bool:
    """Print all problems, with `fix` after repairing what can be repaired; return whether there are none.

    Raises:
        PedigreeError: this `pedigree` belongs to another checkout.
    """
    source = Path(components.__file__).resolve().parents[1]
    if source != root.resolve():
        raise PedigreeError(
            f"this `pedigree` runs the code of {source}, not of {root}: use {root}/.venv/bin/pedigree"
        )
    if fix:
        dvc_stages.write(root)
        files.write_text(root / prefect_yaml.FILE, prefect_yaml.text(root, models.listed(models.read(root))))
    problems = [sentence for check in CHECKS for sentence in check(root)]
    for sentence in problems:
        output.echo(sentence)
    if not problems:
        output.echo("No problems found.")
    return not problems
