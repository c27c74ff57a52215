"""Two small classifiers of the training images, by which generated images are measured.

One gives the features between which distances are computed, the other says of which class an image is. Neither
has a part in training or sampling. Preparation trains both and stores them beside the arrays, but outside the
hashes of the data: other processors train other last digits.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from components.datasets.splits import Columns
from components.errors import PedigreeError
from components.images.augment import crop_and_flip
from components.images.labels.labelled import Facts
from components.images.networks.normalize import Normalize
from components.runtime import files
from components.runtime.progress import Progress

log = logging.getLogger("pedigree.prepare")

FEATURES, JUDGE = "features.safetensors", "judge.safetensors"
"""Files in the prepared folder: the network of the features, and the classifier that says what an image shows."""
SIZE = 64
"""Number of features. A covariance of more would need more images than a small test split has."""
SEEDS = {FEATURES: 1, JUDGE: 2}
BATCH, RATE, SHIFT = 64, 5e-3, 2
TOGETHER = 500
"""Images in a batch of the finished classifiers, which does not depend on how many there are."""


class Classifier(nn.Module):
    """Three convolutions with batch norm, the last two of stride 2, and two fully connected layers.

    Args:
        facts: Of the images.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.normalize = Normalize(facts.mean, facts.std)
        self.convolutions = nn.Sequential(
            *_convolution(facts.channels, 16, 1), *_convolution(16, 32, 2), *_convolution(32, 64, 2)
        )
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.hidden = nn.Linear(64 * 16, SIZE)
        self.last = nn.Linear(SIZE, len(facts.classes))

    def features(self, image: Tensor) -> Tensor:
        """Map images, uint8 (N, C, H, W), to features (N, SIZE)."""
        found: Tensor = self.hidden(self.pool(self.convolutions(self.normalize(image))).flatten(1))
        return found

    def forward(self, image: Tensor) -> Tensor:
        """Map images to logits (N, classes)."""
        logits: Tensor = self.last(F.dropout(F.relu(self.features(image)), 0.2, self.training))
        return logits


def _convolution(channels: int, filters: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(filters), nn.ReLU()


def train(out: Path, split: Columns, facts: Facts, updates: int) -> None:
    """Train both classifiers on the training split and write them into the prepared folder `out`.

    Each sees other initial weights, and the images in another order and shifted otherwise.
    """
    for name, seed in SEEDS.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Classifier(facts)
            _train(model, split, updates, f"prepare: {Path(name).stem}")
        save_model(model, str(out / name))
        (out / name).chmod(0o644)  # safetensors makes its files readable by the user only


def _train(model: Classifier, split: Columns, updates: int, what: str) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, updates + 1)
    progress = Progress(log)
    for number, rows in zip(range(updates), _batches(len(split)), strict=False):
        image = crop_and_flip(split["image"][rows], SHIFT, 0, None)
        loss = F.cross_entropy(model(image), split["label"][rows], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.say(f"{what}: {number:,} of {updates:,} updates, loss {loss.item():.3f}")
    model.eval()


def _batches(count: int) -> Iterator[Tensor]:
    """Yield indices of batches without end, each image once in a pass."""
    while True:
        yield from torch.randperm(count).split(BATCH)


def load(prepared: Path, name: str, facts: Facts) -> Classifier:
    """Load a classifier of a prepared folder.

    Raises:
        PedigreeError: it is missing or damaged.
    """
    model = Classifier(facts)
    try:
        load_model(model, prepared / name)
    except Exception as error:  # safetensors raises exceptions of its own
        raise PedigreeError(f"{prepared / name} is missing or damaged: run prepare again") from error
    return model.eval()


def sha256(prepared: Path) -> str:
    """Return the hash of the network of the features, under which alone distances can be compared."""
    return files.sha256(prepared / FEATURES)


@torch.inference_mode()
def features(model: Classifier, images: Tensor) -> Tensor:
    """Return the features of images, float64 (N, SIZE)."""
    return torch.cat([model.features(few) for few in images.split(TOGETHER)]).double()


@torch.inference_mode()
def classes(model: Classifier, images: Tensor) -> Tensor:
    """Return the label that a classifier gives to each image, int64 (N,)."""
    return torch.cat([model(few).argmax(1) for few in images.split(TOGETHER)])
