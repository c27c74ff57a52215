"""The best answer of a question is the best of its windows, and no answer is said from a threshold on."""

import numpy as np
import pytest
import torch

from components.tasks.question_answering import spans


def logits(windows: int = 3, tokens: int = 9, first: int = 3) -> torch.Tensor:
    drawn = torch.randn(2, windows, tokens, generator=torch.Generator().manual_seed(0))
    drawn[:, :, 1:first] = -torch.inf
    return drawn


@pytest.mark.parametrize("longest", [1, 3, 20])
def test_the_best_answer_is_that_of_a_search_over_all_pairs_and_never_longer_than_allowed(longest):
    given = logits()
    found = spans.best(given, longest)
    for row in range(3):
        scored = {
            (start, end): (given[0, row, start] + given[1, row, end]).item()
            for start in range(3, 9)
            for end in range(start, min(start + longest, 9))
        }
        assert tuple(found["found"][row].tolist()) == max(scored, key=scored.__getitem__)
        assert found["score"][row].item() == pytest.approx(max(scored.values()))
        every = (given[0, row, :, None] + given[1, row]).flatten()
        assert found["normaliser"][row].item() == pytest.approx(every.logsumexp(0).item(), abs=1e-5)
        assert found["null"][row] == given[0, row, 0] + given[1, row, 0]


def test_the_several_best_answers_of_a_window_are_those_of_a_search_over_all_pairs():
    given = logits()
    found = spans.several(given, 2, 100)
    assert found["several"].shape == (3, 100, 2)
    for row in range(3):
        scored = {
            (start, end): (given[0, row, start] + given[1, row, end]).item()
            for start in range(3, 9)
            for end in range(start, min(start + 2, 9))
        }
        ranked = sorted(scored, key=scored.__getitem__, reverse=True)
        assert [tuple(each) for each in found["several"][row, : len(ranked)].tolist()] == ranked
        assert found["scores"][row, len(ranked) :].isinf().all()
    few = spans.several(given, 2, 3)
    assert torch.equal(few["several"], found["several"][:, :3])


def test_padding_changes_no_answer():
    given = logits()
    padded = torch.nn.functional.pad(given, (0, 4), value=-torch.inf)
    one, two = spans.best(given, 5), spans.best(padded, 5)
    assert torch.equal(one["found"], two["found"])
    torch.testing.assert_close(one["normaliser"], two["normaliser"])


def test_of_several_windows_the_best_answer_counts_and_of_no_answer_the_least():
    windows = {
        "found": torch.tensor([[3, 4], [5, 5], [4, 6]]),
        "score": torch.tensor([1.0, 3.0, 2.0]),
        "null": torch.tensor([2.5, 5.0, 1.0]),
        "normaliser": torch.tensor([4.0, 5.5, 3.0]),
    }
    chosen = spans.choose(windows, torch.tensor([0, 0, 1]))
    assert chosen.window.tolist() == [1, 2]
    assert chosen.found.tolist() == [[5, 5], [4, 6]]
    assert chosen.null == pytest.approx([2.5 - 3, 1.0 - 2])
    assert chosen.probability == pytest.approx([np.exp(3) / (np.exp(4) + np.exp(5.5)), np.exp(2 - 3)])


def test_the_threshold_is_the_best_of_all():
    draw = np.random.default_rng(0)
    answerable = draw.random(200) < 0.6
    null = np.round(draw.normal(np.where(answerable, -1, 1)), 1)  # with equal margins
    answered = np.where(answerable, draw.random(200), 0)
    abstained = (~answerable).astype(float)

    def mean(limit):
        return np.where(null <= limit, answered, abstained).mean()

    found = spans.threshold(null, answered, abstained)
    assert mean(found) == pytest.approx(max(mean(limit) for limit in np.arange(-6, 6, 0.05)))


@pytest.mark.parametrize(("answerable", "answers"), [(1.0, 3), (0.0, 0)])
def test_where_abstaining_never_helps_all_are_answered_and_else_none(answerable, answers):
    null = np.array([-1.0, 0.0, 4.0])
    found = spans.threshold(null, np.full(3, answerable), np.full(3, 1 - answerable))
    assert (null <= found).sum() == answers
