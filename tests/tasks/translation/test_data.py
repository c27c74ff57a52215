"""The embedded pairs are read from the package's catalogues, which are not imported."""

import struct
import sys
from importlib.util import find_spec

import pytest

from components.errors import PedigreeError
from components.tasks.translation import data, pairs
from tests.tasks.translation.values import values

needs_pack = pytest.mark.skipif(
    find_spec(data.PACKAGE) is None, reason="JupyterLab's French texts are not installed: the extra [demo] has them"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interface")
    data.interface_fr(folder)
    return folder


@needs_pack
def test_the_texts_of_the_interface_are_written_byte_for_byte_the_same(folder, tmp_path):
    data.interface_fr(tmp_path)
    content = (tmp_path / "interface.tsv").read_bytes()
    assert content == (folder / "interface.tsv").read_bytes()
    assert content.startswith(b"en\tfr\n")
    assert b"\nOpen this file\tOuvrir ce fichier\n" in content
    assert data.PACKAGE not in sys.modules


@needs_pack
def test_all_of_them_are_pairs_and_those_of_the_same_text_are_few(folder):
    options = values(prepare={"target": "fr", "longest": 1000}).prepare
    found = pairs.read(folder, options)
    assert found.rejected == []
    assert len(found.splits["train"]) > 2900
    assert found.identical < 250
    assert len({pair.source for pair in found.splits["train"]}) == len(found.splits["train"])


def catalogue(texts: dict[str, str], order: str = "<") -> bytes:
    """Return a .mo file."""
    strings = [each.encode() for side in (texts.keys(), texts.values()) for each in side]
    places, offset = [], 28 + 8 * len(strings)
    for each in strings:
        places += [len(each), offset]
        offset += len(each) + 1
    head = struct.pack(f"{order}7I", data.MAGIC, 0, len(texts), 28, 28 + 8 * len(texts), 0, 0)
    return head + struct.pack(f"{order}{len(places)}I", *places) + b"\0".join(strings) + b"\0"


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_catalogue_has_contexts_and_plurals(tmp_path, order):
    texts = {"": "Language: fr\n", "menu\x04Open": "Ouvrir ", "%1 cell\0%1 cells": "%1 cellule\0%1 cellules"}
    (tmp_path / "a.mo").write_bytes(catalogue(texts, order))
    assert list(data._pairs(tmp_path / "a.mo")) == [
        ("Open", "Ouvrir"),
        ("%1 cell", "%1 cellule"),
        ("%1 cells", "%1 cellules"),
    ]


def test_without_the_package_one_sentence_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    with pytest.raises(
        PedigreeError, match=r"are not installed: install them with `uv pip install 'pedigree\[demo"
    ):
        data.interface_fr(tmp_path)
