"""Adds a model with its own data set to a project, completely or not at all."""

import io
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from components import models, params, yaml_text
from components.adapters import dvc_data
from components.errors import PedigreeError
from components.models import MODELS, Listed, Model, Profile
from components.project import resplit
from components.runtime import files

_log = logging.getLogger("pedigree.new")


@dataclass(frozen=True)
class Plan:
    """A checked addition of a model."""

    root: Path
    name: str
    folder: Path
    """The files of its data set."""
    text: str
    """The new content of params.yaml."""
    before: str
    """The content of params.yaml from which `text` was made."""
    listed: Sequence[Listed]
    """All models, including the new one."""


def plan(root: Path, name: str, like: str, folder: Path, profile: str | None, settings: Sequence[str] = ()) -> Plan:
    """Check everything that can be checked, and write nothing.

    Args:
        root: The project's folder.
        name: Name of the new model and of its data set.
        like: The model whose task and parameters to reuse.
        folder: The raw files.
        profile: Profile that overrides parameters.
        settings: Single parameters that override those, such as `prepare.seconds=2`.

    Raises:
        PedigreeError: the name is taken or invalid, the model, the folder or the profile cannot be used, or the new
            model could not be trained.
    """
    values = models.read(root)
    before = (root / params.FILE).read_text(encoding="utf-8")
    models.expect_name(name, "NAME", "model")
    if any(each.name == name for each in models.listed(values)):
        raise PedigreeError(
            f"{values.location((MODELS, name))}: the model {name} already exists: choose another name"
        )
    over = models.profile(root, profile) if profile else None
    usual = models.from_values(values, root, like, over, settings)
    over = models.with_settings(over, usual.task.name, settings)
    if (root / models.DATA / name).exists():
        raise PedigreeError(f"{models.DATA}/{name} already exists: choose another name, or move it away")
    if dvc_data.pinned(root, name):
        raise PedigreeError(f"{dvc_data.PIN} already pins {models.DATA}/{name}: choose another name")
    if not folder.is_dir() or not files.filled(folder):
        raise PedigreeError(f"{folder} is not a folder with files: name the folder of the data")
    dvc_data.expect_readable(folder.resolve())
    text = _with_section(root, before, name, like, over)
    if usual.params.prepare.resplit:  # the number of a draw from other data
        text = resplit.with_own(text, name, 0)
    model, listed = _added(text, name, root)
    _expect_trainable(model, folder)
    return Plan(root, name, folder, text, before, listed)


def add(plan: Plan, also: Mapping[str, str]) -> None:
    """Copy the data, pin them, and write params.yaml last; undo everything if a step fails.

    Args:
        plan: What to add.
        also: More project files to write, by name, with their text.

    Raises:
        PedigreeError: DVC refuses the data, or params.yaml has changed since `plan`.
        OSError: a file cannot be written, for example because the disk is full.
    """
    root, data = plan.root, plan.root / models.DATA / plan.name
    with dvc_data.alone(root, f"pedigree new {plan.name}"):
        _expect_unchanged(plan)  # by another `pedigree new`, which the lock waited for
        before = {
            name: (root / name).read_text(encoding="utf-8") if (root / name).exists() else None
            for name in (dvc_data.PIN, *also)
        }
        try:
            _log.info("copying %s to %s", plan.folder, data.relative_to(root))
            with files.replacing(data) as new:
                shutil.copytree(plan.folder, new, dirs_exist_ok=True)
            dvc_data.add(root, plan.name)
            _expect_unchanged(plan)
            for name, text in also.items():
                files.write_text(root / name, text)
            files.write_text(root / params.FILE, plan.text)
        except BaseException:
            files.remove(data)
            for name, old in before.items():
                if old is None:
                    files.remove(root / name)
                else:
                    files.write_text(root / name, old)
            raise


def _expect_unchanged(plan: Plan) -> None:
    if (plan.root / params.FILE).read_text(encoding="utf-8") != plan.before:
        raise PedigreeError(f"{params.FILE} was edited meanwhile: run the same command again")


def _with_section(root: Path, text: str, name: str, like: str, over: Profile | None) -> str:
    """Return params.yaml's `text` with a section for `name` at the end.

    The section inherits from `like` through an anchor, which is added if `like` has none. It spells out the data,
    the sections that the profile changes, and the gate if that has bounds for metrics: what is good on the data of
    `like` says nothing of others, so that only the profile's bounds remain.
    """
    top = YAML(typ="safe", pure=True).compose(text)
    section, key, base = _found(top, like)
    if section.flow_style:
        raise PedigreeError(f"{params.FILE}: `{MODELS}:` is in braces: put each model on a line first")
    anchor = str(base.anchor or yaml_text.free_anchor(text, like))
    if not base.anchor:
        text = yaml_text.with_anchor(text, key, anchor)
    lines = text.splitlines(keepends=True)
    end = yaml_text.last_line(section)
    if not lines[end].endswith("\n"):
        lines[end] += "\n"
    indent = " " * key.start_mark.column
    values = models.read(root)
    if over:
        values = over.values.below((MODELS, like)).over(values)
    section_values = values.section((MODELS, like)) or {}
    changed = over.values.tree if over else {}
    own = {key: section_values[key] for key in changed if key not in params.OWN}
    register, given = section_values["register"], over.values.section(("register", "gate")) if over else None
    bounds = {side: (given or {}).get(side, {}) for side in params.BOUNDS}
    if any(register["gate"][side] != bounds[side] for side in bounds):
        own["register"] = {**register, "gate": {**register["gate"], **bounds}}
    written = _dumped(own).splitlines() if own else []
    section_lines = [f"{name}:", f"  <<: *{anchor}", f"  data: {name}", *(f"  {line}" for line in written)]
    new = ["\n", *(f"{indent}{line}\n" for line in section_lines)]
    return "".join([*lines[: end + 1], *new, *lines[end + 1 :]])


def _found(top: MappingNode, like: str) -> tuple[MappingNode, ScalarNode, Node]:
    """Return the node of the models section, and the key and value of the model `like`."""
    section = next(value for key, value in top.value if key.value == MODELS)
    key, value = next((key, value) for key, value in section.value if key.value == like)
    return section, key, value


def _dumped(values: Mapping[str, Any]) -> str:
    yaml = YAML(typ="safe", pure=True)
    yaml.width = 4096
    yaml.default_flow_style = None  # the innermost sections in braces
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    text = io.StringIO()
    yaml.dump(values, text)
    return text.getvalue()


def _added(text: str, name: str, root: Path) -> tuple[Model, list[Listed]]:
    """Return the new model of a params.yaml that is not written yet, and all of its models."""
    with files.scratch(root / models.BUILD / "params") as folder:
        (folder / params.FILE).write_text(text, encoding="utf-8")
        values = models.read(folder)
    return models.from_values(values, root, name), models.listed(values)


def _expect_trainable(model: Model, folder: Path) -> None:
    """Check that a model's sources exist, and that its task takes the files in `folder`, of which it reads none."""
    try:
        model.expect_sources()
        if model.task.survey:
            model.task.survey(folder, model.params.prepare)
    except PedigreeError as error:
        raise PedigreeError(f"{model.name} was not added, as it could not be trained: {error}") from error
