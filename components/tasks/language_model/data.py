"""Data sets of text: docstrings of installed packages, and WikiText-2 from the internet."""

import hashlib
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from itertools import accumulate, takewhile
from pathlib import Path

from components.datasets.download import download
from components.errors import PedigreeError
from components.text.docstrings import of_package

MOST_BYTES = 3_000_000
"""Maximum bytes of the whole text."""
LINE, KNOWN = 30, 0.25
"""Minimum characters of a line that counts as content, and the share of such lines that a docstring may repeat."""

URL = "https://wikitext.smerity.com/wikitext-2-v1.zip"
MD5 = "542ccefacc6c27f945fb54453812b3cd"
LARGEST = 100_000_000
"""Maximum bytes of a part of WikiText-2, the largest of which has 11 million."""
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeDecodeError)
"""What zipfile raises for a damaged archive; RuntimeError for encryption and unknown methods of compression."""


def docstrings(folder: Path) -> None:
    """Write folder/docstrings.txt: 3 MB of English prose from the installed torch and numpy (both BSD-3-Clause).

    The text depends only on the versions of the two packages, not on their location or on Python's version; the
    packages are read, not imported. Docstrings are sorted by their hash, so that any part is a representative
    sample. A docstring is skipped if over a quarter of its longer lines occurred before, so that the network cannot
    have memorised the test text at the end. Smaller repetitions remain, about one such line in twenty-five.
    """
    unique = {text for package in ("numpy", "torch") for text in of_package(package)}
    ordered = sorted(unique, key=lambda text: hashlib.sha256(text.encode()).digest())
    texts = [f"{text}\n" for text in _novel(ordered)]
    sizes = accumulate(len(text.encode()) + 1 for text in texts)
    count = len(list(takewhile(lambda size: size <= MOST_BYTES, sizes)))
    (folder / "docstrings.txt").write_text("\n".join(texts[:count]), encoding="utf-8", newline="\n")


def _novel(texts: Iterable[str]) -> Iterator[str]:
    """Yield the texts with enough new lines: at most the share `KNOWN` of the longer lines occurred before."""
    seen: set[str] = set()
    for text in texts:
        lines = [line for line in map(str.strip, text.split("\n")) if len(line) >= LINE]
        if sum(line in seen for line in lines) <= KNOWN * len(lines):
            yield text
        seen.update(lines)


def wikitext2(folder: Path, cache: Path) -> None:
    """Write WikiText-2 as folder/{train,valid,test}.txt, a paragraph per line.

    They have 2,088,628, 217,646 and 245,569 words.
    The archive is downloaded into `cache` unless it is already there. Source: Merity et al. 2016,
    arXiv:1609.07843; licence CC BY-SA.

    Raises:
        PedigreeError: the archive cannot be downloaded, or differs from the published one.
    """
    archive = cache / Path(URL).name
    download("WikiText-2", URL, archive, MD5)
    convert_wikitext2(archive, folder)


def convert_wikitext2(archive: Path, folder: Path) -> None:
    """Write the three parts of an archive in the format of wikitext-2-v1.zip, byte for byte.

    Raises:
        PedigreeError: the archive is damaged, lacks a part, or has a part of more than 100 MB.
    """
    try:
        with zipfile.ZipFile(archive) as parts:
            for split in ("train", "valid", "test"):
                _extract(archive, parts, f"wikitext-2/wiki.{split}.tokens", folder / f"{split}.txt")
    except UNREADABLE as error:
        raise PedigreeError(f"{archive} cannot be unpacked ({error}): remove it and try again") from error


def _extract(archive: Path, parts: zipfile.ZipFile, name: str, target: Path) -> None:
    """Write one member; zipfile never reads more than its declared size."""
    if name not in parts.NameToInfo:
        raise PedigreeError(f"{archive} has no {name}: it is not WikiText-2: remove it and try again")
    if parts.getinfo(name).file_size > LARGEST:
        raise PedigreeError(
            f"{archive}: {name} has more than {LARGEST:,} bytes: it is not WikiText-2: remove it and try again"
        )
    with parts.open(name) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file)
