"""Images named in a CSV manifest with the columns path and label, and optionally patient and split."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from components.datasets import raw_files
from components.errors import PedigreeError
from components.images.labels import image_lists
from components.images.labels.image_lists import Entry, Listing
from components.params import FilesPrepareParams

PATH, LABEL, PATIENT, SPLIT = "path", "label", "patient", "split"
"""Columns, in any case and order; further ones are not read."""
SEPARATORS = re.compile(r"[|;]")
"""Between the labels of an image that has several; one such cell means that all images can have several."""
LARGEST = 2**28
"""Largest manifest in bytes."""


def manifests(raw: Path) -> list[str]:
    """Return the CSV files in the raw folder whose first line has the columns path and label.

    Raises:
        PedigreeError: semicolons or tabs separate these columns, or they are in UTF-16, as spreadsheets may write
            them.
    """
    names = sorted(name for name, is_folder in raw_files.visible(raw) if not is_folder)
    return [name for name in names if name.lower().endswith(".csv") and {PATH, LABEL} <= _columns(raw / name)]


def _columns(file: Path) -> set[str]:
    with file.open("rb") as content:
        wide = content.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    with file.open(encoding="utf-16" if wide else "utf-8-sig", errors="replace", newline="") as text:
        line = text.readline(10_000)
    found = {cell.strip().lower() for cell in next(csv.reader([line]), [])}
    others = {cell.strip(' "\r\n').lower() for cell in re.split("[;\t]", line)}
    if wide and {PATH, LABEL} <= found | others:
        raise PedigreeError(
            f"{file} is in UTF-16: save it as CSV in UTF-8, or set prepare.format to another layout"
        )
    if len(found) == 1 and {PATH, LABEL} <= others:
        raise PedigreeError(
            f"{file}:1: its columns are not separated by commas: save it with commas, or set prepare.format to "
            "another layout"
        )
    return found


def survey(raw: Path, name: str, options: FilesPrepareParams) -> Listing:
    """Read the manifest, and divide the images that it names into splits; no image is opened.

    Rows whose file does not exist or is outside the folder are strays. Labels may be separated by `|` or `;`; then
    an empty cell is an image without a finding.

    Args:
        raw: The raw folder.
        name: The manifest's name.
        options: The shares and the seed.

    Raises:
        PedigreeError: the manifest cannot be read, names a file twice, no usable file or an unknown split, or as
            `image_lists.divide` does.
    """
    rows = list(_rows(raw / name))
    several = any(SEPARATORS.search(row[LABEL]) for _, row in rows)
    entries: dict[str, Entry] = {}
    strays: dict[str, str] = {}
    first: dict[str, str] = {}
    for line, row in rows:
        where, file = f"{name}:{line}", _normal(row[PATH])
        if file and file in first:
            raise PedigreeError(f"{raw / name}:{line}: {file} is already in {first[file]}: remove one of them")
        first[file] = where
        if reason := _reason(raw, file, row[LABEL], several, f"{name} names it in line {line}"):
            strays[file or where] = reason
            continue
        labels = SEPARATORS.split(row[LABEL]) if several else [row[LABEL]]
        own = tuple(sorted({raw_files.same(label.strip()) for label in labels if label.strip()}))
        entries[file] = Entry(file, own, raw_files.same(row[PATIENT]), _split(raw / name, line, row[SPLIT]), where)
    if not entries:
        why = next((f"{file}: {reason}" for file, reason in strays.items()), "it has no rows below its first line")
        raise PedigreeError(
            f"{raw / name} names no image that can be used ({why}): name images by their paths in {raw}"
        )
    known = {*entries, *strays, name, raw_files.COMPOSED}
    about = {*raw_files.about(raw)}
    ignored = [file for file in _files(raw) if file not in known and file not in about]
    return image_lists.divide(raw, list(entries.values()), several, options, strays, ignored)


def _rows(file: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield the line number and the four columns of each row; those that the manifest lacks are empty."""
    try:
        if file.stat().st_size > LARGEST:
            raise PedigreeError(f"{file}: over {LARGEST / 1e6:.0f} MB: divide the data set")
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, strict=True)
            head = [cell.strip().lower() for cell in next(reader)]
            for wanted in (PATH, LABEL, PATIENT, SPLIT):
                if head.count(wanted) > 1:
                    raise PedigreeError(f"{file}:1: two columns are called {wanted}: remove one of them")
            at = {column: head.index(column) for column in (PATH, LABEL, PATIENT, SPLIT) if column in head}
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    if len(cells) != len(head):
                        raise PedigreeError(
                            f"{file}:{reader.line_num}: {len(cells)} cells under {len(head)} columns: put cells "
                            "that have a comma between quotation marks"
                        )
                    found = {column: cells[index].strip() for column, index in at.items()}
                    yield reader.line_num, {PATIENT: "", SPLIT: ""} | found
    except UnicodeDecodeError as error:
        raise PedigreeError(f"{file}: byte {error.start} is not UTF-8: save the file as UTF-8") from None
    except csv.Error as error:
        raise PedigreeError(f"{file}:{reader.line_num}: this is not CSV ({error}): save it anew") from None


def _normal(path: str) -> str:
    """Return a path with `/` between its parts, and without `./`."""
    return PurePosixPath(path.replace("\\", "/")).as_posix() if path else ""


def _reason(raw: Path, file: str, label: str, several: bool, names: str) -> str:
    """Return why a row cannot be used, or an empty string."""
    parts = PurePosixPath(file).parts
    if not file or not file.isprintable():
        return f"not the path of a file: {names}"
    if file.startswith("/") or ".." in parts or re.match("[A-Za-z]:", file):
        return f"outside the folder: {names}"
    if not all(map(raw_files.shown, parts)):
        return f"a hidden file: {names}"
    if not _is_file(raw / file):
        return f"there is no such file: {names}"
    return "" if label or several else f"it has no label: {names}"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # its name is too long
        return False


def _split(file: Path, line: int, name: str) -> str:
    split = raw_files.split_of(name) if name else ""
    if split is None:
        choices = ", ".join(raw_files.SPLITS)
        raise PedigreeError(f"{file}:{line}: {name} is no split: write one of {choices}, or leave all cells empty")
    return split


def _files(raw: Path, below: str = "") -> Iterator[str]:
    """Yield the paths of all visible files below a folder."""
    for name, is_folder in raw_files.visible(raw / below):
        path = f"{below}/{name}" if below else name
        if is_folder:
            yield from _files(raw, path)
        else:
            yield path
