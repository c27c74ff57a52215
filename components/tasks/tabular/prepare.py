"""Tables -> numbers, indices of categories and targets, divided into splits."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from components.contracts import Manifest, RejectedFile
from components.datasets import raw_files
from components.display import brief, printable_name
from components.errors import PedigreeError
from components.tables import columns, divide, facts, files, leakage, write
from components.tables.columns import Column, LeftOut
from components.tables.facts import LABEL, Reading, TableFacts
from components.tables.params import TablePrepareParams
from components.tables.profile import Profile
from components.tables.write import Encoded, Tables, Target, Written
from components.tasks.tabular.params import TabularParams

log = logging.getLogger("pedigree.prepare")

TARGETS = ("target", "label", "class", "y")
"""Names that are taken for the target's."""
MOST_CLASSES = 100
"""Most classes of a target."""
QUANTITY = 20
"""Different numbers of a target, beyond which it is taken for a quantity."""


def survey(raw: Path, options: TablePrepareParams) -> Tables:
    """Return the tables of each split, which have the same columns; no row is converted.

    Raises:
        PedigreeError: there is nothing to train on, or tables, columns and parameters do not fit together.
    """
    found = files.find(raw)
    tables = {
        split: [files.opened(file, options.delimiter, options.encoding) for file in own]
        for split, own in found.items()
    }
    names = files.same_columns(tables)
    where = _first(tables)
    target = _target_name(names, options, where)
    for parameter in ("drop", "allow", "categories", "slices"):
        if lacking := write.unknown_columns(getattr(options, parameter), names):
            raise PedigreeError(f"{where} has no column {lacking}: correct prepare.{parameter}")
    for parameter in ("group", "time"):
        name = getattr(options, parameter)
        if lacking := write.unknown_columns([name], names):
            raise PedigreeError(f"{where} has no column {lacking}: correct prepare.{parameter}")
        if name == target:
            raise PedigreeError(f"{where}: {brief(name)} is the target: set prepare.{parameter} to another column")
    return tables


def _first(tables: Tables) -> str:
    return str(next(table.file for own in tables.values() for table in own))


def _target_name(names: Sequence[str], options: TablePrepareParams, where: str) -> str:
    if options.target != "auto":
        if lacking := write.unknown_columns([options.target], names):
            raise PedigreeError(f"{where} has no column {lacking}: correct prepare.target")
        return options.target
    candidates = [name for name in names if name.casefold() in TARGETS]
    if len(candidates) != 1:
        there = (
            "several columns that may be the target" if candidates else "no column called target, label or class"
        )
        raise PedigreeError(
            f"{where} has {there}: set prepare.target to one of "
            f"{raw_files.listed([brief(name) for name in candidates or names])}"
        )
    return candidates[0]


def prepare(raw: Path, out: Path, params: TabularParams) -> Manifest:
    """Write the arrays of each split into the empty folder `out`; see `components.tables.write`.

    Raises:
        PedigreeError: a table cannot be read, a column can be read in several ways or reveals the target, or there
            are too few rows or classes.
    """
    options = params.prepare
    tables = survey(raw, options)
    where, names = _first(tables), files.same_columns(tables)
    target_name = _target_name(names, options, where)
    seen = write.profiles(tables, [name for name in names if name not in options.drop], options)
    dividing = [name for name in (options.group, options.time) if name]
    features = {name: each for name, each in seen.items() if name not in (target_name, *dividing)}
    target = _target(seen[target_name], options, where)
    own, left, remarks = columns.decide(features, options, where)
    left = [
        *left,
        *(LeftOut(name=name, reason="it divides the rows") for name in dividing),
        *(LeftOut(name=name, reason="prepare.drop names it") for name in options.drop),
    ]
    if unused := [name for name in options.slices if name not in {column.name for column in own}]:
        raise PedigreeError(
            f"{where}: the column {brief(unused[0])} of prepare.slices is not used: name another one"
        )
    if not own:
        raise PedigreeError(f"{where} has no column to predict from but {columns.listed(left)}: add some")
    temporary = out / "temporary"
    temporary.mkdir()
    encoded = write.encode(tables, own, target, seen, options, temporary)
    divided = divide.divide(encoded.rows, options, where)
    written = write.write(out, encoded, divided, own, regression=not target.classes)
    shutil.rmtree(temporary)
    for remark in [*remarks, *write.remark_codes([column for column in written.columns if column.is_number])]:
        log.warning(f"{where}: {remark}")
    if left:
        log.info(f"{where}: columns left out: {columns.listed(left)}")
    _expect_honest(out, written, target, options, where)
    known = _facts(out, written, target, left, options, encoded)
    _expect_classes(known, where)
    return Manifest(
        task="tabular",
        splits=dict(written.parts),
        rejected=[*_rejected(tables, divided, encoded), *_strays(raw, tables)],
        ignored=raw_files.about(raw),
        facts=known.model_dump(),
        drawn=divided.drawn,
        note=_note(raw, options),
    )


def _note(raw: Path, options: TablePrepareParams) -> str:
    fold = f"tested on part {options.fold} of all rows (prepare.fold)" if options.fold else ""
    return "; ".join(filter(None, [raw_files.composed(raw, "tables"), fold]))


def _target(profile: Profile, options: TablePrepareParams, where: str) -> Target:
    """Return what is predicted.

    Raises:
        PedigreeError: it is empty, has one class or too many, or numbers the rows.
    """
    name = profile.name
    if not profile.present:
        raise PedigreeError(f"{where}: the target {brief(name)} is empty: set prepare.target to another column")
    numeric = bool(profile.writings) and not profile.words
    if options.problem == "regression" or (options.problem == "auto" and numeric and profile.distinct > QUANTITY):
        found, left, _ = columns.decide({name: profile}, options, where)
        if left:
            raise PedigreeError(
                f"{where}: the target {brief(name)} tells nothing, as {left[0].reason}: name another"
            )
        if found[0].kind != "number":
            raise PedigreeError(
                f"{where}: {brief(profile.odd)} in the target {brief(name)} is no number: set prepare.problem to "
                "classification, or prepare.target to another column"
            )
        return Target(name, found[0], ())
    if profile.counts is None or len(profile.counts) > MOST_CLASSES:
        raise PedigreeError(
            f"{where}: the target {brief(name)} has {profile.distinct:,.0f} different values, more than the "
            f"{MOST_CLASSES} classes that are allowed: set prepare.target to another column"
        )
    classes = sorted({write.unquoted(text) for text in profile.counts})
    if len(classes) < 2:
        raise PedigreeError(
            f"{where}: all rows have the target {brief(classes[0])}: add others, or set prepare.target"
        )
    if options.positive and (len(classes) != 2 or options.positive not in classes):
        raise PedigreeError(
            f"{where}: prepare.positive is {brief(options.positive)}, and the target {brief(name)} has the classes "
            f"{raw_files.listed([brief(each) for each in classes])}: name one of two"
        )
    return Target(name, Column(name=name, kind="category"), classes)


def _expect_honest(out: Path, written: Written, target: Target, options: TablePrepareParams, where: str) -> None:
    """Check that no column alone tells the target.

    Raises:
        PedigreeError: one does, and `prepare.allow` does not name it.
    """
    train, val = (facts.load_split(out, split) for split in ("train", "val"))
    revealing = leakage.found(train, val, written.columns, len(target.classes))
    if named := [name for name in revealing if name not in options.allow]:
        raise PedigreeError(
            f"{where}: the column {brief(named[0])} alone tells the target {brief(target.name)} (AUC or rank "
            f"correlation {revealing[named[0]]:.4f} in training and validation): add it to prepare.drop if it was "
            "made from the target or after it, or else to prepare.allow"
        )


def _facts(
    out: Path,
    written: Written,
    target: Target,
    left: Sequence[LeftOut],
    options: TablePrepareParams,
    encoded: Encoded,
) -> TableFacts:
    labels = {split: facts.load_split(out, split)[LABEL].numpy() for split in written.parts}
    train = labels["train"].astype(np.float64)
    binary = len(target.classes) == 2
    costs = options.costs
    counts = {
        split: {name: int((label == place).sum()) for place, name in enumerate(target.classes)}
        for split, label in labels.items()
    }
    return TableFacts(
        target=target.name,
        classes=list(target.classes),
        positive=(options.positive or target.classes[-1]) if binary else "",
        threshold=costs.false_alarm / (costs.false_alarm + costs.missed),
        costs=costs.model_dump(),
        mean=0.0 if target.classes else float(train.mean()),
        deviation=1.0 if target.classes else float(train.std()) or 1.0,
        columns=list(written.columns),
        left_out=list(left),
        missing=options.missing,
        reading=Reading(delimiter=options.delimiter, encoding=options.encoding),
        rows=dict(encoded.sizes),
        counts=counts,
        slices=options.slices,
        alerts=options.alerts,
        group=options.group,
    )


def _expect_classes(known: TableFacts, where: str) -> None:
    counts: Mapping[str, int] = known.counts["train"]
    if lacking := [name for name, count in counts.items() if not count]:
        raise PedigreeError(
            f"{where}: no training row has the target {brief(lacking[0])}: add rows of this class, or remove them"
        )


def _rejected(tables: Tables, divided: divide.Divided, encoded: Encoded) -> list[RejectedFile]:
    return [
        RejectedFile(file=printable_name(file), reason=f"{count:,} rows {reason}, such as {where}")
        for file, reasons in write.left_out(tables, divided, encoded).items()
        for reason, count, where in reasons
    ]


def _strays(raw: Path, tables: Tables) -> list[RejectedFile]:
    used = {table.file.name for own in tables.values() for table in own}
    used |= {*raw_files.about(raw), raw_files.COMPOSED}
    names = sorted(name for name, _ in raw_files.visible(raw) if name not in used)
    return [RejectedFile(file=printable_name(name), reason="not a table") for name in names]
