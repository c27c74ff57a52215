"""Evaluation on the test questions: exact match and F1, by question and answer, no answer, the worst mistakes."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from components import figures, scores
from components.classification import ranking
from components.contracts import Batch, Columns, Manifest, Outcomes, Prepared, Rejected, Row, Score
from components.errors import PedigreeError
from components.runtime.files import write_json
from components.tasks.question_answering import pictures, spans
from components.tasks.question_answering.model import Reader
from components.tasks.question_answering.params import QuestionParams
from components.tasks.question_answering.prepare import QUESTION, QuestionFacts, questions_of_test
from components.tasks.question_answering.questions import Question
from components.text import length_bands, repeats
from components.text.measures import squad

F1, EXACT, ANSWERABLE, ABSTAINING = "f1", "exact", "answerable", "no_answer"
"""Columns of outcomes: F1 and exact match, 0 to 1; whether there is an answer, 1 or 0; how far none exceeds it."""
FIRST, CLOSEST, NEVER = "first_sentence", "closest_sentence", "no_answer"
"""The rules that stand beside the score, see `_by_rule`."""
UNANSWERED = "no answer"
"""The group of questions that their context does not answer."""
WORDS = ("what", "which", "who", "whose", "whom", "when", "where", "why", "how")
"""Question words; a question belongs to the first one in it."""
OTHER = "other"
LISTED = 50
"""Number of the worst mistakes listed."""
_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")
Floats = NDArray[np.float64]


def score(manifest: Manifest) -> Score:
    """Return F1, 0 to 1, the mean over questions."""
    return replace(scores.ratio("f1", "more", F1, share=True), graded=True)


def further_scores(manifest: Manifest) -> Sequence[Score]:
    """Return exact match, the gain over the best rule, and, where questions lack an answer, how those do."""
    found = [
        scores.ratio("exact_match", "more", EXACT, share=True),
        replace(Score("f1_gain", "more", _gain), graded=True),
    ]
    if _facts(manifest).unanswerable["test"]:
        found.append(Score("f1_with_answer", "more", _f1_with_answer, True, True, _has_answer))
        found.append(Score("no_answer_auc", "more", _auc, share=True))
    return found


def _facts(manifest: Manifest) -> QuestionFacts:
    return QuestionFacts.model_validate(manifest.facts)


def _mean(columns: Columns, weights: Floats, name: str) -> float:
    return float(weights @ columns[name] / weights.sum())


def _gain(columns: Columns, weights: Floats) -> float:
    return _mean(columns, weights, F1) - max(_mean(columns, weights, f"f1_of_{rule}") for rule in _RULES)


def _has_answer(columns: Columns) -> NDArray[np.bool_]:
    answerable: NDArray[np.bool_] = columns[ANSWERABLE] == 1
    return answerable


def _f1_with_answer(columns: Columns, weights: Floats) -> float:
    return _mean(columns, weights * columns[ANSWERABLE], F1)


def _auc(columns: Columns, weights: Floats) -> float:
    return ranking.auc(1 - columns[ANSWERABLE], columns[ABSTAINING], weights)


_RULES = (FIRST, CLOSEST, NEVER)


def _by_rule(question: Question) -> Mapping[str, str]:
    """Return what rules answer: the first sentence, the one with most of the question's words, and nothing."""
    sentences = [text for each in _SENTENCES.split(question.context) if (text := each.strip())]
    asked = {*squad.normalised(question.question).split()}
    shared = [len(asked & {*squad.normalised(each).split()}) for each in sentences]
    return {FIRST: sentences[0], CLOSEST: sentences[int(np.argmax(shared))], NEVER: ""}


class _Answered(NamedTuple):
    """An answer, and by how much none exceeds it."""

    text: str | None  # None of a rejected question
    no_answer: float


def outcomes(predictions: Iterable[Batch], prepared: Prepared, params: QuestionParams) -> Outcomes:
    """Return F1 and exact match of each answer, and those of the rules.

    Questions about contexts that differ only in case and punctuation are a cluster; those with one question word,
    or with answers of similar length, a group.
    """
    return _outcomes([_Answered(each.text, each.no_answer) for each in _given(predictions, prepared)], prepared)


def outcomes_from(answers: Iterable[Row | Rejected], prepared: Prepared) -> Outcomes:
    """Return `outcomes` from a served version's answers to `serve.rows`; a rejected question is a wrong answer.

    Raises:
        PedigreeError: an answer lacks its column.
    """
    found = []
    for answer in answers:
        if isinstance(answer, Rejected):
            found.append(_Answered(None, 0.0))
            continue
        if "answer" not in answer:
            raise PedigreeError(f"its answers have no column 'answer' but {', '.join(map(str, answer))}")
        found.append(_Answered(str(answer["answer"]), float(answer.get("no_answer", _ALWAYS))))
    return _outcomes(found, prepared)


_ALWAYS = -1e9
"""Stands for -inf in outcomes, which are finite."""


def _given(predictions: Iterable[Batch], prepared: Prepared) -> list[spans.Given]:
    """Return what each test question is answered with."""
    windows = spans.joined(predictions)
    tested, facts = questions_of_test(prepared.folder), _facts(prepared.manifest)
    maker = facts.windows
    asked = [maker.of(each.question, each.context) for each in tested]
    limit = windows[spans.THRESHOLD][0] if spans.THRESHOLD in windows else None
    return spans.answers(windows, windows[QUESTION], [each.context for each in tested], asked, limit)


def _outcomes(answered: Sequence[_Answered], prepared: Prepared) -> Outcomes:
    tested = questions_of_test(prepared.folder)
    rows = []
    for question, given in zip(tested, answered, strict=True):
        references = [each.text for each in question.answers]
        rules = _by_rule(question)
        rows.append(
            {
                # An empty answer would be right where there is none, so a version would gain by rejecting.
                F1: 0.0 if given.text is None else squad.f1(given.text, references),
                EXACT: 0.0 if given.text is None else squad.exact(given.text, references),
                ANSWERABLE: float(bool(references)),
                ABSTAINING: max(given.no_answer, _ALWAYS),
            }
            | {f"f1_of_{rule}": squad.f1(rules[rule], references) for rule in _RULES}
        )
    keys = {each.context: repeats.key(each.context) for each in tested}
    return Outcomes(
        [each.at for each in tested],
        {name: np.array([row[name] for row in rows]) for name in rows[0]},
        clusters=[keys[each.context] for each in tested],
        groups={
            "question": [_word(each.question) for each in tested],
            "answer": [_length(each) for each in tested],
        },
    )


def _word(question: str) -> str:
    """Return the first question word."""
    return next((word for word in re.findall(r"\w+", question.lower()) if word in WORDS), OTHER)


def _length(question: Question) -> str:
    """Return the group of the first right answer by its number of words."""
    return length_bands.of_text(question.answers[0].text) if question.answers else UNANSWERED


def evaluate(
    model: nn.Module, predictions: Iterable[Batch], prepared: Prepared, out: Path, params: QuestionParams
) -> dict[str, float]:
    """Compute metrics; write plots of the results by group and of no answer, all answers and the worst mistakes.

    Args:
        model: The network, which has the threshold.
        predictions: From `train.predict`, in the split's order.
        prepared: The prepared data of the predictions.
        out: Gets plots/{by_group,reliability,no_answer}.png and examples/{predictions.csv,squad.json,worst.json}.
        params: Unused.
    """
    assert isinstance(model, Reader), "its threshold is drawn"
    note, facts = prepared.manifest.note, _facts(prepared.manifest)
    given = _given(predictions, prepared)
    table = _outcomes([_Answered(each.text, each.no_answer) for each in given], prepared)
    every = np.ones(len(given))
    groups = {name: _by_group(table, name) for name in table.groups}
    figures.save(pictures.by_group(groups), out / "plots" / "by_group.png", note)
    tested = questions_of_test(prepared.folder)
    references = [[each.text for each in question.answers] for question in tested]
    best = [squad.exact(each.best, own) for each, own in zip(given, references, strict=True)]
    sure = np.array([each.score for each in given])
    figures.save(figures.reliability(sure, np.array(best) == 1), out / "plots" / "reliability.png", note)
    if facts.unanswerable["test"] and facts.abstains:
        answered = np.array([squad.f1(each.best, own) for each, own in zip(given, references, strict=True)])
        drawn = pictures.no_answer(table.columns[ABSTAINING], table.columns[ANSWERABLE] == 1, answered)
        figures.save(drawn, out / "plots" / "no_answer.png", note)
    _write(tested, given, table, out / "examples")
    measured = (score(prepared.manifest), *further_scores(prepared.manifest))
    metrics = {each.name: each.of(table.columns, every) for each in measured}
    metrics |= {f"f1_of_{rule}": _mean(table.columns, every, f"f1_of_{rule}") for rule in _RULES}
    if facts.unanswerable["test"]:
        abstained = np.array([not each.text for each in given], np.float64)
        metrics |= _no_answer(abstained, 1 - table.columns[ANSWERABLE])
    for bars in groups.values():
        metrics |= {f"f1/{name}": bar.f1 for name, bar in bars.items()}
        metrics |= {f"exact_match/{name}": bar.exact for name, bar in bars.items()}
    return metrics


def _no_answer(abstained: Floats, right: Floats) -> dict[str, float]:
    """Return precision and recall of saying that there is no answer; precision is 0 where that is never said."""
    both = float(abstained @ right)
    return {
        "no_answer_precision": both / max(float(abstained.sum()), 1.0),
        "no_answer_recall": both / float(right.sum()),
    }


def _by_group(table: Outcomes, kind: str) -> dict[str, pictures.Bar]:
    """Return the number of questions of each group and their scores, in the order of groups."""
    names = np.array(table.groups[kind])
    found = {}
    for name in (*WORDS, OTHER, *length_bands.NAMES, UNANSWERED):
        own = (names == name).astype(np.float64)
        if own.any():
            found[name] = pictures.Bar(
                int(own.sum()), _mean(table.columns, own, F1), _mean(table.columns, own, EXACT)
            )
    return found


def _write(tested: Sequence[Question], given: Sequence[spans.Given], table: Outcomes, folder: Path) -> None:
    """Write all answers, also in the format of SQuAD's official scripts, and the most confident wrong ones."""
    rows = [
        {
            "at": question.at,
            "question": question.question,
            "answer": each.text,
            "start": each.start,
            "right": " | ".join(answer.text for answer in question.answers),
            "f1": round(float(table.columns[F1][number]), 4),
            "exact": int(table.columns[EXACT][number]),
            "score": round(each.score, 6),
            "no_answer": round(max(each.no_answer, _ALWAYS), 6),
        }
        for number, (question, each) in enumerate(zip(tested, given, strict=True))
    ]
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    named = {question.at.partition(":")[2]: each.text for question, each in zip(tested, given, strict=True)}
    write_json(folder / "squad.json", named)
    order = np.lexsort((-np.array([each.score for each in given]), table.columns[F1]))[:LISTED].tolist()
    worst = [rows[index] | {"context": tested[index].context} for index in order if table.columns[F1][index] < 1]
    write_json(folder / "worst.json", worst)
