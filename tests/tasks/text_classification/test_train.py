"""The loss is a classifier's, of one label or of several, weighted if asked for."""

import pytest
import torch
import torch.nn.functional as F

from components.contracts import Batch, Shard
from components.datasets.splits import Columns
from components.tasks.text_classification import train
from tests.tasks.text_classification.test_model import batch as tokens
from tests.tasks.text_classification.test_model import build
from tests.tasks.text_classification.values import values


def batch(label: list[object], dtype: torch.dtype = torch.int64) -> Batch:
    token, length, first = tokens()
    return {
        "token": token.int(),
        "token_length": length,
        "first": first,
        "label": torch.tensor(label, dtype=dtype),
    }


def test_the_loss_is_the_sum_over_texts_and_labels_are_smoothed_in_training_alone():
    model, given = build("cnn"), batch([0, 1, 2, 0])
    params = values(train={"label_smoothing": 0.2})
    logits = train.logits(model, given)
    found = train.step(model, given, params)
    assert found.loss.item() == pytest.approx(F.cross_entropy(logits, given["label"], reduction="sum").item())
    assert found.count == 4
    assert found.sums["accuracy"].item() == (logits.argmax(1) == given["label"]).sum()
    smooth = F.cross_entropy(logits, given["label"], reduction="sum", label_smoothing=0.2)
    assert train.step(model.train(), given, params).loss.item() == pytest.approx(smooth.item())


def test_each_of_several_labels_has_a_probability_of_its_own():
    model = build("cnn", several=True)
    given = batch([[1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1]], torch.uint8)
    logits = train.logits(model, given)
    expected = F.binary_cross_entropy_with_logits(logits, given["label"].float(), reduction="none").mean(1).sum()
    assert train.step(model, given, values()).loss.item() == pytest.approx(expected.item())
    found = train.predict(model, given, values())
    assert found["threshold"].tolist() == [[0.5] * 3] * 4


def test_thresholds_of_several_labels_are_chosen_on_validation():
    model = build("cnn", several=True)
    logits = torch.tensor([[-3.0, 2.0, 0.0], [-2.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    label = torch.tensor([[0, 1, 0], [1, 1, 0], [1, 0, 0]], dtype=torch.uint8)
    train.calibrate(model, [{"logits": logits, "label": label}], values())
    first, second, third = model.decision.threshold.tolist()
    assert torch.tensor([-3.0]).sigmoid() < first < torch.tensor([-2.0]).sigmoid()
    assert 0.5 < second < torch.tensor([1.0]).sigmoid()
    assert third == 0.5
    one_label = build("cnn")
    train.calibrate(one_label, [], values())


def test_with_balanced_weights_all_classes_count_equally():
    label = torch.tensor([0, 0, 0, 1])
    split = Columns({"label": label, "first": torch.ones(4, dtype=torch.int64)})
    params = values(train={"class_weights": "balanced", "batch_size": 4})
    found = train.batches(split, params, Shard())[0]
    by_class = [found["weight"][found["label"] == index].sum().item() for index in (0, 1)]
    assert by_class == pytest.approx([2, 2])
    assert "weight" not in train.batches(split, values(train={"batch_size": 4}), Shard())[0]
