"""Targets, losses and detections of a detector, and augmentation of images with their boxes."""

import pytest
import torch
from torchvision.ops import generalized_box_iou

from components.images import box_augment, box_targets

STRIDE = 4


def batch_of(*rows):
    """Return boxes (1, M, 6) and their number."""
    return torch.tensor([rows], dtype=torch.float32).reshape(1, -1, 6), torch.tensor([len(rows)])


def targets(*rows, classes=2, shape=(16, 16)):
    return box_targets.targets(*batch_of(*rows), classes, shape, STRIDE)


def test_the_target_of_a_box_is_one_at_its_centre_and_falls_with_its_size():
    found = targets((0, 0, 60, 20, 1, 0))
    assert found.heat[0, 1].max() == found.heat[0, 1, 2, 7] == 1
    assert (found.heat == 1).sum() == 1
    assert found.heat[0, 0].max() == 0
    assert found.heat[0, 1, 2, 9] > found.heat[0, 1, 4, 7], "the box is wider than high"
    assert found.weight.sum() == pytest.approx(1)
    assert found.boxes[0, :, 2, 7].tolist() == [0, 0, 60, 20]
    assert found.number == 1


def test_where_boxes_overlap_a_cell_belongs_to_the_smallest_and_each_box_weighs_one():
    found = targets((0, 0, 64, 64, 0, 0), (28, 28, 36, 36, 0, 0))
    assert found.boxes[0, :, 8, 8].tolist() == [28, 28, 36, 36]
    assert found.boxes[0, :, 6, 6].tolist() == [0, 0, 64, 64]
    assert found.weight.sum() == pytest.approx(2)


def test_a_crowd_region_is_no_target_and_its_cells_do_not_count_but_for_objects_in_it():
    found = targets((0, 0, 40, 40, 0, 1), (16, 16, 24, 24, 1, 0))
    assert found.number == 1
    assert found.heat[0, 0].max() == 0
    assert not found.valid[0, 0, 0]
    assert found.valid[0, 5, 5]
    assert found.valid[0, 12, 12]


def test_a_batch_without_boxes_has_a_loss_of_the_background_alone():
    found = box_targets.targets(torch.zeros(2, 0, 6), torch.zeros(2, dtype=torch.int64), 2, (4, 4), STRIDE)
    assert found.number == 0
    logits = torch.zeros(2, 2, 4, 4, requires_grad=True)
    loss = box_targets.focal(logits, found.heat, found.valid) + box_targets.giou(
        torch.ones(2, 4, 4, 4), found, STRIDE
    )
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert (logits.grad > 0).all()


def test_the_loss_is_least_for_outputs_that_are_the_targets():
    found = targets((3, 5, 43, 29, 0, 0), (40, 40, 56, 60, 1, 0))
    rows = (torch.arange(16) + 0.5) * STRIDE
    x, y = rows.expand(16, 16), rows[:, None].expand(16, 16)
    left, top, right, bottom = found.boxes[0]
    sides = torch.stack([x - left, y - top, right - x, bottom - y])[None]
    assert box_targets.giou(sides, found, STRIDE) == pytest.approx(0, abs=1e-4)
    assert box_targets.giou(sides * 1.2, found, STRIDE) > 0.1
    right_logits = torch.where(found.heat == 1, 9.0, -9.0)
    assert box_targets.focal(right_logits, found.heat, found.valid) < 0.01
    assert box_targets.focal(-right_logits, found.heat, found.valid) > 10


def test_the_generalized_iou_is_that_of_torchvision():
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.rand(50, 4, generator=generator).cumsum(1)[:, [0, 1, 2, 3]] for _ in range(2))
    expected = generalized_box_iou(one, other).diagonal()
    assert torch.allclose(box_targets.generalized_iou(one, other), expected, atol=1e-5)


def test_boxes_are_detected_at_the_peaks_inside_the_image_and_end_at_its_edges():
    logits = torch.full((1, 2, 8, 8), -5.0)
    logits[0, 1, 2, 2], logits[0, 1, 2, 3], logits[0, 0, 6, 1], logits[0, 0, 7, 7] = 3, 2, 1, 4
    sides = torch.full((1, 4, 8, 8), 12.0)
    size = torch.tensor([[28, 28]])
    within = torch.ones(1, 8, 8, dtype=torch.bool)
    within[0, 7], within[0, :, 7] = False, False
    found = box_targets.detect(logits, sides, size, within, 5, STRIDE)
    assert found.label[0, :2].tolist() == [1, 0]
    assert found.score[0, :2].tolist() == pytest.approx([0.9526, 0.7311], abs=1e-4)
    assert found.boxes[0, 0].tolist() == [0, 0, 22, 22]
    assert found.boxes[0, 1].tolist() == [0, 14, 18, 28]
    assert found.score[0, 2] < 0.01, "the neighbour of a peak is no peak, and padding is no image"


def marked(width=40, height=24):
    """Return an image whose only bright pixels are those of a box, and the box with another row of padding."""
    image = torch.zeros(1, 3, height, width)
    image[..., 4:12, 6:20] = 200
    return image, torch.tensor([[[6.0, 4, 20, 12, 1, 0], [0, 0, 0, 0, 0, 0]]]), torch.tensor([1])


def bright(image):
    """Return the box around bright pixels."""
    rows, columns = (image[0, 0] > 100).nonzero().unbind(1)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


@pytest.mark.parametrize("quarters", [0, 1, 2, 3, 4])
def test_turned_boxes_stay_on_their_objects(quarters):
    image, own, _ = marked()
    turned, found, size = box_augment.turn(image, own, torch.tensor([[24, 40]]), quarters)
    assert found[0, 0, :4].tolist() == bright(turned)
    assert size.tolist() == [list(turned.shape[2:])]


@pytest.mark.parametrize("seed", range(8))
def test_scaled_and_mirrored_boxes_stay_on_their_objects(seed):
    torch.manual_seed(seed)
    image, own, length = marked()
    moved, found = box_augment.scale_and_flip(image, own, length, 1.5, 0.5, 0.5)
    assert moved.shape == image.shape
    if not found[0, 0, 5]:
        assert found[0, 0, :4].tolist() == pytest.approx(bright(moved), abs=1.01)
    assert found[0, 0, 4] == 1


def test_without_a_factor_only_mirroring_changes_pixels_and_exactly():
    image, own, length = marked()
    same, found = box_augment.scale_and_flip(image, own, length, 1, 0, 0)
    assert torch.allclose(same, image, atol=1e-3)
    mirrored, there = box_augment.scale_and_flip(image, own, length, 1, 1, 0)
    assert torch.allclose(mirrored, image.flip(3), atol=1e-3)
    assert there[0, 0, :4].tolist() == [20, 4, 34, 12]
    assert found[0, 0].tolist() == own[0, 0].tolist()


def test_an_object_that_is_mostly_cut_off_becomes_a_region_that_is_not_learnt():
    image, own, length = marked()
    torch.manual_seed(0)
    for _ in range(60):
        _, found = box_augment.scale_and_flip(image, own, length, 4, 0, 0)
        left, top, right, bottom = found[0, 0, :4].tolist()
        assert 0 <= left <= right <= 40
        assert 0 <= top <= bottom <= 24
        if found[0, 0, 5]:
            return
    pytest.fail("no object was clipped")
