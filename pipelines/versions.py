"""`pedigree versions`, `trace`, `verify`, `reproduce`, `diff`, `gate`, `promote` and `rollback`:
commands on registered versions."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from components import models
from components.adapters import mlflow_store, mlflow_versions
from components.display import printable
from components.registry import promote as promotions
from components.registry import trace as ancestry
from components.registry import versions as registered
from components.registry.trace import HERE, REMOTE, Ancestor
from components.trust import gate, old_versions
from components.trust.lineage import Change
from pipelines import output, terminal

if TYPE_CHECKING:  # importing what trains and predicts takes seconds
    from components.registry import compare

# Wide enough for full hashes, even in a narrow terminal or a pipe.
_console = terminal.console(width=240)


def list_versions(root: Path, name: str) -> None:
    """Print a model's versions, the newest first."""
    mlflow_store.connect(root)
    table = Table(box=SIMPLE, pad_edge=False)
    for column in ("version", "score", "aliases", "age", "data", "why"):
        table.add_column(column)
    for row in registered.rows(name):
        age = _age(time.time() - row.created)
        table.add_row(str(row.version), row.score, ", ".join(row.aliases), age, row.data, row.why)
    # Wide in a pipe, so that each row stays on one line.
    terminal.console(**({} if sys.stdout.isatty() else {"width": 240})).print(table)


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def trace(root: Path, version: str | None, data: str | None) -> None:
    """Print the lineage of a version, or all versions trained on given data."""
    mlflow_store.connect(root)
    if version is not None:
        _console.print(_tree(ancestry.trace(version, root)))
    elif data is not None:
        table = Table(box=SIMPLE, pad_edge=False)
        for column in ("version", "started", "data set", "data", "params", "commit"):
            table.add_column(column)
        for found, of in ancestry.trained_on(data):
            hashes = (of.data.raw, of.params_sha256, of.code.commit)
            name = old_versions.data_folder(of)
            table.add_row(f"{found.name} {found.version}", of.started, name, *(each[:12] for each in hashes))
        _console.print(table)


def verify(root: Path, address: str | None) -> bool:
    """Print whether the lineage of a version, or of all, is still true; return whether nothing contradicts it."""
    from components.registry import verify as check

    mlflow_store.connect(root)
    true = True
    for version in [mlflow_versions.find(address)] if address else mlflow_versions.versions():
        name = f"{version.name} version {version.version}"
        checks = check.verify(version, root)
        if not checks:
            _console.print(f"{name}: registered without a lineage")
            continue
        states = Counter(each.state for each in checks)
        _console.print(f"{name}: {', '.join(f'{count} {state}' for state, count in states.items())}")
        table = Table("entry", "state", "found", box=SIMPLE, pad_edge=False)
        for each in checks:
            table.add_row(each.entry, Text(each.state, _COLOURS[each.state]), each.found)
        _console.print(table)
        true = true and not states["contradicted"]
    return true


_COLOURS = {"holds": "green", "gone": "yellow", "contradicted": "bold red", "not recorded": "dim"}


def _tree(ancestor: Ancestor, above: Tree | None = None) -> Tree:
    label = Text.assemble((ancestor.what, "bold"), "  ", printable(ancestor.which))
    if ancestor.where:
        label.append(f"  {ancestor.where}", "green" if ancestor.where in (HERE, REMOTE) else "red")
    tree = above.add(label) if above else Tree(label)
    for each in ancestor.parents:
        _tree(each, tree)
    return tree


def reproduce(root: Path, version: str, here: bool) -> bool:
    """Train a version again; print how close it comes, and return whether that is as close as can be expected."""
    from components.registry import reproduce as again

    mlflow_store.connect(root)
    result = again.reproduce(version, root, here)
    name = f"{result.version.name} version {result.version.version}"
    word, weights = _VERDICTS[result.verdict]
    colour = "bold red" if result.verdict == "different" else "bold green"
    again_with = printable(f": {name} trained again with {result.code}; the weights {weights}")
    _console.print(Text.assemble((word, colour), again_with))
    _table(["changed", "then", "now"], result.changes)
    _console.print("{}: {}, now {}".format(*result.score))
    if result.verdict == "different" and not result.changes:
        _console.print(
            "Nothing recorded in the lineage differs: a file named in params may have changed, or training is not "
            "deterministic here."
        )
    if result.elsewhere:
        _console.print(
            f"The code of this checkout differs ({', '.join(result.elsewhere)}): "
            f"`pedigree reproduce {version} --here` trains with it."
        )
    _console.print(f"The second training is in {result.folder.relative_to(root)}")
    return result.verdict != "different"


_VERDICTS = {
    "identical": ("identical", "are bitwise identical"),
    "close": ("close", "differ, as they may on a GPU or other hardware, and the score is the same to 1 in 1,000"),
    "different": ("differs", "are different"),
}
"""For each verdict, the word that begins the line, and what is said of the weights."""


def _table(head: Sequence[str], changes: Sequence[Change]) -> None:
    if changes:
        table = Table(*head, box=SIMPLE, pad_edge=False)
        for change in changes:
            table.add_row(*change)
        _console.print(table)


DISPUTES = 20
"""Most samples that `pedigree diff` lists."""


def diff(root: Path, old: str, new: str) -> None:
    """Print a comparison of two versions."""
    from components.registry import compare

    mlflow_store.connect(root)
    result = compare.compare(old, new, root)
    names = [f"{version.name} {version.version}" for version in (result.old, result.new)]
    sections = {
        "data": result.data,
        "code and machine": result.code,
        "params": result.params,
        "metric": result.metrics,
    }
    for what, changes in sections.items():
        _table([what, *names], changes)
    if result.files:
        _console.print(f"files changed between the commits: {', '.join(result.files)}\n")
    if same := [what for what, changes in sections.items() if not changes]:
        _console.print(f"identical: {', '.join(same)}\n")
    if result.difference is None:
        _console.print(f"The test samples cannot be compared: {result.why_not}.")
        return
    low, high = result.difference.interval
    _console.print(
        f"Difference in {result.score} on the same test samples: {result.difference.value:+.4g} "
        f"[{low:+.4g}, {high:+.4g}] (95 % interval)\n"
    )
    _disputes([f"{result.score} of {name}" for name in names], result.disputes)


def _disputes(names: Sequence[str], disputes: Sequence[compare.Dispute]) -> None:
    table = Table("sample", "class", *names, box=SIMPLE, pad_edge=False)
    for each in disputes[:DISPUTES]:
        table.add_row(each.sample, each.label, f"{each.old:.4g}", f"{each.new:.4g}")
    most = f", of which these {DISPUTES} differ most" if len(disputes) > DISPUTES else ""
    _console.print(f"They disagree on {len(disputes)} samples{most}{':' if disputes else '.'}")
    if disputes:
        _console.print(table)


def power(root: Path, name: str) -> None:
    """Print which difference from a model's champion its test split can detect."""
    from components.registry import power as detectable

    mlflow_store.connect(root)
    model = models.load(root, name)
    found = detectable.power(name, model.params.register_.gate)
    champion, of = f"{name} version {found.champion.version}", f"{found.samples} test samples"
    if found.sources:
        of += f" of {found.sources} {'source' if found.sources == 1 else 'sources'}"
    _console.print(f"The champion is {champion}, with {of}.")
    if detectable.is_of_another_split(found, model.build / "prepared"):
        _console.print(
            f"{models.BUILD}/{name}/prepared has another test split. What follows is of the champion's: to see "
            "what the new one can detect, make a version that was tested on it champion with `pedigree promote`."
        )
    count = f"{found.earlier} {'challenger was' if found.earlier == 1 else 'challengers were'}"
    _console.print(f"{count} compared on this test split; the next one needs p <= {found.most:.2g}.")
    if found.difference is None:
        _console.print(f"No gain promotes it with probability {gate.POWER:.0%}: {found.why_not}.")
    else:
        better = "higher" if found.score.better == "more" else "lower"
        _console.print(
            f"It is promoted with probability {gate.POWER:.0%} if its {found.score.name} is truly "
            f"{found.difference:.3g} {better}."
        )
    if found.judged_by:
        _console.print(
            f"What chance makes is estimated from {found.judged_by}, tested on the same split; where both have the "
            "same outcomes, errors are assumed to be independent."
        )
    else:
        _console.print("No other version was tested on this split: their errors are assumed to be independent.")
    if found.groups:
        _console.print(f"It is rejected with probability {gate.POWER:.0%} if a group truly loses:")
        table = Table("kind", "group", "samples", "loss", box=SIMPLE, pad_edge=False)
        for each in found.groups:
            loss = each.why_not if each.loss is None else f"{each.loss:.3g}"
            table.add_row(each.kind, each.name, f"{each.samples}", loss)
        _console.print(table)


def promote(root: Path, version: str, why: str) -> None:
    """Make a version the champion."""
    mlflow_store.connect(root)
    champion = promotions.promote(version, why, root)
    output.echo(f"{champion.name} version {champion.version} is now the champion")


def rollback(root: Path, name: str, why: str) -> None:
    """Make the champion's predecessor the champion again."""
    mlflow_store.connect(root)
    champion = promotions.rollback(name, why, root)
    output.echo(f"{name} version {champion.version} is the champion again")
