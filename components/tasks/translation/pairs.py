"""Pairs of texts in the raw folder: parallel files, which have a text on each line, or tables.

Parallel files are named by split and language, such as train.en and train.fr, and gzip may have compressed them
(.gz). Tables are CSV, TSV or JSON Lines, named by split, with a column for each language.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from components.contracts import RejectedFile
from components.datasets import raw_files
from components.datasets.ingest import Unusable
from components.display import brief, printable_name
from components.errors import PedigreeError
from components.tasks.translation import drift
from components.tasks.translation.params import TranslationPrepareParams
from components.text import tables
from components.text.lines import GZ, expect_usable, lines


class Pair(NamedTuple):
    """A text and its translation."""

    at: str
    """Where they are, such as train.en:12."""
    source: str
    target: str


class Parallel(NamedTuple):
    """Two files whose lines belong together."""

    source: Path
    target: Path


@dataclass
class Pairs:
    """What was read."""

    splits: dict[str, list[Pair]] = field(default_factory=dict)
    rejected: list[RejectedFile] = field(default_factory=list)
    identical: int = 0
    """Number of pairs whose sides are the same text, such as a name: they are left out, which is no defect."""
    total: int = 0
    """Number of pairs in the files."""


def survey(raw: Path, options: TranslationPrepareParams) -> dict[str, Parallel] | dict[str, Path]:
    """Return the files of each split without reading their texts; only those of train if they are to be divided.

    Raises:
        PedigreeError: there are no pairs, a file lacks the other language, or two are the same split.
    """
    parallel = _parallel(raw, options)
    found: dict[str, Parallel] | dict[str, Path] = parallel or tables.find(raw)
    if "train" not in found:
        there = f", only for {raw_files.listed([*found])}" if found else ""
        raise PedigreeError(
            f"{raw} has no pairs of texts for training{there}: put parallel files there, such as train."
            f"{options.source} and train.{options.target}, or a table with these two columns, such as train.tsv"
        )
    return found


def strays(raw: Path, found: Mapping[str, Parallel] | Mapping[str, Path]) -> list[str]:
    """Return the printable names of what is in the raw folder and is neither read nor about the data."""
    files = (each if isinstance(each, Parallel) else (each,) for each in found.values())
    used = {file.name for each in files for file in each} | {*raw_files.about(raw), raw_files.COMPOSED}
    return sorted(printable_name(name) for name, _ in raw_files.visible(raw) if name not in used)


def _parallel(raw: Path, options: TranslationPrepareParams) -> dict[str, Parallel]:
    """Return the parallel files by split; a single pair without a split's name is train."""
    named: dict[str, dict[str, Path]] = {}
    for name, is_folder in sorted(raw_files.visible(raw)):
        stem, dot, language = (name[: -len(GZ)] if name.lower().endswith(GZ) else name).rpartition(".")
        if is_folder or not dot or language not in (options.source, options.target):
            continue
        if (other := named.setdefault(stem, {}).setdefault(language, raw / name)) != raw / name:
            raise PedigreeError(f"{other} and {raw / name} are the same file: remove one of them")
    by_split: dict[str, str] = {}
    for stem in named:
        split = raw_files.split_of(stem.partition(".")[0])
        if split and (first := by_split.setdefault(split, stem)) != stem:
            raise PedigreeError(f"{raw} has files {first} and {stem} for the split {split}: remove one of them")
    if not by_split and len(named) > 1:
        raise PedigreeError(
            f"{raw} has several parallel files, {raw_files.listed([*named])}: name them as splits, such as "
            f"train.{options.source}, or leave one pair there"
        )
    if named and not by_split:
        by_split = {"train": next(iter(named))}
    return {split: _both(raw, named[by_split[split]], options) for split in raw_files.SPLITS if split in by_split}


def _both(raw: Path, files: Mapping[str, Path], options: TranslationPrepareParams) -> Parallel:
    for language, other in ((options.source, options.target), (options.target, options.source)):
        if language not in files:
            stem = files[other].name.lower().removesuffix(GZ).removesuffix(f".{other.lower()}")
            raise PedigreeError(
                f"{files[other]} has no translation beside it: add {stem}.{language}, or name the languages in "
                "prepare.source and prepare.target"
            )
        raw_files.expect_target(files[language])
    return Parallel(files[options.source], files[options.target])


def read(raw: Path, options: TranslationPrepareParams) -> Pairs:
    """Read all pairs, in the order of the files; those that cannot be used are rejected.

    Raises:
        PedigreeError: as `survey` does; a file is no UTF-8 text, parallel files have unequal numbers of lines, or a
            table lacks a column.
    """
    found = Pairs()
    for split, files in survey(raw, options).items():
        given = _of_lines(files) if isinstance(files, Parallel) else _of_rows(files, options)
        found.splits[split] = []
        for each in given:
            found.total += 1
            usable = each if isinstance(each, RejectedFile) else _usable(each, options)
            if isinstance(usable, RejectedFile):
                found.rejected.append(usable)
            elif usable.source == usable.target:
                found.identical += 1
            else:
                found.splits[split].append(usable)
    return found


def _usable(pair: Pair, options: TranslationPrepareParams) -> Pair | RejectedFile:
    """Return a pair without white space at the ends of its texts, or why there is none."""
    texts = []
    for language, text in ((options.source, pair.source), (options.target, pair.target)):
        try:
            texts.append(expect_usable(text))
        except Unusable as problem:
            return RejectedFile(file=pair.at, reason=f"{problem}, in {language}")
        if len(texts[-1]) > options.longest:
            reason = f"over {options.longest:,} characters (prepare.longest), in {language}"
            return RejectedFile(file=pair.at, reason=reason)
    return Pair(pair.at, *texts)


def _of_lines(files: Parallel) -> Iterator[Pair | RejectedFile]:
    """Yield the pairs of parallel files.

    Raises:
        PedigreeError: the files have unequal numbers of lines.
    """
    sides = [[text for _, text in lines(file)] for file in files]
    if len(sides[0]) != len(sides[1]):
        raise PedigreeError(_out_of_line(files, *([len(text or "") for text in side] for side in sides)))
    for number, (source, target) in enumerate(zip(*sides, strict=True), start=1):
        at = f"{printable_name(files.source.name)}:{number}"
        if source is None or target is None:
            yield RejectedFile(file=at, reason=tables.TOO_LONG)
        else:
            yield Pair(at, source, target)


def _out_of_line(files: Parallel, source: list[int], target: list[int]) -> str:
    line = drift.first_line(source, target)
    fewer = files.target if len(source) > len(target) else files.source
    missing = abs(len(source) - len(target))
    what = f"{missing:,} lines" if missing > 1 else "a line"
    return (
        f"{files.source} has {len(source):,} lines and {files.target} {len(target):,}: from line {line:,} on the "
        f"lengths of their texts no longer agree, as if {fewer.name} lacked {what} there: correct that place"
    )


def _of_rows(file: Path, options: TranslationPrepareParams) -> Iterator[Pair | RejectedFile]:
    """Yield the pairs of a table.

    Raises:
        PedigreeError: the table lacks a column.
    """
    table = tables.opened(file, options.header)
    for name in ("source", "target"):
        if (column := getattr(options, name)) not in table.columns:
            there = raw_files.listed([brief(each) for each in table.columns])
            header = "" if options.header else ", as prepare.header is false"
            raise PedigreeError(
                f"{file} has the columns {there}{header}, and none is called {brief(column)}: set prepare.{name} "
                "to one of them"
            )
    for row in table.rows():
        at = printable_name(table.at(row))
        if isinstance(row, tables.BadRow):
            yield RejectedFile(file=at, reason=row.reason)
        elif row.swallowed and all(row.swallowed):
            yield RejectedFile(file=at, reason=tables.JOINED)
        else:
            try:
                yield Pair(at, *(tables.text_in(row, column) for column in (options.source, options.target)))
            except Unusable as reason:
                yield RejectedFile(file=at, reason=str(reason))
