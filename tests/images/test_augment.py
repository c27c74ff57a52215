"""Images and their masks, changed at random in the same way."""

import pytest
import torch

from components.images.augment import recoloured, resampled

SIZES = torch.tensor([[40, 60], [64, 48]])


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Images with the number of each pixel's class in their first channel, padded with zeros."""
    torch.manual_seed(0)
    image, mask = torch.zeros(2, 64, 60, 3, dtype=torch.uint8), torch.zeros(2, 64, 60, dtype=torch.uint8)
    for number, (height, width) in enumerate(SIZES.tolist()):
        coarse = torch.randint(1, 6, (height // 8 + 1, width // 8 + 1))
        labels = coarse.repeat_interleave(8, 0).repeat_interleave(8, 1)[:height, :width]
        mask[number, :height, :width] = labels
        image[number, :height, :width] = 40 * labels[..., None]
    return image, mask


@pytest.mark.parametrize(("scale", "flip", "turns"), [(1, False, False), (1, True, True), (2, True, True)])
def test_the_mask_moves_with_the_image(scale, flip, turns):
    image, mask = resampled(*batch(), SIZES, 32, scale, flip, turns)
    assert image.shape == (2, 32, 32, 3)
    assert mask.dtype == torch.uint8
    agree = (image[..., 0] / 40).round() == mask
    assert agree.float().mean() > 0.85, "between classes, pixels are mixed"


def test_a_square_of_the_images_size_is_the_image():
    image, mask = batch()
    image, mask = image[:1, :40, :40], mask[:1, :40, :40]
    same, labels = resampled(image, mask, torch.tensor([[40, 40]]), 40, 1, False, False)
    torch.testing.assert_close(same, image.float(), atol=1e-2, rtol=0)
    assert torch.equal(labels, mask)


def test_a_larger_square_contains_the_image_and_has_no_class_beside_it():
    image, mask = batch()
    _, labels = resampled(image, mask, SIZES, 96, 1, False, False)
    for number, (height, width) in enumerate(SIZES.tolist()):
        assert (labels[number] > 0).sum() == height * width


def test_squares_stay_inside_images_that_are_large_enough():
    for _ in range(20):
        _, labels = resampled(*batch(), SIZES, 32, 1, True, True)
        assert (labels > 0).all()


def test_turns_and_mirroring_give_all_eight_positions():
    image, mask = torch.zeros(64, 8, 8, 3), torch.ones(64, 8, 8, dtype=torch.uint8)
    mask[:, 0, 1] = 2
    torch.manual_seed(0)
    _, labels = resampled(image, mask, torch.full((64, 2), 8), 8, 1, True, True)
    assert (labels == 2).flatten(1).sum(1).eq(1).all()
    places = {tuple(each.nonzero()[0].tolist()) for each in labels == 2}
    assert places == {(0, 1), (1, 0), (0, 6), (6, 0), (7, 1), (1, 7), (7, 6), (6, 7)}


def test_colours_change_within_bounds_and_differ_between_images():
    torch.manual_seed(0)
    image = torch.full((4, 5, 5, 3), 100.0)
    changed = recoloured(image, 0.2)
    assert changed.min() >= 79.9
    assert changed.max() <= 120.1
    assert len(changed[:, 0, 0, 0].unique()) == 4
    torch.testing.assert_close(recoloured(image, 0), image)
