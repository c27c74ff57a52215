"""The loss counts labelled pixels; validation depends on neither batches nor padding; Dice and weights."""

import pytest
import torch
import torch.nn.functional as F
from torchmetrics.functional.classification import multiclass_jaccard_index

from components.contracts import Manifest
from components.tasks.segmentation import TASK
from components.tasks.segmentation.model import build_model, median_frequency
from components.tasks.segmentation.train import augment, confusion, in_cells, metrics, predict, soft_dice, step
from tests.tasks.segmentation.tiny import write
from tests.tasks.segmentation.values import prepared, values

FACTS = {
    "classes": ["background", "square", "disc"],
    "layout": "folders",
    "mean": [0.3] * 3,
    "std": [0.2] * 3,
    "pixels": {"train": [80, 15, 5]},
    "shares": [0.8, 0.1, 0.2],
    "cases": {},
    "group": "",
}


def network(**sections):
    torch.manual_seed(0)
    return build_model(values(**sections), Manifest(task="segmentation", splits={}, rejected=[], facts=FACTS))


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmentation")
    write(folder / "raw")
    return TASK.load_split(prepared(folder).folder, "val")


def test_the_loss_is_summed_over_labelled_pixels_alone(split):
    batch = augment(split.__getitems__(torch.arange(4)), values())
    model = network().train()
    output = step(model, batch, values())
    assert int(output.count) == int((batch["mask"] > 0).sum())
    more = {"image": F.pad(batch["image"], (0, 0, 0, 0, 0, 0, 0, 0)), "mask": batch["mask"].clone()}
    more["mask"][:, :4] = 0
    assert int(step(model, more, values()).count) < int(output.count)
    nothing = {"image": batch["image"], "mask": torch.zeros_like(batch["mask"])}
    empty = step(model, nothing, values())
    assert (float(empty.loss), int(empty.count)) == (0, 0)


def test_predictions_of_a_padded_batch_are_those_of_its_images_one_by_one(split):
    model = network().eval()
    whole = predict(model, split.__getitems__(torch.arange(5)), values())
    for number, (height, width) in enumerate(split.ragged["image"].shapes.tolist()):
        alone = predict(model, split.__getitems__(torch.tensor([number])), values())
        assert torch.equal(whole["label"][number, :height, :width], alone["label"][0])
        assert torch.equal(whole["confusion"][number], alone["confusion"][0])


def test_validation_counts_the_same_labelled_pixels_as_prediction(split):
    batch = split.__getitems__(torch.arange(5))
    output = step(network().eval(), batch, values())
    assert int(output.count) == int(output.sums["confusion"].sum()) == int((batch["mask"] > 0).sum())


def test_predictions_have_the_size_of_the_mask_even_if_the_image_was_made_smaller(tmp_path):
    write(tmp_path / "raw", test=3)
    done = prepared(tmp_path, prepare={"longest": 32})
    batch = TASK.load_split(done.folder, "test").__getitems__(torch.arange(3))
    found = predict(network().eval(), batch, values())
    assert found["label"].shape == batch["mask"].shape == (3, 64, 61)
    assert found["label"].dtype == torch.uint8
    for number in range(3):
        assert found["confusion"][number].sum() == (batch["mask"][number] > 0).sum()


def test_the_mean_iou_is_that_of_one_confusion_matrix_over_all_images():
    torch.manual_seed(0)
    target = torch.randint(-1, 4, (6, 20, 30))
    predicted = torch.where(torch.rand(6, 20, 30) < 0.6, target.clamp(min=0), torch.randint(0, 4, (6, 20, 30)))
    counts = sum(confusion(*pair, 4) for pair in zip(target, predicted, strict=True))
    found = metrics({"loss": torch.tensor(3.0), "confusion": counts.double()}, int((target >= 0).sum()))
    expected = multiclass_jaccard_index(predicted, target, 4, ignore_index=-1, average="macro")
    assert found["miou"] == pytest.approx(float(expected))
    assert found["pixel_accuracy"] == pytest.approx(float((predicted == target)[target >= 0].double().mean()))


def test_a_class_that_is_neither_true_nor_predicted_does_not_count():
    counts = torch.zeros(3, 3, dtype=torch.float64)
    counts[0, 0], counts[1, 0], counts[1, 1] = 6, 1, 1
    assert metrics({"loss": torch.tensor(0.0), "confusion": counts}, 8)["miou"] == pytest.approx(
        (6 / 7 + 1 / 2) / 2
    )


def test_median_frequency_weights_are_the_median_share_over_the_own_one():
    assert median_frequency([0.8, 0.1, 0.2, 0.0]) == pytest.approx([0.25, 2, 1, 1])
    assert network().class_weights.tolist() == [1, 1, 1]
    model = network(train={"loss": {"class_weights": "median_frequency"}})
    assert model.class_weights.tolist() == pytest.approx([0.25, 2, 1])
    assert "class_weights" not in model.state_dict()


def test_weights_change_the_share_of_each_class_in_the_loss(split):
    batch = augment(split.__getitems__(torch.arange(4)), values())
    model = network(train={"loss": {"class_weights": "median_frequency"}}).train()
    loss = step(model, batch, values()).loss
    maps, target = model(batch["image"].permute(0, 3, 1, 2)), batch["mask"].long() - 1
    weights, expected = torch.tensor([0.25, 2, 1]), 0
    for number, logits in enumerate(maps):
        side = 2 ** (number + 1)
        larger = logits.repeat_interleave(side, 2).repeat_interleave(side, 3)[
            ..., : target.shape[1], : target.shape[2]
        ]
        expected += 0.5**number * F.cross_entropy(larger, target, weights, reduction="sum", ignore_index=-1)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-2)


def test_the_pixels_of_each_class_in_a_cell_are_counted_and_those_without_a_class_are_not():
    mask = torch.tensor([[[1, 2, 3], [0, 2, 3], [1, 1, 1]]], dtype=torch.uint8)
    expected = torch.tensor([[[1, 0], [2, 1]], [[2, 0], [0, 0]], [[0, 2], [0, 0]]])
    assert in_cells(mask, 3).tolist() == [expected.float().tolist()]


def test_dice_is_0_loss_for_a_perfect_map_and_counts_labelled_pixels_alone():
    pixels = torch.tensor([[4.0, 0, 0, 0], [0, 2, 1, 0]]).view(1, 2, 2, 2)
    perfect = torch.tensor([[1.0, 0, 0, 1], [0, 1, 1, 0]]).view(1, 2, 2, 2)
    assert float(soft_dice(perfect, pixels)) == pytest.approx(1)
    assert float(soft_dice(1 - perfect, pixels)) < 0.5
    perfect[..., 1, 1] = torch.tensor([0.0, 1.0])
    assert float(soft_dice(perfect, pixels)) == pytest.approx(1)


def test_cropped_images_have_the_size_of_the_crop(split):
    batch = augment(split.__getitems__(torch.arange(3)), values(train={"crop": 40}))
    assert batch["image"].shape == (3, 40, 40, 3)
    assert batch["mask"].shape == (3, 40, 40)
