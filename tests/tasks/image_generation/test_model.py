import pytest
import torch

from tests.tasks.image_generation.values import network, values


@pytest.mark.parametrize(
    ("patch", "levels", "blocks", "size", "channels"), [(1, 3, 2, 30, 1), (2, 2, 1, 28, 3), (4, 1, 1, 33, 1)]
)
def test_the_velocity_has_the_shape_of_the_image_whatever_its_size(patch, levels, blocks, size, channels):
    chosen = values(train={"model": {"patch": patch, "width": 8, "levels": levels, "blocks": blocks}})
    model = network(chosen, channels, size)
    x = torch.randn(2, channels, size, size)
    assert model(x, torch.rand(2), torch.tensor([0, 1])).shape == x.shape


def test_each_sample_is_computed_by_itself_and_sees_all_of_its_image():
    model, x = network(), torch.randn(2, 1, 28, 28)
    time, label = torch.tensor([0.3, 0.6]), torch.tensor([0, 1])
    before = model(x, time, label)
    corner = x.clone()
    corner[1, :, 0, 0] += 1
    after = model(corner, time, label)
    torch.testing.assert_close(after[0], before[0])
    assert (after[1] != before[1]).float().mean() > 0.9, "attention reaches every pixel"
