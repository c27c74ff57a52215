"""The embedded questions: about the parameters of functions, answered by what docstrings say of them."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from components.datasets.raw_files import COMPOSED
from components.text import repeats
from components.text.docstrings import of_package
from components.text.numpydoc import Parameter, parameters

PACKAGES = ("numpy", "pandas", "sklearn")
"""requirements.lock has one version of each, for all versions of Python."""
TITLE = "Parameters of functions"
CONTEXTS, QUESTIONS = 500, 4
"""Most contexts of a package, and most questions of a context."""
WORDS = 90
"""Most words of a context: further parameters are left out."""
NOTICE = """The questions are composed: they are templates, and the contexts and answers real text.

A context is what the docstring of a function or class of NumPy, pandas or scikit-learn (BSD-3-Clause) says of its
parameters. Questions without an answer ask for a default that it does not name, or for a parameter of another one.
"""
_SENTENCE = re.compile(r"[A-Z][^.:]*(?:\.\w[^.:]*)*\.(?= |$)")
"""A sentence from the beginning of a text on."""
_IF = re.compile(r"\bIf (?P<value>True|False|None), (?:then )?(?P<what>[^.:;]+)")


class Question(NamedTuple):
    """A question about a context, and its answer, which is empty if the context has none."""

    text: str
    answer: str
    start: int


def docstring_qa(folder: Path) -> None:
    """Write folder/questions.json: questions about parameters of functions in the format of SQuAD 2.0.

    A parameter that several functions describe in the same words is in one context only, as its
    questions would otherwise be in training and test. Of each package, the contexts with the smallest hashes are
    taken, and of each context the questions with the smallest hashes.
    """
    seen: set[str] = set()
    paragraphs = [each for package in PACKAGES for each in _paragraphs(package, seen)]
    text = json.dumps({"version": "v2.0", "data": [{"title": TITLE, "paragraphs": paragraphs}]})
    (folder / "questions.json").write_text(f"{text}\n", encoding="utf-8", newline="\n")
    (folder / COMPOSED).write_text(NOTICE, encoding="utf-8", newline="\n")


def _paragraphs(package: str, seen: set[str]) -> list[dict[str, Any]]:
    """Return a package's contexts with their questions; `seen` has the parameters of others, and gets theirs."""
    contexts: dict[str, list[Parameter]] = {}
    for docstring in sorted(of_package(package)):
        new = {repeats.words(each.described): each for each in parameters(docstring)}
        described = _leading([each for key, each in new.items() if key not in seen])
        if len(described) >= 2:
            seen |= {repeats.words(each.described) for each in described}
            contexts[repeats.words("\n".join(each.described for each in described))] = described
    chosen = [contexts[key] for key in sorted(contexts, key=_hash)][:CONTEXTS]
    others = [described[0].name for described in chosen[1:] + chosen[:1]]
    return [
        _paragraph(described, other, f"{package}-{number}")
        for number, (described, other) in enumerate(zip(chosen, others, strict=True))
    ]


def _leading(described: Sequence[Parameter]) -> list[Parameter]:
    """Return the first parameters that together have few enough words."""
    words, found = 0, []
    for each in described:
        words += len(each.described.split())
        if words > WORDS:
            break
        found.append(each)
    return found


def _paragraph(described: Sequence[Parameter], other: str, identity: str) -> dict[str, Any]:
    context = "\n".join(each.described for each in described)
    found: list[Question] = []
    at = 0
    for each in described:
        found += _questions(each, at)
        at += len(each.described) + 1
    if not re.search(rf"\b{re.escape(other)}\b", context, re.IGNORECASE):
        found.append(Question(f"What type is {other}?", "", 0))
    chosen = sorted({each.text: each for each in found}.values(), key=lambda each: _hash(context + each.text))
    return {"context": context, "qas": [_qa(each, f"{identity}-{n}") for n, each in enumerate(chosen[:QUESTIONS])]}


def _questions(each: Parameter, at: int) -> Iterator[Question]:
    """Yield questions about a parameter that is described from a place in the context on."""
    name, text = each.name, each.described
    head, below = text.index(":") + 1, text.index("\n")

    def found(question: str, answer: str, begin: int) -> Question:
        return Question(question, answer, at + text.index(answer, begin))

    if each.kind.startswith("{"):
        yield found(f"Which values can {name} have?", each.kind, head)
    else:
        yield found(f"What type is {name}?", each.kind, head)
    if each.default:
        yield found(f"What is the default of {name}?", each.default, head + text[head:].index("default") + 7)
    elif "default" not in text.lower():
        yield Question(f"What is the default of {name}?", "", 0)
    lines = text[below + 1 :]
    flat = re.sub(r"\s", " ", lines)  # of the same length, so that places stay
    begin = len(flat) - len(flat.lstrip())
    if sentence := _SENTENCE.match(flat, begin):
        answer = lines[begin : sentence.end() - 1]
        yield Question(f"What does {name} mean?", answer, at + below + 1 + begin)
    for condition in _IF.finditer(flat):
        answer = lines[condition.start("what") : condition.end("what")].rstrip()
        start = at + below + 1 + condition.start("what")
        yield Question(f"What happens if {name} is {condition['value']}?", answer, start)


def _qa(question: Question, identity: str) -> dict[str, Any]:
    answers = [{"text": question.answer, "answer_start": question.start}] if question.answer else []
    return {"id": identity, "question": question.text, "answers": answers, "is_impossible": not answers}


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
