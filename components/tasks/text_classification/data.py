"""The embedded texts: first paragraphs of docstrings, and the library that each comes from."""

import csv
import hashlib
import re
from collections import Counter
from pathlib import Path

from components.text.docstrings import SHORTEST, of_package

LIBRARIES = {
    "numpy": "numpy",
    "pandas": "pandas",
    "scikit-learn": "sklearn",
    "sqlalchemy": "sqlalchemy",
    "sympy": "sympy",
    "torch": "torch",
}
"""The classes and their packages; requirements.lock has one version of each, for all versions of Python."""
MOST = 1_200
"""Maximum number of texts of a library."""
NAMES = re.compile(
    r"\w*(?:numpy|pandas|sklearn|scikit.learn|torch|sqlalchemy|sympy)\w*|\b(?:np|pd)\b", re.IGNORECASE
)
"""The libraries' names, words that have one inside them, and the usual abbreviations."""
MASK = "LIBRARY"
"""Stands in place of a name."""


def topics(folder: Path) -> None:
    """Write folder/topics.csv with the columns text and label: first paragraphs of docstrings, names masked.

    The label of a text is the library that it comes from, so it is right by construction, but some texts would fit
    several libraries. A paragraph that several libraries have is left out. Of each library, the texts with the
    smallest hashes are taken. The order is that of the hashes, so that any part is a representative sample.
    """
    found = {library: {_paragraph(text) for text in of_package(package)} for library, package in LIBRARIES.items()}
    shared = Counter(text for texts in found.values() for text in texts)
    rows: list[tuple[str, str]] = []
    for library, texts in found.items():
        own = [text for text in texts if len(text) >= SHORTEST and shared[text] == 1]
        rows += [(text, library) for text in sorted(own, key=_hash)[:MOST]]
    rows.sort(key=lambda row: _hash(row[0]))
    with (folder / "topics.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["text", "label"])
        table.writerows(rows)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _paragraph(text: str) -> str:
    """Return the first paragraph on one line, with the names of libraries masked."""
    return NAMES.sub(MASK, " ".join(text.partition("\n\n")[0].split()))
