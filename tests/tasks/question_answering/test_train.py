"""The loss is that of both ends, and the threshold of no answer is chosen on validation."""

import pytest
import torch
import torch.nn.functional as F

from components.contracts import Batch
from components.tasks.question_answering import train
from tests.tasks.question_answering.test_model import batch as tokens
from tests.tasks.question_answering.test_model import build
from tests.tasks.question_answering.values import values


def batch() -> Batch:
    token, length, first = tokens()
    ends = {"start": torch.tensor([6, 0, 3]), "end": torch.tensor([8, 0, 3])}
    return {"token": token.int(), "token_length": length, "first": first, "question": torch.arange(3)} | ends


def test_the_loss_is_the_mean_of_both_ends_summed_over_windows():
    model, given = build("lstm"), batch()
    found = train.step(model, given, values())
    start, end = train.logits(model, given)
    expected = [
        F.cross_entropy(each, given[name], reduction="sum") for each, name in ((start, "start"), (end, "end"))
    ]
    assert found.loss.item() == pytest.approx(sum(each.item() for each in expected) / 2)
    assert found.count == 3
    right = (start.argmax(1) == given["start"]) & (end.argmax(1) == given["end"])
    assert found.sums["exact"].item() == right.sum()


def test_predictions_carry_the_threshold_of_a_network_that_has_one():
    found = train.predict(build("lstm"), batch(), values())
    assert found["threshold"].tolist() == [0, 0, 0]
    always = build("lstm", unanswerable={"train": 0, "val": 0, "test": 0})
    assert "threshold" not in train.predict(always, batch(), values())
    train.calibrate(always, [], values())


def test_the_threshold_is_chosen_so_that_questions_without_an_answer_have_none():
    model = build("lstm")
    windows = {
        "found": torch.tensor([[3, 4], [3, 4], [3, 4], [5, 6]]),
        "score": torch.tensor([1.0, 1.0, 1.0, 1.5]),
        "null": torch.tensor([-1.0, 2.0, 6.0, 4.5]),
        "normaliser": torch.full((4,), 9.0),
        "start": torch.tensor([3, 4, 0, 0]),
        "end": torch.tensor([4, 4, 0, 0]),
        "question": torch.tensor([0, 1, 2, 2]),
    }
    train.calibrate(model, [windows], values())
    # Margins are -2, 1 and, of the windows of the third question, 4.5 - 1.5 = 3.
    assert 1 < model.threshold.item() < 3


@pytest.mark.parametrize(
    ("found", "right", "expected"),
    [((3, 4), (3, 4), 1), ((3, 4), (4, 4), 2 / 3), ((3, 4), (5, 9), 0), ((2, 9), (4, 5), 0.4)],
)
def test_f1_over_tokens_is_that_of_the_shared_positions(found, right, expected):
    value = train._token_f1(torch.tensor([found]), torch.tensor([right]))
    assert value.item() == pytest.approx(expected)
