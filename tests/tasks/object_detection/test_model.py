"""The detector: padding, sizes and starting from published weights; and its training step."""

from pathlib import Path

import pytest
import torch

from components.params import INIT
from components.tasks.object_detection import TASK, train
from components.tasks.object_detection import model as networks
from components.tasks.object_detection.prepare import load_split
from tests.tasks.object_detection import tiny
from tests.tasks.object_detection.values import prepared, values

SMALL = {"train": {"model": {"width": 0.125, "neck": 16}}}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    tiny.write(folder / "raw", {"train": 12, "val": 4, "test": 4})
    return prepared(folder / "raw", folder / "out")


def built(scenes, **changes):
    torch.manual_seed(0)
    params = values(**(SMALL | changes))
    return params, networks.build_model(params, scenes.manifest)


def batch_of(scenes, split="train", count=4):
    return load_split(scenes.folder, split).__getitems__(torch.arange(count))


@pytest.mark.parametrize("shape", [(33, 47), (128, 96)])
@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v2"])
def test_images_of_any_size_have_a_cell_for_every_four_pixels(scenes, shape, network):
    _, model = built(scenes, train={"model": {"network": network, "width": 0.125, "neck": 16}})
    size = torch.tensor([shape] * 2)
    logits, sides = model.eval()(torch.zeros(2, 3, *shape, dtype=torch.uint8), size)
    rows, columns = (-(-side // 4) for side in shape)
    assert logits.shape == (2, 10, rows, columns)
    assert sides.shape == (2, 4, rows, columns)
    assert sides.min() > 0


def test_before_training_each_class_is_found_nowhere_in_particular(scenes):
    _, model = built(scenes)
    logits, _ = model.eval()(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.tensor([[64, 64]]))
    assert float(logits.detach().sigmoid().mean()) == pytest.approx(networks.PRIOR, abs=0.02)


def test_validation_batches_have_images_of_one_size_in_the_order_of_the_split():
    from components.datasets.ragged import Ragged
    from components.datasets.splits import Columns

    shapes = torch.tensor([[4, 4], [4, 4], [4, 4], [4, 8], [4, 4]])
    counts = shapes.prod(1)
    image = Ragged(torch.zeros(int(counts.sum()), 3), shapes, counts.cumsum(0) - counts)
    batches = train.eval_batches(Columns({"number": torch.arange(5)}, {"image": image}), 2)
    assert [batches[index]["number"].tolist() for index in range(len(batches))] == [[0, 1], [2], [3], [4]]


def test_a_step_counts_boxes_and_only_validation_decodes(scenes):
    params, model = built(scenes)
    batch = batch_of(scenes)
    trained = train.step(model.train(), batch, params)
    assert int(trained.count) == int(batch["boxes_length"].sum())
    assert set(trained.sums) == {"heat_loss", "class_loss", "box_loss"}
    with torch.inference_mode():
        validated = train.step(model.eval(), batch, params)
    assert validated.sums["histogram"].shape == (10, 3, train.BINS)
    assert validated.sums["histogram"][:, 2].sum() == int(batch["boxes_length"].sum())


def test_binned_average_precision_is_nearly_the_exact_one():
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(1, 3, train.BINS, dtype=torch.float64)
    counts[0, 0, -40:] = 1
    counts[0, 1, :60] = torch.randint(3, (60,), generator=generator).double()
    counts[0, 2, 0] = 50
    found = train.metrics(
        {
            "loss": torch.tensor(1.0),
            "class_loss": torch.tensor(1.0),
            "heat_loss": torch.tensor(0.0),
            "box_loss": torch.tensor(0.0),
            "histogram": counts,
        },
        1,
    )
    assert found["map50"] == pytest.approx(81 / 101, abs=0.01), "40 of 50 objects are found before anything wrong"


def test_augmentation_keeps_the_names_and_types_that_a_step_needs(scenes):
    params, model = built(scenes, train=tiny.VARIANTS["turned"]["train"] | {"model": SMALL["train"]["model"]})
    torch.manual_seed(0)
    batch = batch_of(scenes)
    changed = train.augment(batch, params)
    assert changed.keys() == batch.keys()
    assert changed["image"].shape == batch["image"].shape
    assert changed["boxes"].shape == batch["boxes"].shape
    assert train.step(model.train(), changed, params).loss.isfinite()


def test_predictions_are_sorted_padded_to_a_hundred_and_inside_the_image(scenes):
    params, model = built(scenes)
    with torch.inference_mode():
        found = train.predict(model.eval(), batch_of(scenes, "test"), params)
    assert found["boxes"].shape == (4, 100, 4)
    assert (found["score"].diff(dim=1) <= 0).all()
    assert found["boxes"].min() >= 0
    assert found["boxes"].max() <= 128


def test_training_ends_with_the_threshold_of_each_class_that_counts_the_validation_split_best(scenes):
    params, model = built(scenes)
    assert model.get_buffer("threshold").tolist() == [0.5] * 10
    score = torch.tensor([[0.9, 0.8, 0.3, 0.0], [0.7, 0.4, 0.0, 0.0]])
    objects = torch.zeros(2, 10, dtype=torch.int64)
    objects[:, 3] = torch.tensor([2, 1])
    predictions = {"score": score, "label": torch.full((2, 4), 3), "objects": objects}
    TASK.calibrate(model, iter([predictions]), params)
    assert model.state_dict()["threshold"][3] == pytest.approx(0.55, abs=0.02)
    assert model.get_buffer("threshold")[0] == 0.5, "of a class that validation does not have"


def test_predictions_have_the_true_number_of_objects_of_each_class_without_padding_and_crowds(scenes):
    params, model = built(scenes)
    boxes = torch.zeros(2, 3, 6)
    boxes[..., 4] = torch.tensor([[1, 1, 2], [2, 0, 0]])
    boxes[0, 1, 5] = 1
    batch = batch_of(scenes, count=2) | {"boxes": boxes, "boxes_length": torch.tensor([3, 1])}
    with torch.inference_mode():
        found = train.predict(model.eval(), batch, params)["objects"]
    assert found[:, :3].tolist() == [[0, 1, 1], [0, 0, 1]]
    assert found.sum() == 3


def test_the_encoder_starts_from_weights_as_torchvision_publishes_them(scenes, tmp_path: Path):
    from torchvision.models import mobilenet_v2, resnet18

    for name, published in (("resnet18", resnet18), ("mobilenet_v2", mobilenet_v2)):
        file = tmp_path / f"{name}.pth"
        torch.save(published(weights=None).state_dict(), file)
        params, model = built(scenes, train={"model": {"network": name, "width": 1.0, "neck": 16}})
        before = model.get_submodule("head").state_dict()["heat.weight"].clone()
        loaded = networks.initialise(model, load_split(scenes.folder, "train"), params, {INIT: file})
        assert loaded == {f"network.{key}" for key, _ in model.get_submodule("network").named_parameters()}
        assert torch.equal(model.get_submodule("head").state_dict()["heat.weight"], before)
