"""The embedded texts are docstrings of packages that are read and not imported, without the packages' names."""

import csv
import hashlib
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from components.tasks.text_classification import data
from components.text import docstrings


@pytest.mark.long  # all source files of six packages are parsed
def test_the_texts_are_the_same_everywhere_and_hold_no_name_of_a_library(tmp_path):
    data.topics(tmp_path)
    content = (tmp_path / "topics.csv").read_bytes()
    # Pinned by data.dvc: another machine or another Python must write these very bytes.
    # Other versions of the packages have other docstrings, and then this changes with data.dvc.
    assert hashlib.md5(content).hexdigest() == "36daad1c6d333ed44106cd981f6f454a"
    with (tmp_path / "topics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == {*data.LIBRARIES}
    assert not [row for row in rows if data.NAMES.search(row["text"])]
    assert len({row["text"] for row in rows}) == len(rows) > 6_000


@pytest.fixture
def packages(tmp_path, monkeypatch) -> Path:
    """Packages of our own in the place of the libraries."""
    root = tmp_path / "site-packages"
    for name in data.LIBRARIES.values():
        (root / name).mkdir(parents=True)
        (root / name / "__init__.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.setattr(docstrings, "find_spec", lambda name: PathFinder.find_spec(name, [str(root)]))
    return root


def collected(folder: Path) -> list[list[str]]:
    folder.mkdir()
    data.topics(folder)
    with (folder / "topics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def write(file: Path, *texts: str) -> None:
    file.write_text("".join(f'def f():\n    """{text}"""\n' for text in texts))


LONG = "Return what a function of that name is known for, in the order of its arguments."


def test_a_text_is_a_first_paragraph_in_which_the_names_of_all_libraries_are_masked(packages, tmp_path):
    write(packages / "torch" / "a.py", f"Like :func:`numpy.sum` of NumPy,\n    np.add or PyTorch.\n\n    {LONG}")
    assert collected(tmp_path / "out") == [
        ["text", "label"],
        ["Like :func:`LIBRARY.sum` of LIBRARY, LIBRARY.add or LIBRARY.", "torch"],
    ]


def test_a_text_that_two_libraries_have_and_a_short_one_are_left_out(packages, tmp_path):
    write(packages / "torch" / "a.py", LONG, f"Torch alone: {LONG}", f"Short.\n\n    {LONG}")
    write(packages / "pandas" / "a.py", LONG)
    assert collected(tmp_path / "out")[1:] == [[f"LIBRARY alone: {LONG}", "torch"]]


def test_no_library_has_more_texts_than_allowed_and_their_order_is_that_of_their_hashes(
    packages, tmp_path, monkeypatch
):
    monkeypatch.setattr(data, "MOST", 3)
    texts = [f"Number {number}. {LONG}" for number in range(9)]
    write(packages / "sympy" / "a.py", *texts)
    ordered = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())
    assert collected(tmp_path / "out")[1:] == [[text, "sympy"] for text in ordered[:3]]
