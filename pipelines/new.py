"""`pedigree new`: adds a model with its own data set."""

from collections.abc import Sequence
from pathlib import Path

from components import models
from components.project import new_model
from pipelines import output, prefect_yaml


def add(root: Path, name: str, like: str, folder: Path, profile: str | None, settings: Sequence[str]) -> None:
    """Add a model, and print the next steps.

    Raises:
        PedigreeError: it cannot be added; nothing has changed.
    """
    plan = new_model.plan(root, name, like, folder, profile, settings)
    new_model.add(plan, {prefect_yaml.FILE: prefect_yaml.text(root, plan.listed)})
    output.echo(
        f"added {name} to params.yaml and prefect.yaml, and pinned data/{name} in data.dvc: commit these files"
    )
    gate = models.load(root, name).params.register_.gate
    if not (gate.at_least or gate.at_most):
        output.echo(
            "its gate has no bounds for metrics, so that its first version becomes champion whatever its score: to "
            f"demand one, set register.gate.at_least or at_most of {name} in params.yaml"
        )
    output.echo(f"train it with `pedigree run {name}`; restart a running `pedigree up` to add its deployment")
