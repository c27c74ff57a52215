"""Questions in the raw folder: JSON in SQuAD's format, or JSON Lines with a question each; files named by split.

SQuAD: Rajpurkar et al. 2016 and 2018 (arXiv:1606.05250, arXiv:1806.03822). A place counts characters, which are
Unicode's code points, and each answer has to stand where its place says.
"""

import json
import logging
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from components.contracts import Rejected, RejectedFile, Row
from components.datasets import raw_files
from components.datasets.ingest import Unusable
from components.display import brief, printable_name
from components.errors import PedigreeError
from components.runtime.progress import Progress
from components.tasks.question_answering.params import QuestionPrepareParams
from components.text import lines, tables

log = logging.getLogger("pedigree.prepare")

JSON = ".json"
SUFFIXES = (JSON, *tables.JSONL)
LONGEST = lines.LONGEST
"""Most characters of a question or a context."""
DOUBLE = "another question of the file has the same id"
SHOWN = 60
"""Most characters of a text in a message."""


class Answer(NamedTuple):
    """A piece of the context."""

    text: str
    start: int
    """Its first character's place in the context, from 0."""


class Question(NamedTuple):
    """A question about a context, and its answers, none if the context does not answer it."""

    at: str
    """Where it is, such as train.json:56be4db0 or train.jsonl:12."""
    title: str
    """The article that the context is from; empty if it has none."""
    question: str
    context: str
    answers: tuple[Answer, ...]

    @property
    def commonest(self) -> Answer:
        """The answer that most people gave; of several, the first."""
        return Counter(self.answers).most_common(1)[0][0]


@dataclass
class Questions:
    """What was read."""

    splits: dict[str, list[Question]] = field(default_factory=dict)
    rejected: list[RejectedFile] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    """Files about the data."""
    total: int = 0
    """Number of questions in the files."""

    def reject(self, at: str, reason: object) -> None:
        """Record a question that cannot be used."""
        self.rejected.append(RejectedFile(file=at, reason=str(reason)))


def survey(raw: Path, options: QuestionPrepareParams) -> Mapping[str, Path]:
    """Return the file of each split; no question is read.

    Raises:
        PedigreeError: there is nothing to train on, or two files are one split.
    """
    found = tables.find(raw, SUFFIXES)
    if "train" not in found:
        there = f"only {raw_files.listed([*found])}" if found else "none"
        raise PedigreeError(
            f"{raw} has no questions to train on ({there} found): add train.json in SQuAD's format, or train.jsonl"
        )
    return found


def read(raw: Path, options: QuestionPrepareParams) -> Questions:
    """Read all questions, in the order of the files; those that cannot be used are rejected.

    Raises:
        PedigreeError: as `survey` does; a file is too large, is no UTF-8 text, or is not in a format that is read.
    """
    files = survey(raw, options)
    found = Questions(ignored=raw_files.about(raw))
    for split, file in files.items():
        found.splits[split] = []
        seen: set[str] = set()
        for at, given in _reporting(_given(file), file):
            found.total += 1
            try:
                found.splits[split].append(_question(at, given, seen))
                seen.add(at)
            except Unusable as reason:
                found.reject(at, reason)
    used = {file.name for file in files.values()} | {*found.ignored, raw_files.COMPOSED}
    for name in sorted(name for name, _ in raw_files.visible(raw) if name not in used):
        found.reject(printable_name(name), "not one of the files of questions")
    return found


def requests(file: Path) -> Iterator[tuple[str, Row | Rejected]]:
    """Yield the id of each question of a file in SQuAD's format, and its row of a request, or why it has none.

    A question without an id has its number in the file. Answers are not read.

    Raises:
        PedigreeError: the file is too large, is no UTF-8 text, or is not in SQuAD's format.
    """
    seen: set[str] = set()
    for name, given in _squad(file):
        if isinstance(given, Unusable):
            yield name, Rejected(str(given))
        elif name in seen:
            yield name, Rejected(DOUBLE)
        else:
            seen.add(name)
            yield name, {"question": given.question, "context": given.context}


class _Given(NamedTuple):
    """What a file says of a question, unchecked."""

    title: Any
    question: Any
    context: Any
    answers: Any
    impossible: Any


def _given(file: Path) -> Iterator[tuple[str, _Given | Unusable]]:
    """Yield where each question of a file is, and what it is or why it is none."""
    if tables.suffix_of(file) == JSON:
        yield from ((printable_name(f"{file.name}:{name}"), given) for name, given in _squad(file))
        return
    table = tables.opened(file)
    for row in table.rows():
        at = printable_name(table.at(row))
        if isinstance(row, tables.BadRow):
            yield at, Unusable(row.reason)
        else:
            cells = row.cells
            answers = cells.get("answers")
            yield (
                at,
                _Given(
                    cells.get("title", ""),
                    cells.get("question"),
                    cells.get("context"),
                    _rows(answers) if isinstance(answers, dict) else answers,
                    cells.get("is_impossible", False),
                ),
            )


def _rows(answers: dict[str, Any]) -> Any:
    """Return answers that are given as columns, as Hugging Face writes them, as rows."""
    texts, starts = answers.get("text"), answers.get("answer_start", answers.get("start"))
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        return None
    return [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]


def _squad(file: Path) -> Iterator[tuple[str, _Given | Unusable]]:
    """Yield the id of each question, or else its number, and what it is or why it is none."""
    number = 0
    for title, paragraph in _paragraphs(file):
        questions = paragraph.get("qas")
        if not isinstance(questions, list):
            number += 1
            yield str(number), Unusable("its paragraph has no list 'qas'")
            continue
        for each in questions:
            number += 1
            if not isinstance(each, dict):
                yield str(number), Unusable("not a JSON object")
                continue
            name = each.get("id", number)
            impossible = each.get("is_impossible", False)
            yield (
                str(name if isinstance(name, str | int) else number),
                _Given(title, each.get("question"), paragraph.get("context"), each.get("answers"), impossible),
            )


def _paragraphs(file: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield the paragraphs of a file in SQuAD's format, each with the title of its article."""
    if file.stat().st_size > tables.LARGEST:
        raise PedigreeError(f"{file}: over {tables.LARGEST / 2**30:g} GiB: divide the data set")
    try:
        content = json.loads(lines.whole(file))
    except (ValueError, RecursionError) as error:
        raise PedigreeError(
            f"{file} is not JSON ({str(error).splitlines()[0]}): get another copy, or call it {file.stem}.jsonl if "
            "each line is an object"
        ) from None
    articles = content.get("data") if isinstance(content, dict) else None
    if not isinstance(articles, list):
        raise PedigreeError(
            f"{file} is not in SQuAD's format, as it has no list 'data': write "
            '{"data": [{"paragraphs": [{"context": …, "qas": […]}]}]}, or JSON Lines'
        )
    for number, article in enumerate(articles, 1):
        paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
        if not isinstance(paragraphs, list) or not all(isinstance(each, dict) for each in paragraphs):
            raise PedigreeError(f"{file} is not in SQuAD's format: article {number} has no list 'paragraphs'")
        for each in paragraphs:
            yield article.get("title", ""), each


def _question(at: str, given: _Given | Unusable, seen: Collection[str]) -> Question:
    """Return a question that can be used; raise Unusable with the reason if it cannot."""
    if isinstance(given, Unusable):
        raise given
    if at in seen:
        raise Unusable(DOUBLE)
    question = usable(given.question, "question").strip()
    context = usable(given.context, "context")
    if given.impossible is True:
        return Question(at, str(given.title), question, context, ())
    if not isinstance(given.answers, list):
        raise Unusable("it has no list 'answers', which is empty if the context does not answer the question")
    answers = tuple(_answer(each, context) for each in given.answers)
    return Question(at, str(given.title), question, context, answers)


def usable(text: object, what: str) -> str:
    """Return a text as it is, so that places in it stay true.

    Raises:
        Unusable: it is none, has no letter or sign, is too long, or characters of it were lost.
    """
    if text is None:
        raise Unusable(f"it has no {what!r}")
    if not isinstance(text, str):
        raise Unusable(f"its {what} is no text but {brief(str(text))}")
    if len(text) > LONGEST:
        raise Unusable(f"its {what} of {len(text):,} characters is over {LONGEST:,}: divide it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unusable(f"character {error.start} of its {what} is half of a surrogate pair") from None
    if lines.REPLACEMENT in text:
        raise Unusable(f"U+FFFD in its {what} stands for characters that were lost when the text was converted")
    if not any(unicodedata.category(letter)[0] in "LNPS" for letter in text):
        raise Unusable(f"its {what} is empty")
    return text


def _answer(given: object, context: str) -> Answer:
    """Return an answer that stands where it says; raise Unusable otherwise."""
    if not isinstance(given, dict):
        raise Unusable("one of its answers is no JSON object")
    text = usable(given.get("text"), "answer")
    start = given.get("answer_start", given.get("start"))
    if not isinstance(start, int) or isinstance(start, bool):
        raise Unusable("one of its answers has no number 'answer_start'")
    if start >= 0 and context.startswith(text, start):
        return Answer(text, start)
    raise Unusable(_misplaced(text, start, context))


def _misplaced(text: str, start: int, context: str) -> str:
    """Return why an answer does not stand at its place, and what its place counts if that can be told."""
    shown = brief(text[:SHOWN])
    if text not in context and raw_files.same(text) in raw_files.same(context):
        return f"its context has the answer {shown} in another form of Unicode: write both in one form, such as NFC"
    if text not in context:
        return f"its context does not contain the answer {shown}"
    bytes_before, units_before = len(context.encode()[: max(start, 0)]), 2 * max(start, 0)
    counted = ""
    if context.encode()[bytes_before:].startswith(text.encode()):
        counted = ", and this counts bytes"
    elif context.encode("utf-16-le")[units_before:].startswith(text.encode("utf-16-le")):
        counted = ", and this counts units of UTF-16"
    before, after = context.rfind(text, 0, max(start, 0) + len(text)), context.find(text, max(start, 0))
    places = [found for found in (before, after) if found >= 0]
    nearest = min(places, key=lambda place: abs(place - start))
    return f"its answer {shown} does not stand at answer_start {start} but at {nearest}{counted}"


def _reporting(
    items: Iterable[tuple[str, _Given | Unusable]], file: Path
) -> Iterator[tuple[str, _Given | Unusable]]:
    """Yield the items, and log how many there were so far every few seconds."""
    progress = Progress(log)
    for number, item in enumerate(items):
        progress.say(f"{file}: {number:,} questions read")
        yield item
