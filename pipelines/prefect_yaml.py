"""prefect.yaml: one generated deployment per model in params.yaml."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml.error import YAMLError

from components import yaml_text
from components.errors import PedigreeError
from components.models import Listed

FILE = "prefect.yaml"
_FLOWS = "pipelines/flow.py:"
"""Prefix of the entrypoints of generated deployments; deployments with other entrypoints belong to the user."""


def attribute(name: str) -> str:
    """Return the attribute of pipelines/flow.py that is a model's flow.

    It is unique: model names have no underscores, and nothing else there starts with `model_`.
    """
    return f"model_{name.replace('-', '_')}"


def text(root: Path, listed: Iterable[Listed]) -> str:
    """Return prefect.yaml with the deployments of these models; everything else stays, including comments.

    Raises:
        PedigreeError: prefect.yaml is invalid.
    """
    tree = _read(root)
    tree["deployments"] = [*(each for each in _deployments(tree) if not _ours(each)), *map(_deployment, listed)]
    dumped = io.StringIO()
    yaml_text.round_trip().dump(tree, dumped)
    return dumped.getvalue()


def differs(root: Path, listed: Iterable[Listed]) -> bool:
    """Return whether prefect.yaml is out of date for these models; raises as `text` does."""
    return [each for each in _deployments(_read(root)) if _ours(each)] != [*map(_deployment, listed)]


def _deployment(model: Listed) -> dict[str, Any]:
    return {
        "name": "pool",
        "description": f"Prepare, train, evaluate and register {model.name}, a model of the task {model.task}",
        "entrypoint": f"{_FLOWS}{attribute(model.name)}",
        "work_pool": {"name": "local"},
    }


def _deployments(tree: Any) -> list[Any]:
    return list(tree.get("deployments") or [])


def _ours(deployment: Any) -> bool:
    return isinstance(deployment, Mapping) and str(deployment.get("entrypoint")).startswith(_FLOWS)


def _read(root: Path) -> Any:
    try:
        tree = yaml_text.round_trip().load(root / FILE)
    except FileNotFoundError:
        return {"name": "pedigree"}
    except (YAMLError, UnicodeDecodeError) as error:
        raise PedigreeError(f"{FILE} is not YAML ({str(error).splitlines()[0]}): restore it from git") from None
    if not isinstance(tree, Mapping) or not isinstance(tree.get("deployments") or [], list):
        raise PedigreeError(f"{FILE} has no list `deployments`: restore it from git")
    return tree
