"""Loss, accuracy and predictions of any classifier."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from components.classification.loss import balanced, outcome, predictions


def test_loss_and_correct_answers_are_summed_over_the_batch():
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0], [math.log(7), 0.0], [math.log(4), 0.0]])
    found = outcome(logits, {"label": torch.tensor([1, 0, 1, 0])}, 0)
    assert found.loss.item() == pytest.approx(math.log(4 / 3) + math.log(2) + math.log(8) + math.log(5 / 4))
    assert {name: float(each) for name, each in found.sums.items()} == {"accuracy": 3}
    assert found.count == 4


def test_the_loss_has_a_gradient_and_the_sums_are_detached_and_exact_enough_to_add_up():
    found = outcome(torch.randn(4, 10, requires_grad=True), {"label": torch.arange(4)}, 0)
    assert found.loss.requires_grad
    assert found.loss.ndim == 0
    for total in found.sums.values():
        assert (total.dtype, total.ndim, total.requires_grad) == (torch.float64, 0, False)


@pytest.mark.parametrize("smoothing", [0, 0.1])
def test_the_loss_of_mixed_samples_is_the_cross_entropy_with_their_mixed_labels(smoothing):
    logits, label, other, mix = torch.randn(64, 10), torch.arange(64) % 10, torch.arange(64) % 7, torch.rand(64)
    share = mix[:, None]
    target = share * F.one_hot(label, 10) + (1 - share) * F.one_hot(other, 10)
    found = outcome(logits, {"label": label, "label_mixed": other, "mix": mix}, smoothing)
    assert_close(found.loss, F.cross_entropy(logits, target, label_smoothing=smoothing, reduction="sum"))
    right = target[torch.arange(64), logits.argmax(1)].double().sum()
    assert_close(found.sums["accuracy"], right, rtol=1e-6, atol=1e-6)


def test_the_loss_of_logits_in_bf16_is_computed_in_float32():
    logits, batch = torch.randn(8, 10, dtype=torch.bfloat16), {"label": torch.arange(8)}
    found = outcome(logits, batch, 0)
    assert found.loss.dtype == torch.float32
    expected = F.cross_entropy(logits.float(), batch["label"], reduction="sum")
    assert_close(found.loss, expected, rtol=1e-6, atol=0)


def test_predictions_are_detached_float32_logits_with_their_labels():
    logits, label = torch.randn(4, 3, dtype=torch.bfloat16, requires_grad=True), torch.arange(4)
    found = predictions(logits, {"label": label, "image": torch.zeros(4)})
    assert sorted(found) == ["label", "logits"]
    assert (found["logits"].dtype, found["logits"].requires_grad) == (torch.float32, False)
    assert torch.equal(found["label"], label)


def test_the_loss_of_several_labels_is_the_mean_of_their_binary_cross_entropies():
    logits, label = torch.randn(8, 3), torch.tensor([[0, 1, 1]] * 8, dtype=torch.uint8)
    found = outcome(logits, {"label": label}, 0)
    expected = F.binary_cross_entropy_with_logits(logits, label.float(), reduction="none").mean(1).sum()
    assert_close(found.loss, expected)
    assert float(found.sums["accuracy"]) == pytest.approx(
        float(((logits > 0) == (label > 0)).float().mean(1).sum())
    )


def test_members_learn_from_their_own_logits_and_the_loss_is_the_mean_of_theirs():
    logits, batch = torch.randn(3, 8, 4, requires_grad=True), {"label": torch.arange(8) % 4}
    found = outcome(logits, batch, 0.1)
    alone = [outcome(each, batch, 0.1) for each in logits]
    assert_close(found.loss, torch.stack([each.loss for each in alone]).mean())
    assert float(found.sums["accuracy"]) == pytest.approx(
        sum(float(each.sums["accuracy"]) for each in alone) / 3, rel=1e-6
    )
    (gradient,) = torch.autograd.grad(found.loss, logits)
    (own,) = torch.autograd.grad(outcome(logits[1], batch, 0.1).loss, logits)
    assert_close(gradient[1], own[1] / 3)


def test_balanced_weights_make_classes_count_equally():
    label = torch.tensor([0] * 6 + [2] * 2)
    weight = balanced(label)
    assert weight.tolist() == pytest.approx([8 / 12] * 6 + [2.0] * 2)
    several = torch.tensor([[1, 0], [0, 0], [0, 0], [0, 1]], dtype=torch.uint8)
    assert_close(balanced(several), torch.tensor([[2, 2 / 3], [2 / 3, 2 / 3], [2 / 3, 2 / 3], [2 / 3, 2]]))
    assert balanced(torch.zeros(4, 1, dtype=torch.uint8)).isfinite().all()


def test_weights_multiply_the_loss_of_each_sample_or_label():
    logits, label, weight = torch.randn(8, 4), torch.arange(8) % 4, torch.rand(8)
    found = outcome(logits, {"label": label, "weight": weight}, 0)
    assert_close(found.loss, (weight * F.cross_entropy(logits, label, reduction="none")).sum())
    several, each = torch.ones(8, 4, dtype=torch.uint8), torch.rand(8, 4)
    found = outcome(logits, {"label": several, "weight": each}, 0)
    assert_close(found.loss, (each * F.softplus(-logits)).mean(1).sum())
