"""Draws a new test split for a data set: raises `prepare.resplit` of all models that read it."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode

from components import models, params, yaml_text
from components.adapters import dvc_data
from components.errors import PedigreeError
from components.models import MODELS
from components.params import TaskParams
from components.runtime import files

PREPARE, RESPLIT = "prepare", "resplit"

_Entry = tuple[ScalarNode, Any]
"""A key of a mapping and its value, whose marks are those of the anchor if it is an alias."""


def draw_anew(root: Path, name: str) -> Iterator[str]:
    """Write the next number of a draw to params.yaml; yield what was done, and what to do next.

    All models that read the data set get the same number: a model would look too good if it started from the
    weights of one that was trained on its test split. Models of other data sets keep theirs, even where they
    inherit it. No raw file changes.

    Args:
        root: The project's folder.
        name: A model that reads the data set.

    Raises:
        PedigreeError: there is no such model, its parameters are invalid, or params.yaml cannot be rewritten.
    """
    with dvc_data.alone(root, f"pedigree data {name} --resplit"):
        values = models.read(root)
        listed = models.listed(values)
        (chosen,) = models.chosen(values, [name])
        together = [each.name for each in listed if each.data == chosen.data]
        own = {each: models.from_values(values, root, each).params for each in together}
        number = 1 + max(each.prepare.resplit for each in own.values())
        with (root / params.FILE).open(encoding="utf-8", newline="") as file:  # keeps line ends
            before = file.read()
        files.write_text(root / params.FILE, _with_number(before, together, number))
    verb = "reads" if len(together) == 1 else "read"
    yield (
        f"{params.FILE} has resplit: {number} for {', '.join(together)}, which {verb} {models.DATA}/{chosen.data}: "
        "the next test split is drawn from all its samples, and no raw file changes"
    )
    yield (
        f"draw it with `pedigree run {name}` or `dvc repro register@{name}`; commit {params.FILE}, and restart a "
        "running `pedigree up`"
    )
    yield (
        "a champion may have been trained on samples of the new test split, where it then looks too good: first "
        f"run its parameters again, and make that version champion with `pedigree promote {name} VERSION --why ...`"
    )
    yield from _starting(own)


def _starting(own: Mapping[str, TaskParams]) -> Iterator[str]:
    """Yield a warning for each model that does not start from random weights, given the models' parameters."""
    for name, values in own.items():
        if source := params.sources(values).get(params.INIT):
            yield (
                f"{params.INIT} of {name} is {source}: if these weights were trained on the same data, {name} "
                f"looks too good on the new test split: set it to {params.RANDOM}, or to weights trained on that "
                "split"
            )


def _with_number(text: str, together: list[str], number: int) -> str:
    """Return params.yaml with the number in the sections of some models, and nothing else changed.

    Raises:
        PedigreeError: it is written in a way that this cannot follow.
    """
    expected = _load(text)
    for name in together:
        expected[MODELS][name] = deepcopy(expected[MODELS][name])  # anchors make sections share values
        expected[MODELS][name][PREPARE] = {**expected[MODELS][name][PREPARE], RESPLIT: number}
    numbers = {name: _number(section) for name, section in expected[MODELS].items()}
    try:
        # A model that inherits the number of one of these is changed with it, and is put right after it.
        for name in sorted(numbers, key=lambda name: name not in together):
            if _number(_load(text)[MODELS][name]) != numbers[name]:
                text = with_own(text, name, numbers[name])
        followed = _load(text) == expected
    except (YAMLError, ValueError):  # something is not where it was looked for
        followed = False
    if not followed:
        raise PedigreeError(
            f"{params.FILE}: its anchors are too intricate for this command: set {PREPARE}.{RESPLIT} to {number} "
            f"yourself for {', '.join(together)}"
        )
    return text


def _load(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def _number(section: Any) -> Any:
    return (section.get(PREPARE) or {}).get(RESPLIT)


def with_own(text: str, name: str, number: int) -> str:
    """Return params.yaml with `resplit: number` in a model's own section, which inherits the rest as before."""
    section = _found(YAML(typ="safe", pure=True).compose(text), MODELS)[1]
    model = _found(section, name)[1]
    base, (key, prepare) = _inherited(model, PREPARE)
    if base is not model:
        owner = next((f"{each.value}-" for each, value in section.value if value is base), "")
        anchor = str(prepare.anchor or yaml_text.free_anchor(text, f"{owner}{PREPARE}"))
        text = _with_key(text, model, f"{PREPARE}: {{<<: *{anchor}, {RESPLIT}: {number}}}")
        return text if prepare.anchor else yaml_text.with_anchor(text, key, anchor)
    if prepare.start_mark.index < key.start_mark.index:  # an alias has the place of its anchor
        start, stop = text.index("*", key.end_mark.index), text.index(str(prepare.anchor), key.end_mark.index)
        stop += len(str(prepare.anchor))
        return f"{text[:start]}{{<<: {text[start:stop]}, {RESPLIT}: {number}}}{text[stop:]}"
    own = next((value for each, value in prepare.value if each.value == RESPLIT), None)
    if own is None:
        return _with_key(text, prepare, f"{RESPLIT}: {number}")
    return f"{text[: own.start_mark.index]}{number}{text[own.end_mark.index :]}"


def _with_key(text: str, section: MappingNode, line: str) -> str:
    """Return YAML with `key: value` added to a section."""
    if section.flow_style:
        start = text.index("{", section.start_mark.index) + 1
        return f"{text[:start]}{line}, {text[start:]}"
    lines, end = text.splitlines(keepends=True), yaml_text.last_line(section)
    line_end = "\r\n" if "\r\n" in text else "\n"
    if not lines[end].endswith("\n"):
        lines[end] += line_end
    indent = " " * section.value[0][0].start_mark.column
    return "".join([*lines[: end + 1], f"{indent}{line}{line_end}", *lines[end + 1 :]])


def _found(section: MappingNode, name: str) -> _Entry:
    """Return the entry of a key in a section."""
    return next((key, value) for key, value in section.value if key.value == name)


def _inherited(section: MappingNode, name: str) -> tuple[MappingNode, _Entry]:
    """Return the entry of a key in a section or in what it inherits from, and that section.

    Raises:
        LookupError: there is none.
    """
    for key, value in section.value:
        if key.value == name:
            return section, (key, value)
    for key, value in section.value:
        if key.tag == params.MERGE:
            for base in [value] if isinstance(value, MappingNode) else value.value:
                with suppress(LookupError):
                    return _inherited(base, name)
    raise LookupError(name)
