"""Labelled texts in the raw folder: tables with columns for text and label, or folders of text files per class.

Tables are CSV, TSV or JSON Lines, named by split; see `components.text.tables` and `components.text.class_folders`.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from components.contracts import RejectedFile
from components.datasets import raw_files
from components.datasets.ingest import Unusable
from components.display import brief, printable_name
from components.errors import PedigreeError
from components.runtime.progress import Progress
from components.tasks.text_classification.params import TextPrepareParams
from components.text import class_folders, repeats, tables
from components.text.lines import expect_usable
from components.text.tables import Table

log = logging.getLogger("pedigree.prepare")
T = TypeVar("T")

NO_LABEL = "it has no label"
UNKNOWN = "-1"
"""What stands in place of labels that are withheld, as in tools for GLUE."""
LONGEST = 200
"""Most characters of a label."""
Tables = Mapping[str, Path]
"""The table of each split."""


class Text(NamedTuple):
    """A text, or two, and what they are."""

    at: str
    """Where they are, such as train.csv:12 or train/spam/3.txt."""
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    """One, unless a text can have several or none."""

    @property
    def key(self) -> str:
        """What is equal for texts that differ only in case, punctuation marks and spaces."""
        return "\n".join(map(repeats.key, self.texts))


@dataclass
class Texts:
    """What was read."""

    splits: dict[str, list[Text]] = field(default_factory=dict)
    rejected: list[RejectedFile] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    """Files about the data, and those of texts without labels."""
    total: int = 0
    """Number of texts in the files."""

    def reject(self, at: str, reason: object) -> None:
        """Record a text that cannot be used."""
        self.rejected.append(RejectedFile(file=at, reason=str(reason)))


def survey(raw: Path, options: TextPrepareParams) -> Tables | class_folders.Survey:
    """Return the tables by split, or the text files by split and class; no text is read.

    Raises:
        PedigreeError: there is nothing to train on, or the folder is inconsistent.
    """
    found = tables.find(raw)
    if not found:
        return class_folders.survey(raw)
    if "train" not in found:
        raise PedigreeError(
            f"{raw} has tables only for {raw_files.listed([*found])}: add one for training, such as train.csv"
        )
    return found


def read(raw: Path, options: TextPrepareParams) -> Texts:
    """Read all texts, in the order of the files; those that cannot be used are rejected.

    A test table without labels, as GLUE's, is left out, and said so.

    Raises:
        PedigreeError: as `survey` does; a file is no UTF-8 text, or a table lacks a column.
    """
    files = survey(raw, options)
    found = Texts(ignored=raw_files.about(raw))
    if isinstance(files, class_folders.Survey):
        _read_folders(raw, files, found)
        return found
    for split, file in files.items():
        _read_table(split, tables.opened(file, options.header), options, found)
    used = {file.name for file in files.values()} | {*found.ignored, raw_files.COMPOSED}
    for name in sorted(name for name, _ in raw_files.visible(raw) if name not in used):
        found.reject(printable_name(name), "not one of the tables of texts")
    return found


def _read_folders(raw: Path, files: class_folders.Survey, found: Texts) -> None:
    found.ignored = [*files.ignored]
    for file, reason in files.strays.items():
        found.reject(printable_name(file), reason)
    for split, classes in files.files.items():
        found.splits[split] = []
        names = ((label, name) for label, own in classes.items() for name in own)
        for label, name in _reporting(names, raw):
            found.total += 1
            try:
                text = expect_usable(class_folders.read(raw, name))
                found.splits[split].append(Text(printable_name(name), (text,), (label,)))
            except Unusable as reason:
                found.reject(printable_name(name), reason)


def _read_table(split: str, table: Table, options: TextPrepareParams, found: Texts) -> None:
    """Add a table's texts to what was found."""
    for name, column in (("text", options.text), ("pair", options.pair)):
        if column:
            _expect_column(table, name, column, options)
    labelled = options.label in table.columns
    if not labelled and split != "test":
        _expect_column(table, "label", options.label, options)
    own, rejected = _texts(table, options) if labelled else ([], [])
    trained = {label for text in found.splits.get("train", ()) for label in text.labels}
    withheld = {UNKNOWN} - trained if split != "train" else set[str]()
    unlabelled = {text.at for text in own if not options.separator and withheld.issuperset(text.labels)}
    if split == "test" and (not labelled or len(own) == len(unlabelled) > 0):
        found.ignored = sorted([*found.ignored, table.file.name])
        log.warning(f"{table.file} has no labels and is not used: test on a file with labels, such as dev as test")
        return
    found.total += len(own) + len(rejected)
    found.rejected += rejected
    for at in sorted(unlabelled):
        found.reject(at, NO_LABEL)
    found.splits[split] = [text for text in own if text.at not in unlabelled]


def _texts(table: Table, options: TextPrepareParams) -> tuple[list[Text], list[RejectedFile]]:
    """Return the texts of a table that can be used, maybe without a label, and the others."""
    own: list[Text] = []
    joined: list[tuple[Text, list[tuple[str, ...]]]] = []
    rejected: list[RejectedFile] = []
    for row in _reporting(table.rows(), table.file):
        at = printable_name(table.at(row))
        try:
            text = _text(row, at, options)
            swallowed = [_labels(each[options.label], options) for each in getattr(row, "swallowed", ()) if each]
        except Unusable as reason:
            rejected.append(RejectedFile(file=at, reason=str(reason)))
            continue
        if swallowed:
            joined.append((text, swallowed))
        else:
            own.append(text)
    known = {label for text in own for label in text.labels}
    for text, swallowed in joined:
        # The lines of a text that has line ends hardly end with labels.
        if all(labels and known.issuperset(labels) for labels in swallowed):
            rejected.append(RejectedFile(file=text.at, reason=tables.JOINED))
        else:
            own.append(text)
    return own, rejected


def _text(row: tables.Row | tables.BadRow, at: str, options: TextPrepareParams) -> Text:
    """Return a row's text, maybe without a label; raise Unusable if it has none that can be used."""
    if isinstance(row, tables.BadRow):
        raise Unusable(row.reason)
    columns = (options.text, *([options.pair] if options.pair else []))
    texts = tuple(expect_usable(tables.text_in(row, column)) for column in columns)
    return Text(at, texts, _labels(row.cells.get(options.label, ""), options))


def _expect_column(table: Table, name: str, column: str, options: TextPrepareParams) -> None:
    if column not in table.columns:
        there = raw_files.listed([brief(each) for each in table.columns])
        header = "" if options.header else ", as prepare.header is false"
        raise PedigreeError(
            f"{table.file} has the columns {there}{header}, and none is called {brief(column)}: set prepare.{name} "
            "to one of them"
        )


def _labels(cell: object, options: TextPrepareParams) -> tuple[str, ...]:
    """Return the distinct labels in a cell, sorted; none if it is empty."""
    if isinstance(cell, list) and options.separator:
        parts = [tables.text_in(tables.Row(0, {options.label: each}), options.label) for each in cell]
    elif isinstance(cell, list):
        raise Unusable(
            f"{brief(options.label)} holds a list, and prepare.separator is empty: one label is expected"
        )
    else:
        text = tables.text_in(tables.Row(0, {options.label: cell}), options.label)
        parts = text.split(options.separator) if options.separator else [text]
    labels = sorted({label for part in parts if (label := raw_files.same(part.strip()))})
    if any(len(label) > LONGEST for label in labels):
        raise Unusable(f"a label of over {LONGEST} characters")
    return tuple(labels)


def _reporting(items: Iterable[T], where: Path) -> Iterator[T]:
    """Yield the items, and log how many there were so far every few seconds."""
    progress = Progress(log)
    for number, item in enumerate(items):
        progress.say(f"{where}: {number:,} texts read")
        yield item
