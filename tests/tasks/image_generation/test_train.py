import pytest
import torch
from PIL import Image

from components.tasks.image_generation.train import augment, snapshot, step
from tests.tasks.image_generation.values import SMALL, manifest, network, values

BATCH = {
    "image": torch.randint(256, (64, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8),
    "label": torch.arange(64) % 3,
}


class Told(torch.nn.Module):
    """Predicts no velocity, and keeps what it was given."""

    def forward(self, x, time, label):
        self.x, self.time, self.label = x, time, label
        return torch.zeros_like(x)


def test_the_loss_of_no_velocity_is_its_own_square_and_the_input_lies_on_the_line():
    model = Told().train()
    torch.manual_seed(0)
    output = step(model, BATCH, SMALL)
    image = BATCH["image"].float() / 127.5 - 1
    time = model.time[:, None, None, None]
    start = (model.x - time * image) / (1 - time)
    assert output.count == 64
    assert output.loss.item() == pytest.approx((image - start).square().mean((1, 2, 3)).sum().item(), rel=1e-4)
    assert start.std().item() == pytest.approx(1, abs=0.02)
    assert model.time.logit().std().item() == pytest.approx(1, abs=0.25)
    step(model, BATCH, values(train={"time": {"mean": -2, "std": 0.1}}))
    assert model.time.logit().mean().item() == pytest.approx(-2, abs=0.05)


def test_some_images_lose_their_class_in_training_and_none_in_validation():
    model = Told().train()
    torch.manual_seed(0)
    step(model, BATCH, values(train={"label_drop": 0.5}))
    dropped = model.label == -1
    assert 16 < int(dropped.sum()) < 48
    assert torch.equal(model.label[~dropped], BATCH["label"][~dropped])
    step(model.eval(), BATCH, values(train={"label_drop": 0.5}))
    assert torch.equal(model.label, BATCH["label"])


def test_images_are_mirrored_only_if_asked():
    assert augment(BATCH, SMALL) is BATCH
    flipped = augment(BATCH, values(train={"flip": True}))["image"]
    mirrored = [torch.equal(*pair) for pair in zip(flipped, BATCH["image"].flip(3), strict=True)]
    assert 16 < sum(mirrored) < 48


def test_a_snapshot_has_a_column_for_each_class_and_leaves_the_generator_alone(tmp_path):
    model = network()
    before = torch.random.get_rng_state()
    snapshot(model, manifest(), SMALL, tmp_path / "1.png")
    assert torch.equal(torch.random.get_rng_state(), before)
    with Image.open(tmp_path / "1.png") as picture:
        assert picture.size == (2 * 3 * 30, 2 * 10 * 30)
