"""Parameters that docstrings describe in numpydoc's form (numpydoc.readthedocs.io/en/latest/format.html)."""

import re
from typing import NamedTuple

_SECTION = re.compile(r"^Parameters\n-{4,}\n(.*?)(?=^[^\n]+\n-{4,}$|\Z)", re.MULTILINE | re.DOTALL)
"""The section of that name, up to the next heading."""
_HEAD = re.compile(r"(?P<name>\w+) ?: (?P<kind>\S.*)")
"""The first line of a parameter; several that share one description are left out."""
_AFTER = re.compile(r",? *\(?(?:default\b|optional|required)")
"""What may follow a type."""
_DEFAULT = re.compile(r"\bdefault(?:=|: ?| is | )(?P<value>[^,()]+)")


class Parameter(NamedTuple):
    """A parameter and the texts about it, each of which stands in the docstring."""

    name: str
    kind: str
    """Its type, such as `int or None`."""
    default: str
    """Empty if the docstring does not name it beside the type."""
    described: str
    """Its lines, the first one included."""


def parameters(docstring: str) -> list[Parameter]:
    """Return the parameters of a docstring without indentation; those without type or description are left out."""
    section = _SECTION.search(docstring)
    if section is None:
        return []
    found = []
    for entry in re.split(r"\n(?=\S)", section[1].strip("\n")):
        head = _HEAD.fullmatch(entry.split("\n", 1)[0].strip())
        if head is None or "\n" not in entry.strip():
            continue
        kind = _AFTER.split(head["kind"], maxsplit=1)[0].strip()
        default = _DEFAULT.search(head["kind"])
        if kind:
            found.append(Parameter(head["name"], kind, default["value"].strip() if default else "", entry.strip()))
    return found
