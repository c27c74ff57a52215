import pytest
import torch

from components.tasks.image_generation.model import NO_CLASS, weights
from components.tasks.image_generation.params import SamplingParams
from components.tasks.image_generation.sampling import TOGETHER, between, noise, sample
from tests.tasks.image_generation.values import SIZE, network

SHAPE = (1, SIZE, SIZE)
MODEL = network()


def settings(sampler="euler", steps=2, guidance=1.0):
    return SamplingParams(sampler=sampler, steps=steps, guidance=guidance)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_an_image_has_the_same_pixels_whatever_is_sampled_beside_it(memory, guidance):
    model = network().to(memory_format=memory)
    label, chosen = torch.arange(TOGETHER + 9) % 3, settings("heun", 3, guidance)
    start = noise(range(TOGETHER + 9), SHAPE)
    images = sample(model, start, label, chosen)
    assert len(images.unique(dim=0)) == len(images)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    assert torch.equal(sample(model, start[order], label[order], chosen), images[order])
    for index in (0, 7, TOGETHER, TOGETHER + 8):
        assert torch.equal(sample(model, start[[index]], label[[index]], chosen)[0], images[index])


def test_noise_depends_on_its_own_seed_alone_and_is_normal():
    many = noise(range(40), (3, 32, 32))
    assert torch.equal(noise([7], (3, 32, 32))[0], many[7])
    assert many.mean().item() == pytest.approx(0, abs=0.01)
    assert many.std().item() == pytest.approx(1, abs=0.01)


class Straight(torch.nn.Module):
    """The velocity of the straight lines to one image for each class: any number of steps leads there."""

    def __init__(self):
        super().__init__()
        self.target = torch.nn.Parameter(torch.tensor([-0.5, 0.5, 0.0]))  # the last: without a class

    def forward(self, x, time, label):
        target = (weights(label, 2) @ self.target)[:, None, None, None]
        return (target - x) / (1 - time).clamp(min=1e-6)[:, None, None, None]


@pytest.mark.parametrize(("sampler", "steps"), [("euler", 1), ("euler", 7), ("heun", 5)])
def test_straight_lines_are_followed_to_their_end(sampler, steps):
    images = sample(Straight(), noise([0, 1], SHAPE), torch.tensor([0, 1]), settings(sampler, steps))
    assert images[0].unique().tolist() == [64]
    assert images[1].unique().tolist() == [191]


def test_guidance_of_1_is_the_class_0_is_none_and_2_goes_beyond_the_class():
    grey = [
        sample(Straight(), noise([0], SHAPE), torch.tensor([1]), settings(steps=1, guidance=g)).unique().tolist()
        for g in (0.0, 1.0, 1.5, 100.0)
    ]
    assert grey == [[128], [191], [223], [255]]


def test_the_curve_of_a_velocity_that_changes_with_time_is_followed_better_by_heun():
    class Faster(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one = torch.nn.Parameter(torch.ones(1))

        def forward(self, x, time, label):
            return torch.ones_like(x) * time[:, None, None, None] * 2  # from 0 to 1 in all

    start = torch.full((1, *SHAPE), -0.5)
    ends = {
        sampler: sample(Faster(), start, torch.tensor([0]), settings(sampler, 4)).unique().tolist()
        for sampler in ("euler", "heun")
    }
    assert ends == {"euler": [159], "heun": [183]}  # 191 is exact


def test_no_class_is_a_class_of_its_own_and_a_mixture_of_one_is_that_class():
    x, time = noise([0, 1], SHAPE), torch.tensor([0.5, 0.5])
    with torch.inference_mode():
        of_class, of_none = (MODEL(x, time, torch.tensor([label, label])) for label in (1, NO_CLASS))
        mixed = MODEL(x, time, torch.tensor([[0.0, 1, 0, 0], [0, 0, 0, 1]]))
    assert not torch.equal(of_class, of_none)
    torch.testing.assert_close(mixed, torch.stack([of_class[0], of_none[1]]))


def test_steps_between_two_noises_have_their_norm_and_begin_and_end_with_them():
    first, last = noise([0, 1], SHAPE)
    steps = between(first, last, 5)
    torch.testing.assert_close(steps[0], first)
    torch.testing.assert_close(steps[4], last)
    assert steps.flatten(1).norm(dim=1).tolist() == pytest.approx([28] * 5, rel=0.05)
