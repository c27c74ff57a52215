"""Common Voice's tables: train.tsv, dev.tsv and test.tsv with the columns path and sentence, and the folder clips/.

Ardila et al. 2020 (arXiv:1912.06670), commonvoice.mozilla.org. A quotation mark is a character like any other.
"""

from collections.abc import Collection
from pathlib import Path

from components.datasets.ingest import Unusable
from components.sound.recordings.recording import Found, Recording
from components.text import tables

FILE, TEXT, SPEAKER = "path", "sentence", "client_id"
CLIPS = "clips"


def is_one(raw: Path) -> bool:
    """Return whether the raw folder has such tables."""
    found = tables.find(raw, (tables.TSV,)) if (raw / CLIPS).is_dir() else {}
    return any({FILE, TEXT} <= {*tables.opened(file).columns} for file in found.values())


def find(raw: Path, files: Collection[str]) -> Found:
    """Return the recordings of the tables that are splits; clips in no table are left out, as is usual there.

    Args:
        raw: The raw folder.
        files: All files below it.

    Raises:
        PedigreeError: a table cannot be read.
    """
    found, there = Found(), set(files)
    found.read |= {file for file in files if file.endswith(tables.TSV) or file.startswith(f"{CLIPS}/")}
    for split, path in tables.find(raw, (tables.TSV,)).items():
        table = tables.opened(path)
        for row in table.rows():
            at = table.at(row)
            if isinstance(row, tables.BadRow):
                found.reject(at, row.reason)
                continue
            try:
                name, text = (tables.text_in(row, column) for column in (FILE, TEXT))
            except Unusable as reason:
                found.reject(at, str(reason))
                continue
            file = next((each for each in (f"{CLIPS}/{name}", f"{CLIPS}/{name}.mp3") if each in there), None)
            if file is None:
                found.reject(at, f"{CLIPS}/ has no file of its name")
            else:
                found.add(split, Recording(file, text, at, str(row.cells.get(SPEAKER) or "")))
    return found
