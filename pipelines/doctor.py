"""`pedigree doctor`: what is not as it should be in this project, a sentence each, and what to do."""

from collections.abc import Callable, Sequence
from pathlib import Path

import typer

import components
from components.adapters import dvc_stages
from components.errors import PedigreeError

Check = Callable[[Path], list[str]]
"""Returns a sentence for each thing that is wrong."""


def dependencies(root: Path) -> list[str]:
    """Check that dvc.yaml names for each stage the modules that it imports."""
    found = dvc_stages.differences(root)
    return [f"{each}: `pedigree doctor --fix` writes it" for each in found]


CHECKS: Sequence[Check] = (dependencies,)


def doctor(root: Path, fix: bool) -> bool:
    """Print what is wrong, after mending what can be mended where `fix` is given; return whether all is well.

    Raises:
        PedigreeError: this is the `pedigree` of another checkout.
    """
    source = Path(components.__file__).resolve().parents[1]
    if source != root.resolve():
        raise PedigreeError(
            f"this `pedigree` runs the code of {source}, and not of {root}: use {root}/.venv/bin/pedigree"
        )
    if fix:
        dvc_stages.write(root)
    found = [sentence for check in CHECKS for sentence in check(root)]
    for sentence in found:
        typer.echo(sentence)
    if not found:
        typer.echo("All is well.")
    return not found
