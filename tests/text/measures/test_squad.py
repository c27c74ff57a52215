"""Exact match and F1 are those of SQuAD's official scripts."""

import random

import pytest
from torchmetrics.functional.text import squad as reference

from components.text.measures import squad

WORDS = ("the", "a", "An", "Norman", "kings", "kings,", "U.S.", "(1066)", "x-ray", "10th", "и", "é", "of")


def drawn(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 6))) for _ in range(count)]


def test_answers_score_what_they_do_in_torchmetrics():
    answers, references = drawn(200, 0), [drawn(1 + number % 3, number + 1) for number in range(200)]
    for answer, own in zip(answers, references, strict=True):
        predicted = [{"prediction_text": answer, "id": "1"}]
        target = [{"answers": {"answer_start": [0] * len(own), "text": own}, "id": "1"}]
        expected = reference(predicted, target)
        if any(squad.normalised(each) for each in own) and squad.normalised(answer):
            assert 100 * squad.f1(answer, own) == pytest.approx(expected["f1"].item(), abs=1e-4)
            assert 100 * squad.exact(answer, own) == expected["exact_match"].item()


@pytest.mark.parametrize(
    ("answer", "references", "exact", "f1"),
    [
        ("The Norman kings!", ["norman kings"], 1, 1),
        ("Norman kings of old", ["a Norman king", "kings"], 0, 0.4),
        ("kings kings", ["kings"], 0, 2 / 3),
        ("", ["kings"], 0, 0),
        ("", [], 1, 1),
        ("kings", [], 0, 0),
        ("the", [], 1, 1),  # as in the official script: nothing remains of an article
    ],
)
def test_the_best_reference_counts_and_no_answer_is_right_where_there_is_none(answer, references, exact, f1):
    assert squad.exact(answer, references) == exact
    assert squad.f1(answer, references) == pytest.approx(f1)
