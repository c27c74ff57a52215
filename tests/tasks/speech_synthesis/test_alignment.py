"""The forward-sum loss adds up all monotonic paths, and the path is the likeliest of them."""

import itertools

import pytest
import torch
from torch import Tensor

from components.tasks.speech_synthesis import alignment

FRAMES, LENGTH = torch.tensor([9, 7, 5]), torch.tensor([4, 5, 5])


def scores() -> Tensor:
    torch.manual_seed(0)
    random = torch.randn(3, 9, 5)
    return torch.where(torch.arange(5) < LENGTH[:, None, None], random, alignment.IMPOSSIBLE).requires_grad_()


def paths(frames: int, length: int) -> list[list[int]]:
    """Return all paths in which each character has a frame or more, in order."""
    found = []
    for cuts in itertools.combinations(range(1, frames), length - 1):
        edges = [0, *cuts, frames]
        found.append([n for n in range(length) for _ in range(edges[n + 1] - edges[n])])
    return found


def all_of(own: Tensor, index: int) -> tuple[Tensor, list[list[int]]]:
    """Return the log-probability of each path of a recording, and the paths."""
    log_probs, found = own[index], paths(int(FRAMES[index]), int(LENGTH[index]))
    return torch.stack([log_probs[torch.arange(len(path)), path].sum() for path in found]), found


def test_the_loss_and_its_gradient_are_those_of_all_paths():
    own = scores()
    losses = alignment.forward_sum(own, FRAMES, LENGTH)
    expected = torch.stack([-all_of(own, index)[0].logsumexp(0) for index in range(3)])
    torch.testing.assert_close(losses, expected)
    (found,) = torch.autograd.grad(losses.sum(), own, retain_graph=True)
    (wanted,) = torch.autograd.grad(expected.sum(), own)
    torch.testing.assert_close(found, wanted)


def test_the_path_is_the_likeliest_of_all():
    own = scores()
    found = alignment.likeliest(own, FRAMES, LENGTH)
    for index in range(3):
        totals, every = all_of(own, index)
        assert found[index, : int(FRAMES[index])].tolist() == every[int(totals.argmax())]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_a_recordings_loss_depends_on_no_other_one(order):
    own = scores().detach()
    together = alignment.forward_sum(own[order], FRAMES[order], LENGTH[order])
    for place, index in enumerate(order):
        alone = own[index : index + 1, : int(FRAMES[index]), : int(LENGTH[index])]
        single = alignment.forward_sum(alone, FRAMES[index : index + 1], LENGTH[index : index + 1])
        torch.testing.assert_close(together[place : place + 1], single)


def test_a_frame_is_likeliest_at_the_character_whose_mean_it_is():
    torch.manual_seed(0)
    means = torch.randn(3, 5, 16)
    found = alignment.scores(means[:, [0, 1, 1, 2, 3, 3, 4, 4, 4]], means, FRAMES, LENGTH)
    assert found[0, :, :4].argmax(1).tolist()[:6] == [0, 1, 1, 2, 3, 3]
    assert (found[0, :, 4] == alignment.IMPOSSIBLE).all(), "padding"
    assert (found[1] > alignment.IMPOSSIBLE / 2).all()


def test_the_probabilities_of_the_characters_at_a_frame_add_up_to_one():
    shares, _ = alignment.posterior(scores().detach(), FRAMES, LENGTH)
    for index, frames in enumerate(FRAMES.tolist()):
        torch.testing.assert_close(shares[index, :frames].sum(1), torch.ones(frames))
        assert not shares[index, frames:].any()
