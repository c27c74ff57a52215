"""The models in params.yaml. Each is a named combination of a task, a data set and parameters."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components import params, tasks
from components.contracts import Task
from components.display import brief
from components.errors import PedigreeError
from components.params import FILE, TaskParams, Values, nearest
from components.runtime import files

MODELS = "models"
"""The section of params.yaml that lists the models."""
DATA, BUILD = "data", "build"
"""Folders of the project: data sets, and the output of the stages."""
RUNS, REPRODUCED, DOWNLOADS = "runs", "reproduced", "downloads"
"""Folders below build/ that belong to no model."""
RESERVED = frozenset({RUNS, REPRODUCED, DOWNLOADS})
STAGES = ("prepare", "train", "evaluate", "register")
"""A model's stages, in order."""
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Listed:
    """A model as listed in params.yaml: its parameters are not checked yet, nor its task imported."""

    name: str
    task: str
    data: str
    """Name of its data set; by default the model's own name."""
    says_data: bool
    """Whether the section names the data set explicitly, which dvc.yaml requires."""


@dataclass(frozen=True)
class Model:
    """A model of a project: what the stages, jobs and flows work on."""

    name: str
    """Also names its experiment, registered model, deployment, DVC stages and folder below build/."""
    task: Task[Any, Any]
    params: TaskParams
    data: str
    """Name of its data set, which several models can share."""
    root: Path
    """The project's folder."""

    @property
    def raw(self) -> Path:
        """The folder of its data set."""
        return self.root / DATA / self.data

    @property
    def build(self) -> Path:
        """The folder that its DVC stages write to."""
        return self.root / BUILD / self.name

    def expect_data(self) -> None:
        """Check that its data set exists.

        Raises:
            PedigreeError: it is missing; the message names the command that restores it.
        """
        expect_data(self.root, self)

    def expect_sources(self) -> None:
        """Check that the files and folders that parameters name exist; registered versions are not looked up.

        Raises:
            PedigreeError: one does not exist.
        """
        for key, named in params.sources(self.params).items():
            if not named.startswith(params.VERSION) and not (self.root / named).exists():
                raise missing_source(key, named)

    def for_preparation(self) -> TaskParams:
        """Return the parameters, with absolute paths of the files that those of the section prepare name.

        Raises:
            PedigreeError: one does not exist.
        """
        for key, named in params.sources(self.params).items():
            if key.startswith("prepare.") and not (self.root / named).exists():
                raise missing_source(key, named)
        return self.params.model_copy(update={"prepare": params.located(self.params.prepare, self.root)})


def expect_data(root: Path, model: Listed | Model) -> None:
    """Check that a model's data set exists; raises as `Model.expect_data` does."""
    if not files.filled(root / DATA / model.data):
        raise missing_data(model)


def missing_data(model: Listed | Model) -> PedigreeError:
    """Return the error for a missing data set."""
    return PedigreeError(
        f"{DATA}/{model.data} is missing: restore the data set of {model.name} with `pedigree data {model.name}`"
    )


def missing_source(key: str, named: str) -> PedigreeError:
    """Return the error for a file or folder that a parameter names and that does not exist."""
    if key == params.INIT:
        where = "docs/tutorial.md says where pretrained weights are"
        instead = f", or a registered version such as {params.VERSION}NAME@champion, or set {key}=random and "
        instead += "train.init.freeze=0"
    else:
        where, instead = "docs/tasks says how", ""
    return PedigreeError(
        f"{key} names {named}, which does not exist: get it first ({where}), or name another file or folder"
        f"{instead}"
    )


def read(root: Path) -> Values:
    """Read a project's params.yaml.

    Raises:
        PedigreeError: it is missing or invalid.
    """
    return params.read(root / FILE)


def listed(values: Values) -> list[Listed]:
    """Return all models in a params.yaml, in its order.

    Raises:
        PedigreeError: there is none, or a name or a task is invalid.
    """
    params.expect_current(values, ())
    section = values.section((MODELS,))
    if not section:
        raise PedigreeError(f"{FILE}: there is no `{MODELS}:` section with at least one model: add one")
    return [_listed(values, name) for name in section]


def _listed(values: Values, name: str) -> Listed:
    path = (MODELS, name)
    expect_name(name, values.location(path), "model")
    section = values.section(path)
    if section is None:
        raise PedigreeError(
            f"{values.location(path)}: the model {name} has no `key: value` lines below it: add them"
        )
    choices = ", ".join(tasks.names())
    if "task" not in section:
        raise PedigreeError(f"{values.location(path)}: the model {name} has no `task:`: add it, one of {choices}")
    task = str(section["task"])
    if task not in tasks.names():
        raise PedigreeError(
            f"{values.location((*path, 'task'))}: there is no task {brief(task)}{nearest(task, tasks.names())}: "
            f"the tasks are {choices}"
        )
    data = str(section.get("data", name))
    expect_name(data, values.location((*path, "data")), "data set")
    return Listed(name, task, data, "data" in section)


def expect_name(name: str, where: str, what: str) -> None:
    """Check the name of a model or data set, which also names folders, stages and deployments.

    Raises:
        PedigreeError: it is not made of lower-case letters, digits and hyphens, or is a reserved folder of build/.
    """
    if not _NAME.fullmatch(name):
        raise PedigreeError(
            f"{where}: {brief(name)} cannot name a {what}: use lower-case letters, digits and single hyphens, "
            "starting with a letter"
        )
    if what == "model" and name in RESERVED:
        raise PedigreeError(f"{where}: {name} cannot name a model, as {BUILD}/{name} is reserved: rename it")


def names(root: Path) -> list[str]:
    """Return the names of a project's models in the order of params.yaml; raises as `listed` does."""
    return [each.name for each in listed(read(root))]


def chosen(values: Values, wanted: Iterable[str]) -> list[Listed]:
    """Return the models with these names, in this order, or all models if none is named.

    Raises:
        PedigreeError: there is no such model, or as `listed` does.
    """
    by_name = {each.name: each for each in listed(values)}
    for name in wanted:
        if name not in by_name:
            raise PedigreeError(
                f"there is no model {brief(name)}{nearest(name, by_name)}: the models of {FILE} are "
                f"{', '.join(by_name)}"
            )
    return [by_name[name] for name in wanted] or list(by_name.values())


@dataclass(frozen=True)
class Profile:
    """A file in profiles/: parameters that override those of any model of a task."""

    name: str
    task: str
    values: Values
    """With a model's sections at the top level."""


def profile(root: Path, name: str) -> Profile:
    """Read profiles/<name>.yaml.

    Raises:
        PedigreeError: there is none, or it does not name a task.
    """
    profiles = sorted(path.stem for path in (root / "profiles").glob("*.yaml"))
    if name not in profiles:
        raise PedigreeError(
            f"there is no profiles/{name}.yaml{nearest(name, profiles)}: the profiles are {', '.join(profiles)}"
        )
    values = params.read(root / "profiles" / f"{name}.yaml")
    task = values.tree.get("task")
    if task not in tasks.names():
        raise PedigreeError(
            f"{values.locations.get(('task',), f'profiles/{name}.yaml')}: a profile must name its task: write "
            f"`task:`, one of {', '.join(tasks.names())}, and below it the sections that it changes"
        )
    if "data" in values.tree:
        raise PedigreeError(
            f"{values.location(('data',))}: a profile cannot change a model's data: remove this line"
        )
    return Profile(name, str(task), values)


def with_settings(over: Profile | None, task: str, settings: Iterable[str]) -> Profile | None:
    """Return a profile with single parameters that override its own, or None if there is neither.

    Raises:
        PedigreeError: a setting is malformed, or names the task or the data.
    """
    for setting in settings:
        values = params.assignment(setting, ())
        if own := [key for key in params.OWN if key in values.tree]:
            raise PedigreeError(f"--set {setting}: a run cannot change a model's {own[0]}: add a model instead")
        over = Profile(over.name if over else setting, task, values.over(over.values) if over else values)
    return over


def load(root: Path, name: str, over: Profile | None = None, settings: Iterable[str] = ()) -> Model:
    """Return a model with validated parameters.

    Args:
        root: The project's folder.
        name: Name of the model.
        over: Profile that overrides its parameters.
        settings: Single parameters that override those, such as `train.epochs=3`.

    Raises:
        PedigreeError: there is no such model, the profile is for another task, or a parameter is invalid.
    """
    return from_values(read(root), root, name, over, settings)


def from_values(
    values: Values, root: Path, name: str, over: Profile | None = None, settings: Iterable[str] = ()
) -> Model:
    """Return a model as `load` does, from a params.yaml that is already read."""
    (base,) = chosen(values, [name])
    path = (MODELS, name)
    if over and over.task != base.task:
        raise PedigreeError(
            f"profiles/{over.name}.yaml is for the task {over.task}, but {name} has the task {base.task}: "
            "choose a model of the profile's task"
        )
    if over := with_settings(over, base.task, settings):
        values = over.values.below(path).over(values)
    task = tasks.load(base.task)
    return Model(name, task, params.validate(task.params, values, path), base.data, root)
