"""Manual promotion and rollback of a model's champion."""

from collections.abc import Sequence
from pathlib import Path

from components.adapters import git, mlflow_versions
from components.adapters.mlflow_versions import Promotion, Version
from components.errors import PedigreeError


def promote(address: str, why: str, root: Path) -> Version:
    """Make a version the champion, regardless of the gate; record who did so, when and why.

    Raises:
        PedigreeError: there is no such version, it is damaged, or it is already the champion.
    """
    version = mlflow_versions.find(address)
    mlflow_versions.check(version)
    with mlflow_versions.changing(version.name):
        champion = mlflow_versions.version_at(version.name, mlflow_versions.CHAMPION)
        if champion and champion.version == version.version:
            raise PedigreeError(f"{version.name} version {version.version} is already the champion: nothing to do")
        mlflow_versions.promote(version, git.user(root), why)
    return version


def rollback(name: str, why: str, root: Path) -> Version:
    """Make the champion's predecessor the champion again.

    Raises:
        PedigreeError: there is no champion, or it has no predecessor, or that is damaged.
    """
    with mlflow_versions.changing(name):
        return _rolled_back(name, why, root)


def _rolled_back(name: str, why: str, root: Path) -> Version:
    champion = mlflow_versions.find(f"{name}@{mlflow_versions.CHAMPION}")
    versions = {version.version: version for version in mlflow_versions.versions() if version.name == name}
    stack = _champions(mlflow_versions.promotions(name))
    while stack and (stack[-1] == champion.version or stack[-1] not in versions):
        stack.pop()
    if not stack:
        raise PedigreeError(
            f"{name} had no champion before version {champion.version}: promote another version with "
            f'`pedigree promote {name} VERSION --why "…"`'
        )
    version = versions[stack[-1]]
    mlflow_versions.check(version)
    mlflow_versions.promote(version, git.user(root), why, back=True)
    return version


def _champions(steps: Sequence[Promotion]) -> list[int]:
    """Return the stack of champions that rollbacks pop, with the present champion last."""
    stack: list[int] = []
    for step in steps:
        if step["back"] and step["version"] in stack:
            while stack[-1] != step["version"]:
                stack.pop()
        else:
            stack.append(step["version"])
    return stack


def history(steps: Sequence[Promotion], version: int) -> list[tuple[str, Promotion]]:
    """Return the promotions and rollbacks of a model that made a version champion or replaced it by a rollback.

    Args:
        steps: All promotions of the model, the earliest first.
        version: The version's number.

    Returns:
        For each, what happened, which is "promoted", "rolled back to" or "rolled back", and the step.
    """
    found = []
    for step in steps:
        if step["version"] == version:
            found.append(("rolled back to" if step["back"] else "promoted", step))
        elif step["back"] and step["before"] == version:
            found.append(("rolled back", step))
    return found
