"""The embedded pairs of texts: JupyterLab's user interface in English and French."""

import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from components.errors import PedigreeError

PACKAGE, LOCALE = "jupyterlab_language_pack_fr_FR", "locale/fr_FR/LC_MESSAGES"
"""The package that has the translations, which is read and not imported, and the folder of its catalogues."""
MAGIC = 0x950412DE
"""Begins a .mo file in the byte order of its numbers."""
CONTEXT, PLURAL = "\x04", "\0"
"""What separates a text's context from it, and its singular from its plural."""


def interface_fr(folder: Path) -> None:
    """Write folder/interface.tsv: the columns en and fr, about 3,100 texts of JupyterLab and its extensions.

    People have translated them (BSD-3-Clause, github.com/jupyterlab/language-packs). Each English text has one
    translation, the first one in the order of the catalogues; texts with line breaks or tabs are left out. The
    package has the same translations as .mo and as JSON; only the .mo files have the English plurals.

    Raises:
        PedigreeError: the package is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise PedigreeError(
            "JupyterLab's French texts, the embedded pairs, are not installed: install them with `uv pip install "
            "'pedigree[demo]'`, or put your own pairs in data/interface-fr/"
        )
    pairs: dict[str, str] = {}
    for catalogue in sorted(Path(spec.origin).parent.joinpath(LOCALE).glob("*.mo")):
        for english, french in _pairs(catalogue):
            if english and french and english.isprintable() and french.isprintable():
                pairs.setdefault(english, french)
    lines = ["en\tfr", *(f"{english}\t{french}" for english, french in sorted(pairs.items()))]
    (folder / "interface.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def _pairs(catalogue: Path) -> Iterator[tuple[str, str]]:
    """Yield each text of a .mo file and its translation, without spaces at their ends; plurals by themselves.

    The format is that of GNU gettext (gnu.org/software/gettext/manual/html_node/MO-Files.html): after the magic
    number and a revision, the number of texts and the places of two tables of lengths and places.
    """
    data = catalogue.read_bytes()
    order = "<" if struct.unpack_from("<I", data)[0] == MAGIC else ">"
    _, _, count, *tables = struct.unpack_from(f"{order}5I", data)

    def text(table: int, index: int) -> str:
        length, place = struct.unpack_from(f"{order}2I", data, table + 8 * index)
        return data[place : place + length].decode()

    for index in range(count):
        original, translated = (text(table, index) for table in tables)
        if original:  # the first text is empty, and its translation is about the catalogue
            forms = original.rpartition(CONTEXT)[2].split(PLURAL), translated.split(PLURAL)
            # French has a singular and a plural, as English has.
            yield from ((one.strip(), other.strip()) for one, other in zip(*forms, strict=False))
