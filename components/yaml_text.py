"""Rewriting YAML files."""

import re

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, Node, ScalarNode


def round_trip() -> YAML:
    """Return a reader and writer that keeps comments, key order and long lines; lists are indented."""
    yaml = YAML()
    yaml.width = 4096  # keep long lines in one piece
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def last_line(node: Node) -> int:
    """Return the zero-based number of the last line of a node's own text."""
    if isinstance(node, CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        key, value = last if isinstance(last, tuple) else (last, last)
        return max(last_line(key), last_line(value) if value.start_mark.line >= key.start_mark.line else 0)
    first, last = int(node.start_mark.line), int(node.end_mark.line)
    return last - (node.end_mark.column == 0 and last > first)  # a multi-line string's end mark is on the next line


def free_anchor(text: str, name: str) -> str:
    """Return the name, extended until no anchor of the text has it."""
    while re.search(rf"&{re.escape(name)}(?![\w-])", text):
        name += "-model"
    return name


def with_anchor(text: str, key: ScalarNode, anchor: str) -> str:
    """Return YAML with an anchor at the value of a key."""
    lines = text.splitlines(keepends=True)
    line = lines[key.start_mark.line]
    at = key.end_mark.column + line[key.end_mark.column :].index(":") + 1
    lines[key.start_mark.line] = f"{line[:at]} &{anchor}{line[at:]}"
    return "".join(lines)
