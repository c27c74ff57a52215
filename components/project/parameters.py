"""A model's parameters, with what each may be and means: all of it from the fields that check params.yaml."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from components import params
from components.display import brief
from components.errors import PedigreeError
from components.models import Model

KINDS = {"integer": "whole number", "number": "number", "string": "text", "object": "numbers by name"}
LOWER = {"minimum": "from", "exclusiveMinimum": "above"}
UPPER = {"maximum": "up to", "exclusiveMaximum": "below"}
"""Keywords of JSON Schema, in words."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a model."""

    name: str
    """Its sections and key, such as train.optimizer.lr, as `--set` takes it."""
    value: str
    """As YAML writes it."""
    allowed: str
    """Its choices or its bounds, such as `sgd, adamw, muon` or `above 0, up to 100`."""
    choices: tuple[str, ...]
    """If it has one of a few values, these; true and false are not listed for a switch."""
    description: str


def parameters(model: Model, prefix: str = "") -> list[Parameter]:
    """Return the parameters of a model, in the order of its task's sections.

    Args:
        model: The model.
        prefix: Return only the parameter or the section with this name, such as `train.model`, and what is in it.

    Raises:
        PedigreeError: there is no such parameter or section.
    """
    found = list(_parameters(model.params.model_json_schema(), model.params.model_dump(by_alias=True, mode="json")))
    chosen = [each for each in found if not prefix or f"{each.name}.".startswith(f"{prefix}.")]
    if not chosen:
        names = {".".join(each.name.split(".")[:n]) for each in found for n in range(1, each.name.count(".") + 2)}
        raise PedigreeError(
            f"{model.name} has no parameter or section {brief(prefix)}{params.nearest(prefix, names)}: "
            f"`pedigree params {model.name}` prints all"
        )
    return chosen


def _parameters(schema: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[Parameter]:
    """Yield the parameters of a JSON schema, in which each section is a reference to its definition."""
    definitions = schema["$defs"]

    def walk(section: Mapping[str, Any], values: Mapping[str, Any], above: str) -> Iterator[Parameter]:
        for key, field in section["properties"].items():
            if "$ref" in field:
                yield from walk(definitions[field["$ref"].rpartition("/")[2]], values[key], f"{above}{key}.")
                continue
            choices = _choices(field)
            value, description = as_yaml(values[key]), field.get("description", "")
            yield Parameter(f"{above}{key}", value, _allowed(field), choices, description)

    yield from walk(schema, values, "")


def as_yaml(value: Any) -> str:
    """Return a value on one line, as params.yaml would have it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {as_yaml(each)}' for key, each in value.items())}}}"
    return str(value)


def _alternatives(field: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    parts: list[Mapping[str, Any]] = field.get("anyOf", [field])
    return parts


def _choices(field: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the values of a field that has only a few; none for a switch, which is true or false."""
    parts = [_values(part) for part in _alternatives(field)]
    return tuple(chain.from_iterable(parts)) if all(parts) and field.get("type") != "boolean" else ()


def _values(part: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the values of a part of a field that has only a few."""
    if part.get("type") == "boolean":
        return "false", "true"
    if part.get("type") == "null":
        return ("null",)
    values = [part["const"]] if "const" in part else part.get("enum", ())
    return tuple(as_yaml(value) for value in values)


def _allowed(field: Mapping[str, Any]) -> str:
    """Return a field's choices or bounds, such as `sgd, adamw, muon` or `whole number from 28 up to 1,024`."""
    return ", ".join(", ".join(_values(part)) or _bounds(part) for part in _alternatives(field))


def _bounds(part: Mapping[str, Any]) -> str:
    inner = part.get("additionalProperties", part)  # of a mapping, whose values have the bounds
    lower = [f"{word} {inner[key]:,}" for key, word in LOWER.items() if key in inner]
    upper = [f"{word} {inner[key]:,}" for key, word in UPPER.items() if key in inner]
    both = [*lower, *(["and"] if lower and "exclusiveMaximum" in inner else []), *upper]
    return " ".join([KINDS.get(part["type"], part["type"]), *both])
