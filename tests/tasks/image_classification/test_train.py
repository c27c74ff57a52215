from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from components.contracts import Shard
from components.datasets.splits import Columns
from components.images.networks.normalize import Normalize
from components.images.networks.resnet import ResNet
from components.params import assignment, read, validate
from components.tasks.image_classification import TASK
from components.tasks.image_classification.params import VisionParams
from components.tasks.image_classification.train import augment, batches, predict, step
from components.training.sums import metrics_of

FILE = Path(__file__).parents[2] / "params.yaml"


def parameters(smoothing=0.1, **changes):
    values = read(FILE)
    wanted = {"crop": 0, "flip": "false", "mix": "none", "mix_alpha": 1} | changes
    settings = [f"train.augment.{key}={value}" for key, value in wanted.items()]
    for text in [*settings, f"train.label_smoothing={smoothing}"]:
        values = assignment(text, ("models", "digits")).over(values)
    return validate(VisionParams, values, ("models", "digits"))


def images(count, channels=3, size=8):
    """Images whose every pixel differs from its neighbours, so that a shift or a mirror image is seen."""
    generator = torch.Generator().manual_seed(count)
    shape = (count, channels, size, size)
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=generator)


def plain(count):
    """Image i has the value i everywhere and the label i, so that it is known wherever it shows."""
    image = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8).contiguous()
    return {"image": image, "label": torch.arange(count)}


def network(channels=3, classes=10):
    torch.manual_seed(0)
    normalize = Normalize([0.5] * channels, [0.25] * channels)
    return nn.Sequential(normalize, ResNet(18, channels, classes, width=0.125))


def labelled(count, classes=10, **shape):
    return {"image": images(count, **shape), "label": torch.arange(count) % classes}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_is_a_window_of_the_padded_image_and_every_window_is_drawn(channels, flip):
    pad, image = 2, images(1, channels)[0]
    batch = {"image": image.expand(2000, -1, -1, -1), "label": torch.zeros(2000, dtype=torch.int64)}
    torch.manual_seed(0)
    crops = augment(batch, parameters(crop=pad, flip=str(flip).lower()))["image"]
    seen = {crop.numpy().tobytes() for crop in crops}
    padded = F.pad(image, (pad,) * 4)
    windows = [padded[:, y : y + 8, x : x + 8] for y in range(5) for x in range(5)]
    allowed = {window.contiguous().numpy().tobytes() for window in windows}
    if flip:
        allowed |= {window.flip(2).contiguous().numpy().tobytes() for window in windows}
    assert len(allowed) == (50 if flip else 25)
    assert seen == allowed


def test_every_image_of_a_batch_is_cropped_from_itself():
    image = images(200)
    crops = augment({"image": image, "label": torch.arange(200)}, parameters(crop=2))["image"]
    for own, crop in zip(F.pad(image, (2,) * 4), crops, strict=True):
        windows = own.unfold(1, 8, 1).unfold(2, 8, 1).flatten(1, 2)  # (C, 25, H, W)
        assert (windows == crop[:, None]).all(dim=(0, 2, 3)).sum() == 1


def test_half_of_the_images_are_mirrored_and_the_rest_are_as_they_were():
    batch = labelled(1000)
    torch.manual_seed(0)
    flipped = augment(batch, parameters(flip="true"))["image"]
    same = (flipped == batch["image"]).all(dim=(1, 2, 3))
    mirrored = (flipped == batch["image"].flip(3)).all(dim=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 450 < mirrored.sum() < 550


def test_mirroring_that_alternates_shows_each_image_both_ways_in_two_epochs_whoever_the_worker():
    split, params = Columns(labelled(64)), parameters(flip="alternate")
    ways = {}
    for epoch, rank in ((0, 0), (0, 1), (1, 0), (1, 1)):
        for batch in batches(split, params, Shard(epoch, rank, 2)):
            seen = augment(batch, params)
            assert seen.keys() == {"image", "label"}
            for image in seen["image"]:
                own = [(split["image"] == way).all(dim=(1, 2, 3)).nonzero() for way in (image, image.flip(2))]
                ways.setdefault(epoch, {})[int(torch.cat(own))] = bool(len(own[1]))
    assert len(ways[0]) == len(ways[1]) == 64
    assert all(ways[0][i] != ways[1][i] for i in range(64))
    assert 16 < sum(ways[0].values()) < 48


def test_without_augmentation_the_batch_stays_as_it_is():
    batch = labelled(8)
    result = augment(batch, parameters())
    assert result.keys() == batch.keys()
    assert all(torch.equal(result[name], batch[name]) for name in batch)


EVERYTHING = [
    {"crop": 2, "flip": "true", "mix": "none"},
    {"crop": 2, "flip": "true", "mix": "mixup"},
    {"crop": 2, "flip": "true", "mix": "cutmix"},
]


@pytest.mark.parametrize("chosen", EVERYTHING)
def test_augmentation_leaves_the_given_tensors_alone(chosen):
    batch = labelled(64)
    before = {name: tensor.clone() for name, tensor in batch.items()}
    augment(batch, parameters(**chosen))
    assert batch.keys() == before.keys()
    assert all(torch.equal(batch[name], before[name]) for name in batch)


@pytest.mark.parametrize("chosen", EVERYTHING)
def test_the_seed_decides_the_augmentation_whatever_the_memory_format(chosen):
    batch, params = labelled(64), parameters(**chosen)
    other = {**batch, "image": batch["image"].contiguous(memory_format=torch.channels_last)}
    results = []
    for seed, given in [(1, batch), (1, other), (2, batch)]:
        torch.manual_seed(seed)
        results.append(augment(given, params))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    assert not torch.equal(results[0]["image"], results[2]["image"])


@pytest.mark.parametrize(
    ("mix", "dtype"), [("none", torch.uint8), ("cutmix", torch.uint8), ("mixup", torch.float32)]
)
def test_images_stay_bytes_as_long_as_they_are_not_blended(mix, dtype):
    result = augment(labelled(16), parameters(crop=2, flip="true", mix=mix))
    assert result["image"].dtype == dtype
    assert result["image"].shape == (16, 3, 8, 8)
    assert torch.equal(result["label"], labelled(16)["label"])


def test_mixup_blends_two_images_in_the_share_it_tells():
    result = augment(plain(256), parameters(mix="mixup"))
    own, other, share = result["label"], result["label_mixed"], result["mix"]
    expected = (share * own + (1 - share) * other)[:, None, None, None].expand(-1, 3, 8, 8)
    assert_close(result["image"], expected, rtol=1e-5, atol=1e-4)
    assert sorted(other.tolist()) == list(range(256))
    assert (own != other).sum() > 240


def test_cutmix_pastes_one_box_of_the_partner_and_tells_the_share_of_pixels_left():
    result = augment(plain(256), parameters(mix="cutmix"))
    for image, own, other, share in zip(
        result["image"], result["label"], result["label_mixed"], result["mix"], strict=True
    ):
        pasted = image == other
        assert ((image == own) | pasted).all()
        if own != other:
            rows, columns = pasted[0].any(1), pasted[0].any(0)
            assert torch.equal(pasted, (rows[:, None] & columns).expand(3, -1, -1))
            for line in (rows, columns):
                assert line.diff().sum() <= 2  # an unbroken stretch
            assert float(share) == pytest.approx(1 - float(pasted.float().mean()))
    assert len(result["mix"].unique()) > 20


def test_the_boxes_of_cutmix_have_the_papers_size():
    torch.manual_seed(0)
    batch = {"image": torch.zeros(4000, 1, 32, 32, dtype=torch.uint8), "label": torch.zeros(4000).long()}
    share = augment(batch, parameters(mix="cutmix"))["mix"]
    # A side s, its centre anywhere, covers s - s^2 / 4 on average; s^2 = 1 - lambda is uniform for alpha 1.
    expected = 1 - (1 / 2 - 1 / 5 + 1 / 48)
    assert float(share.mean()) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("alpha", [0.2, 1, 8])
def test_the_shares_of_mixup_follow_the_beta_distribution(alpha):
    torch.manual_seed(0)
    batch = {"image": torch.zeros(40_000, 1, 1, 1, dtype=torch.uint8), "label": torch.zeros(40_000).long()}
    share = augment(batch, parameters(mix="mixup", mix_alpha=alpha))["mix"]
    assert float(share.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(share.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_a_batch_of_one_image_is_mixed_with_itself(mix):
    batch = labelled(1)
    result = augment(batch, parameters(mix=mix))
    assert_close(result["image"].float(), batch["image"].float(), rtol=1e-6, atol=1e-4)
    assert torch.equal(result["label_mixed"], batch["label"])


class Fixed(nn.Module):
    """Answers with the logits that it was given, whatever the images."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, image):
        return self.logits


def test_labels_are_smoothed_in_training_and_not_in_evaluation():
    model, batch = Fixed(torch.randn(8, 10)), labelled(8)
    params = parameters(smoothing=0.2)
    smooth = F.cross_entropy(model.logits, batch["label"], label_smoothing=0.2, reduction="sum")
    assert_close(step(model.train(), batch, params).loss, smooth)
    plain = F.cross_entropy(model.logits, batch["label"], reduction="sum")
    assert_close(step(model.eval(), batch, params).loss, plain)


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mixed_images_are_trained_on_with_their_mixed_labels(mix):
    batch = augment(labelled(64), parameters(mix=mix))
    model = Fixed(torch.randn(64, 10))
    share = batch["mix"][:, None]
    target = share * F.one_hot(batch["label"], 10) + (1 - share) * F.one_hot(batch["label_mixed"], 10)
    expected = F.cross_entropy(model.logits, target, label_smoothing=0.1, reduction="sum")
    assert_close(step(model, batch, parameters(smoothing=0.1)).loss, expected)


def test_the_loss_is_computed_in_float32_under_autocast():
    model, batch = network().eval(), labelled(16)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(batch["image"])
        output = step(model, batch, parameters())
    assert logits.dtype == torch.bfloat16
    assert output.loss.dtype == torch.float32
    expected = F.cross_entropy(logits.float(), batch["label"], reduction="sum")
    assert_close(output.loss, expected, rtol=1e-6, atol=0)


def test_a_samples_logits_do_not_depend_on_its_batch_and_sums_add_up_over_any_split():
    model, batch, params = network().eval(), labelled(20, size=28), parameters()
    with torch.inference_mode():
        whole = step(model, batch, params)
        together = predict(model, batch, params)["logits"]
        for size in (1, 7):
            parts = [{k: v[i : i + size] for k, v in batch.items()} for i in range(0, 20, size)]
            steps = [step(model, part, params) for part in parts]
            assert sum(s.count for s in steps) == 20
            assert sum(float(s.sums["accuracy"]) for s in steps) == float(whole.sums["accuracy"])
            assert sum(float(s.loss) for s in steps) == pytest.approx(float(whole.loss), rel=1e-6)
            apart = torch.cat([predict(model, part, params)["logits"] for part in parts])
            assert_close(apart, together, rtol=1e-5, atol=1e-5)


def test_metrics_are_means_over_all_samples():
    sums = {"loss": torch.tensor(6.0), "accuracy": torch.tensor(3.0)}
    assert metrics_of(TASK, sums, 4) == {"loss": 1.5, "accuracy": 0.75}


def test_predictions_are_float32_logits_with_their_labels():
    model, batch = network().eval(), labelled(5)
    with torch.autocast("cpu", torch.bfloat16):
        predictions = predict(model, batch, parameters())
    assert predictions["logits"].dtype == torch.float32
    assert predictions["logits"].shape == (5, 10)
    assert not predictions["logits"].requires_grad
    assert torch.equal(predictions["label"], batch["label"])


@pytest.mark.parametrize("chosen", EVERYTHING)
def test_a_classifier_learns_to_tell_images_apart_through_every_augmentation(chosen):
    torch.manual_seed(0)
    batch = {"image": images(4).repeat(16, 1, 1, 1), "label": torch.arange(4).repeat(16)}
    model = nn.Sequential(Normalize([0.5] * 3, [0.25] * 3), nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
    params = parameters(**(chosen | {"crop": 1, "mix_alpha": 0.2}))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        step(model, augment(batch, params), params).loss.backward()
        optimizer.step()
    with torch.inference_mode():
        shifted = augment(batch, parameters(crop=1, flip="true"))
        output = step(model.eval(), shifted, params)
    assert output.sums["accuracy"] == output.count
