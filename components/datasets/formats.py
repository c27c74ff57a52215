"""Formats by how their files begin, to name what was found where an image or a sound belongs."""

import re
from collections.abc import Mapping

OTHER = {
    "a web page": rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype html|html)\b",
    "a ZIP archive": rb"PK\x03\x04",
    "compressed by gzip": rb"\x1f\x8b",
    "NumPy's format": rb"\x93NUMPY",
    "HDF5": rb"\x89HDF",
}
"""Things that are found among the files of any kind of data."""


def named(head: bytes, formats: Mapping[str, bytes]) -> str | None:
    """Return the first format whose pattern a file's first bytes match, or None."""
    return next((name for name, pattern in formats.items() if re.match(pattern, head, re.DOTALL)), None)
