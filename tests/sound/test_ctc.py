"""The loss is torch's, without its waits; paths, errors and alignments are those of brute force."""

from itertools import groupby, product

import pytest
import torch
import torch.nn.functional as F

from components.sound import ctc
from components.text.measures import edits

BLANK = 4


def batch(seed: int = 0, steps: int = 9):
    torch.manual_seed(seed)
    log_probs = (2 * torch.randn(4, steps, 5)).log_softmax(2).requires_grad_()
    frames = torch.tensor([9, 7, 5, 9])
    target = torch.tensor([[0, 0, 1], [2, 3, 0], [1, 0, 0], [0, 0, 0]])
    return log_probs, frames, target, torch.tensor([3, 2, 1, 0])


def test_losses_and_gradients_are_those_of_torch():
    log_probs, frames, target, length = batch()
    own = ctc.loss(log_probs, frames, target, length, BLANK)
    (gradient,) = torch.autograd.grad(own.sum(), log_probs)
    theirs = F.ctc_loss(
        log_probs.transpose(0, 1), target, frames, length, BLANK, reduction="none", zero_infinity=True
    )
    torch.testing.assert_close(own, theirs)
    # torch's gradient takes the probabilities for normalised, so that it is compared before log_softmax.
    logits = torch.randn(4, 9, 5, requires_grad=True)
    both = []
    for function in (
        lambda x: ctc.loss(x, frames, target, length, BLANK),
        lambda x: F.ctc_loss(x.transpose(0, 1), target, frames, length, BLANK, reduction="none"),
    ):
        (found,) = torch.autograd.grad(function(logits.log_softmax(2)).sum(), logits)
        both.append(found)
    torch.testing.assert_close(*both, atol=1e-5, rtol=1e-4)
    assert gradient.isfinite().all()


def test_a_text_that_needs_more_frames_than_there_are_has_no_loss_and_no_gradient():
    log_probs = torch.randn(1, 3, 5).log_softmax(2).requires_grad_()
    target = torch.tensor([[1, 1]])
    assert ctc.least_frames([1, 1]) == 3
    for frames, possible in ((3, True), (2, False)):
        loss = ctc.loss(log_probs, torch.tensor([frames]), target, torch.tensor([2]), BLANK)
        (gradient,) = torch.autograd.grad(loss.sum(), log_probs)
        assert (loss.item() > 0) == possible
        assert bool(gradient.abs().sum() > 0) == possible
        assert gradient.isfinite().all()


def test_what_follows_the_last_frame_and_the_last_token_changes_nothing():
    log_probs, frames, target, length = batch()
    changed = log_probs.detach().clone()
    changed[1, 7:], changed[2, 5:] = torch.randn(2, 5), torch.randn(4, 5)
    other = target.clone()
    other[1, 2], other[2, 1:] = 3, 2
    before = ctc.loss(log_probs, frames, target, length, BLANK)
    torch.testing.assert_close(ctc.loss(changed, frames, other, length, BLANK), before)
    torch.testing.assert_close(
        ctc.errors(changed, frames, other, length, BLANK), ctc.errors(log_probs, frames, target, length, BLANK)
    )
    assert ctc.greedy(changed, frames, BLANK) == ctc.greedy(log_probs, frames, BLANK)


def collapsed(path) -> list[int]:
    return [token for token, _ in groupby(path) if token != BLANK]


def test_the_likeliest_path_becomes_a_text_without_repeats_and_blanks():
    log_probs, frames, *_ = batch(3)
    expected = [collapsed(row[:length].argmax(1).tolist()) for row, length in zip(log_probs, frames, strict=True)]
    assert ctc.greedy(log_probs, frames, BLANK) == expected
    path = torch.tensor([0, 0, BLANK, 0, 1, 1, BLANK, BLANK, 2])
    assert ctc.greedy(F.one_hot(path, 5)[None].float(), torch.tensor([9]), BLANK) == [[0, 0, 1, 2]]


@pytest.mark.parametrize("seed", range(5))
def test_errors_are_the_edits_between_the_likeliest_path_and_the_target(seed):
    log_probs, frames, target, length = batch(seed)
    expected = [
        sum(edits.counts(own[:most], found))
        for own, most, found in zip(target.tolist(), length, ctc.greedy(log_probs, frames, BLANK), strict=True)
    ]
    assert ctc.errors(log_probs, frames, target, length, BLANK).tolist() == expected


@pytest.mark.parametrize("tokens", [[0, 1], [1, 1], [2], [0, 1, 0]])
def test_an_alignment_is_the_likeliest_path_of_its_text(tokens):
    torch.manual_seed(0)
    log_probs = torch.randn(5, 5).log_softmax(1)
    spans, scores = ctc.align(log_probs, tokens, BLANK)
    paths = [path for path in product(range(5), repeat=5) if collapsed(path) == tokens]
    best = max(paths, key=lambda path: sum(log_probs[t, token] for t, token in enumerate(path)))
    assert sum(scores) == pytest.approx(float(sum(log_probs[t, token] for t, token in enumerate(best))), abs=1e-5)
    for token, span in zip(tokens, spans, strict=True):
        assert {best[frame] for frame in range(span.first, span.last + 1)} == {token}


def test_the_alignment_of_no_text_is_all_blanks():
    log_probs = torch.randn(4, 5).log_softmax(1)
    assert ctc.align(log_probs, [], BLANK) == ([], log_probs[:, BLANK].tolist())
