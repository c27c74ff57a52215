"""The embedded questions are made from docstrings of packages that are read and not imported."""

import hashlib
import json
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import pytest

from components.tasks.question_answering import data, questions
from components.text import docstrings
from tests.tasks.question_answering.values import values

DOCSTRING = '''def {name}():
    """Do something with the numbers that it is given.

    Parameters
    ----------
    a : array_like
        Input array of {own}. It has to be large.
    copy : bool, default=True
        Whether to copy {own}. If True, the array is
        copied first; else it is overwritten.
    {own} : {{'one', 'two'}}, optional
        How to do it.
    """
'''


@pytest.mark.long  # all source files of three packages are parsed
def test_the_questions_are_the_same_everywhere_and_each_answer_is_in_its_context(tmp_path):
    data.docstring_qa(tmp_path)
    content = (tmp_path / "questions.json").read_bytes()
    # Pinned by data.dvc: another machine or another Python must write these very bytes.
    # Other versions of the packages have other docstrings, and then this changes with data.dvc.
    assert hashlib.md5(content).hexdigest() == "583950283104ab5077f2c5f3d6d07a46"
    found = questions.read(tmp_path, values().prepare)
    assert not found.rejected
    assert len(found.splits["train"]) == found.total > 5_000


@pytest.fixture
def packages(tmp_path, monkeypatch) -> Path:
    """Packages of our own in the place of the libraries."""
    root = tmp_path / "site-packages"
    for name in data.PACKAGES:
        (root / name).mkdir(parents=True)
        (root / name / "__init__.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.setattr(docstrings, "find_spec", lambda name: PathFinder.find_spec(name, [str(root)]))
    return root


def collected(packages: Path, folder: Path) -> list[dict[str, Any]]:
    """Return the paragraphs of what is written about three packages with two functions each."""
    for name in data.PACKAGES:
        functions = [DOCSTRING.format(name=f"f{own}", own=own) for own in (f"how_{name}", f"way_{name}")]
        (packages / name / "some.py").write_text("\n".join(functions))
    folder.mkdir()
    data.docstring_qa(folder)
    (article,) = json.loads((folder / "questions.json").read_text())["data"]
    return list(article["paragraphs"])


def test_questions_ask_for_what_the_docstring_says_and_for_what_it_does_not(packages, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "QUESTIONS", 99)
    paragraphs = collected(packages, tmp_path / "written")
    assert len(paragraphs) == 6
    (paragraph,) = (each for each in paragraphs if "how_numpy" in each["context"])
    found = {qa["question"]: [answer["text"] for answer in qa["answers"]] for qa in paragraph["qas"]}
    assert found == {
        "What type is a?": ["array_like"],
        "What is the default of a?": [],
        "What does a mean?": ["Input array of how_numpy"],
        "What type is copy?": ["bool"],
        "What is the default of copy?": ["True"],
        "What does copy mean?": ["Whether to copy how_numpy"],
        "What happens if copy is True?": ["the array is\n    copied first"],
        "Which values can how_numpy have?": ["{'one', 'two'}"],
        "What is the default of how_numpy?": [],
        "What does how_numpy mean?": ["How to do it"],
    }
    for qa in paragraph["qas"]:
        assert qa["is_impossible"] == (not qa["answers"])
        for answer in qa["answers"]:
            assert paragraph["context"].startswith(answer["text"], answer["answer_start"])


def test_a_parameter_that_functions_describe_alike_is_in_one_context_only(packages, tmp_path):
    shared = DOCSTRING.replace("of {own}", "of all")
    for name in data.PACKAGES:
        functions = [shared.format(name=f"f{own}", own=own) for own in (f"how_{name}", f"way_{name}")]
        (packages / name / "some.py").write_text("\n".join(functions))
    data.docstring_qa(tmp_path)
    (article,) = json.loads((tmp_path / "questions.json").read_text())["data"]
    contexts = [each["context"] for each in article["paragraphs"]]
    assert len(contexts) == 6
    assert sum("Input array of all" in context for context in contexts) == 1


def test_a_context_has_few_words_and_few_questions_and_what_was_written_says_that_it_is_composed(
    packages, tmp_path, monkeypatch
):
    monkeypatch.setattr(data, "WORDS", 35)
    monkeypatch.setattr(data, "QUESTIONS", 2)
    monkeypatch.setattr(data, "CONTEXTS", 1)
    paragraphs = collected(packages, tmp_path / "written")
    assert len(paragraphs) == 3
    assert all(len(each["qas"]) == 2 and "optional" not in each["context"] for each in paragraphs)
    assert "composed" in (tmp_path / "written" / "COMPOSED.txt").read_text()
