"""NeMo's manifests: JSON Lines with audio_filepath, text and maybe speaker, such as train_manifest.json.

docs.nvidia.com/nemo-framework, "Datasets" of automatic speech recognition. Paths are relative to the manifest.
"""

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import soundfile  # type: ignore[import-untyped]

from components.datasets import raw_files
from components.datasets.ingest import Unusable
from components.display import brief
from components.errors import PedigreeError
from components.sound.recordings.recording import Found, Recording
from components.text import tables

SUFFIXES = (".json", *tables.JSONL)
FILES = ("audio_filepath", "audio_filename")
"""Keys of the path; the second one is in older manifests."""
TEXT, SPEAKER, OFFSET, DURATION = "text", "speaker", "offset", "duration"
LONGER = 0.1
"""Seconds by which a file may be longer than its line says."""


def manifests(raw: Path, files: Sequence[str]) -> dict[str, str]:
    """Return the manifest of each split; a single one without a split's name is train.

    Args:
        raw: The raw folder.
        files: All files below it.

    Raises:
        PedigreeError: two are the same split, or several are none.
    """
    named: dict[str, str] = {}
    others = []
    for file in files:
        if "/" in file or not file.lower().endswith(SUFFIXES) or not _is_one(raw / file):
            continue
        split = raw_files.split_of(re.split("[_.-]", file)[0])
        if split is None:
            others.append(file)
        elif (other := named.setdefault(split, file)) != file:
            raise PedigreeError(f"{raw} has the manifests {other} and {file} for {split}: remove one of them")
    if others and (named or len(others) > 1):
        raise PedigreeError(
            f"{raw}: the names of {raw_files.listed(others)} say no split: name manifests such as "
            "train_manifest.json and test_manifest.json"
        )
    return named or ({"train": others[0]} if others else {})


def _is_one(file: Path) -> bool:
    first = next((row for row in _rows(file) if isinstance(row, tables.Row)), None)
    return first is not None and any(key in first.cells for key in FILES)


def _rows(file: Path) -> Any:
    return tables.Table(file, (), False, "").rows()


def find(raw: Path, files: Collection[str], given: dict[str, str]) -> Found:
    """Return the recordings of `manifests`.

    Args:
        raw: The raw folder.
        files: All files below it.
        given: The manifest of each split.
    """
    found, there = Found(read=set(given.values())), set(files)
    for split, manifest in given.items():
        for row in _rows(raw / manifest):
            at = f"{manifest}:{row.line}"
            if isinstance(row, tables.BadRow):
                found.reject(at, row.reason)
                continue
            try:
                found.add(split, _recording(raw, there, row, at))
            except Unusable as reason:
                found.reject(at, str(reason))
    return found


def _recording(raw: Path, there: set[str], row: tables.Row, at: str) -> Recording:
    key = next((key for key in FILES if key in row.cells), FILES[0])
    path, text = tables.text_in(row, key), tables.text_in(row, TEXT)
    if row.cells.get(OFFSET):
        raise Unusable(f"{OFFSET} is not 0: cut the recording into files")
    own = os.path.normpath(path if not Path(path).is_absolute() else os.path.relpath(path, raw))
    if own not in there:
        remedy = f"; write paths relative to {at.partition(':')[0]}" if Path(path).is_absolute() else ""
        raise Unusable(f"no such file: {brief(path)}{remedy}")
    if OFFSET in row.cells:
        _expect_whole(raw / own, row.cells.get(DURATION))
    speaker = "" if row.cells.get(SPEAKER) is None else tables.text_in(row, SPEAKER)
    return Recording(own, text, at, speaker)


def _expect_whole(file: Path, seconds: Any) -> None:
    """Raise Unusable if a line is about the beginning of a file; one that cannot be opened is rejected later."""
    try:
        longer = isinstance(seconds, (int, float)) and soundfile.info(file).duration > seconds + LONGER
    except (soundfile.LibsndfileError, OSError):
        return
    if longer:
        raise Unusable(f"only its first {seconds:g} seconds are meant: cut the recording into files")
