"""`pedigree trace`, `reproduce`, `diff`, `promote`, `rollback`: what people ask of versions, and do with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from components.adapters import mlflow_store
from components.stages import registry
from components.stages.registry import HERE, REMOTE, Ancestor
from components.trust.lineage import Change

if TYPE_CHECKING:  # they train and predict, and importing what that takes seconds
    from components.stages import compare
    from components.stages import reproduce as again

# Wide enough for whole hashes, also where the output is no terminal, or a narrow one.
_console = Console(width=240, highlight=False)


def trace(root: Path, version: str | None, data: str | None) -> None:
    """Print the ancestry of a version, or all versions that a data version made."""
    mlflow_store.connect(root)
    if version is not None:
        _console.print(_tree(registry.trace(version, root)))
    elif data is not None:
        table = Table(box=SIMPLE, pad_edge=False)
        for column in ("version", "started", "data", "of the task", "params", "commit"):
            table.add_column(column)
        for found, made in registry.made_by(data):
            hashes = (made.data.pinned, made.data.raw, made.params_sha256, made.code.commit)
            table.add_row(f"{found.name} {found.version}", made.started, *(each[:12] for each in hashes))
        _console.print(table)


def _tree(ancestor: Ancestor, above: Tree | None = None) -> Tree:
    label = Text.assemble((ancestor.what, "bold"), "  ", ancestor.which)
    if ancestor.where:
        label.append(f"  {ancestor.where}", "green" if ancestor.where in (HERE, REMOTE) else "red")
    tree = above.add(label) if above else Tree(label)
    for each in ancestor.made_from:
        _tree(each, tree)
    return tree


def reproduce(root: Path, version: str, here: bool) -> bool:
    """Train a version again, print whether it came out the same, and return that."""
    from components.stages import reproduce as again

    mlflow_store.connect(root)
    found = again.reproduce(version, root, here)
    name = f"{found.version.name} version {found.version.version}"
    word = ("identical", "bold green") if found.identical else ("differs", "bold red")
    _console.print(
        Text.assemble(word, f": {name} trained again with {found.code}; the weights are ", _bitwise(found))
    )
    _table(["in what", "then", "now"], found.changes)
    _console.print("{}: {}, now {}".format(*found.score))
    if not found.identical and not found.changes:
        _console.print(
            "Nothing that its lineage knows of differs: a file that params name is another one, or this training "
            "is not deterministic here."
        )
    if found.elsewhere:
        _console.print(
            f"The code of this checkout is another one ({', '.join(found.elsewhere)}): "
            f"`pedigree reproduce {version} --here` trains with it."
        )
    _console.print(f"The second training is in {found.folder.relative_to(root)}")
    return found.identical


def _bitwise(found: again.Reproduction) -> str:
    return "bitwise the same" if found.identical else "not the same"


def _table(head: Sequence[str], changes: Sequence[Change]) -> None:
    if changes:
        table = Table(*head, box=SIMPLE, pad_edge=False)
        for change in changes:
            table.add_row(*map(Text, change))
        _console.print(table)


DISPUTES = 20
"""Samples that `pedigree diff` names."""


def diff(root: Path, old: str, new: str) -> None:
    """Print what is not the same in two versions."""
    from components.stages import compare

    mlflow_store.connect(root)
    found = compare.compare(old, new, root)
    names = [f"{version.name} {version.version}" for version in (found.old, found.new)]
    sections = {"data": found.data, "code and machine": found.code, "params": found.params, "metric": found.metrics}
    for what, changes in sections.items():
        _table([what, *names], changes)
    if found.files:
        _console.print(f"files changed between the commits: {', '.join(found.files)}\n")
    if same := [what for what, changes in sections.items() if not changes]:
        _console.print(f"the same in both: {', '.join(same)}\n")
    if found.difference is None:
        _console.print(f"No sample can be compared: {found.why_not}.")
        return
    d = found.difference
    _console.print(
        f"Mean outcome behind {found.score}, on the same test samples: {d.mean:+.4g} "
        f"[{d.low:+.4g}, {d.high:+.4g}] (95 % of a paired bootstrap)\n"
    )
    _disputes(names, found.disputes)


def _disputes(names: Sequence[str], disputes: Sequence[compare.Dispute]) -> None:
    table = Table("sample", "class", *names, box=SIMPLE, pad_edge=False)
    for each in disputes[:DISPUTES]:
        table.add_row(Text(each.sample), Text(each.label), f"{each.old:.4g}", f"{each.new:.4g}")
    more = f", of which the {DISPUTES} widest apart are" if len(disputes) > DISPUTES else ""
    _console.print(f"They disagree on {len(disputes)} samples{more}{':' if disputes else '.'}")
    if disputes:
        _console.print(table)


def promote(root: Path, name: str, version: int, why: str) -> None:
    """Make a version the champion."""
    mlflow_store.connect(root)
    champion = registry.promote(f"{name}/{version}", why, root)
    typer.echo(f"{name} version {champion.version} is the champion now")


def rollback(root: Path, name: str, why: str) -> None:
    """Make the champion's predecessor the champion again."""
    mlflow_store.connect(root)
    champion = registry.rollback(name, why, root)
    typer.echo(f"{name} version {champion.version} is the champion again")
