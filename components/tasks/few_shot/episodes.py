"""Episodes: classes, a few images by which each is known (the support), and others to recognise (the queries)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.contracts import Batch
from components.datasets import arrays
from components.datasets.splits import on_device
from components.errors import PedigreeError
from components.tasks.few_shot.params import EpisodeParams

TURNS = 4
"""Quarter turns that make a class another one, among them none."""


@dataclass(frozen=True)
class Pictures:
    """A split: a sample is an image, or if there are `episodes`, an episode."""

    image: Tensor
    """Images, uint8 (N, C, H, W)."""
    label: Tensor
    """The class of each, int64 (N,)."""
    episodes: Tensor | None = None
    """The images of each episode, int64 (E, ways, shots + queries)."""

    @property
    def lengths(self) -> None:
        """None, as all samples cost the same."""

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.image.device

    @property
    def nbytes(self) -> int:
        """Bytes of images and labels."""
        return self.image.nbytes + self.label.nbytes

    def __len__(self) -> int:
        return len(self.image if self.episodes is None else self.episodes)

    def __getitems__(self, indices: Tensor, /) -> Batch:
        """Return images (B, C, H, W) with their labels (B,), or `of` episodes."""
        if self.episodes is not None:
            return self.of(self.episodes[on_device(self.episodes.device, indices)])
        indices = on_device(self.device, indices)
        return {"image": self.image[indices], "label": self.label[indices]}

    def of(self, places: Tensor) -> Batch:
        """Return the images (B, ways, shots + queries, C, H, W) of episodes, and their classes (B, ways)."""
        places = on_device(self.device, places)
        return {"image": self.image[places], "label": self.label[places[:, :, 0]]}

    def read_ahead(self, indices: Tensor, /) -> None:
        """Advise the operating system that these images are needed next, if they are samples."""
        if self.episodes is None:
            arrays.read_ahead(self.image, indices)

    def to(self, device: torch.device, /) -> Pictures:
        """Return the split on a device."""
        episodes = None if self.episodes is None else self.episodes.to(device)
        return Pictures(self.image.to(device), self.label.to(device), episodes)

    def take(self, indices: Tensor) -> Pictures:
        """Return the samples at `indices` as a new split."""
        if self.episodes is not None:
            return replace(self, episodes=self.episodes[on_device(self.episodes.device, indices)])
        return Pictures(self.image[indices], self.label[indices])


@dataclass(frozen=True)
class Pool:
    """The classes from which episodes are drawn, and the images of each."""

    label: NDArray[np.int64]
    """Classes with enough images, (K,)."""
    images: NDArray[np.int64]
    """The images of each class, (K, most), filled up with -1."""

    @classmethod
    def of(cls, label: Tensor, fewest: int) -> Pool:
        """Return the pool of images with these labels (N,), without classes that have less than `fewest` images."""
        labels = label.cpu().numpy()
        classes, counts = np.unique(labels, return_counts=True)
        order = np.argsort(labels, kind="stable")
        images = np.full((len(classes), counts.max(initial=0)), -1)
        images[np.arange(images.shape[1]) < counts[:, None]] = order
        enough = counts >= fewest
        return cls(classes[enough], images[enough])

    def draw(self, generator: np.random.Generator, classes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Draw `count` different images of each class: (..., count) for indices of classes (...)."""
        images = self.images[classes]  # (..., most)
        keys = generator.random(images.shape)
        keys[images < 0] = 2  # after all others
        chosen = (
            np.argpartition(keys, count - 1, axis=-1)[..., :count] if count < images.shape[-1] else keys.argsort(-1)
        )
        # argpartition leaves the first images in no order that all machines agree on.
        chosen = np.take_along_axis(chosen, np.take_along_axis(keys, chosen, -1).argsort(-1), -1)
        return np.take_along_axis(images, chosen, -1)


def fixed(label: Tensor, count: int, ways: int, images: int, seed: int) -> NDArray[np.int64]:
    """Return `count` episodes, or more so that each class is in one: places of images, (E, ways, images).

    Args:
        label: The class of each image, (N,); each class has at least `images`, which are drawn without repetition.
        count: Number of episodes.
        ways: Classes of an episode, at most the number of classes.
        images: Images of each.
        seed: Seed of the draw.
    """
    pool, generator = Pool.of(label, images), np.random.default_rng(seed)
    rounds = -(-max(count * ways, len(pool.label)) // len(pool.label)) + 1
    order = np.concatenate([generator.permutation(len(pool.label)) for _ in range(rounds)])
    found: list[NDArray[np.int64]] = []
    start = 0
    while len(found) < count or start < len(pool.label):
        # A class that ends one permutation and begins the next is not twice in an episode.
        _, first = np.unique(order[start : start + 2 * ways], return_index=True)
        chosen = order[start : start + 2 * ways][np.sort(first)[:ways]]
        found.append(pool.draw(generator, chosen, images))
        start += ways
    return np.stack(found)


@dataclass(frozen=True)
class Drawn:
    """An epoch's batches of episodes: each is a function of seed, epoch and index, whoever draws it."""

    split: Pictures
    pool: Pool
    params: EpisodeParams
    turns: bool
    size: int
    seed: Sequence[int]
    """Of the training and the epoch."""
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return self.params.count // self.size

    def __getitem__(self, index: int, /) -> Batch:
        """Return this worker's share of a batch as `Pictures.of` does, with the `turn` of each class (B, ways)."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        generator = np.random.default_rng((*self.seed, index))
        count, ways = len(self.pool.label), self.params.ways
        choices = count * TURNS if self.turns else count
        kinds = np.stack([generator.permutation(choices)[:ways] for _ in range(self.size)])
        places = self.pool.draw(generator, kinds % count, self.params.shots + self.params.queries)
        own = slice(self.rank, None, self.world)
        batch = self.split.of(torch.from_numpy(places[own]))
        turn = torch.from_numpy(kinds[own] // count)
        return batch | {"turn": on_device(self.split.device, turn)}


def drawn(split: Pictures, params: EpisodeParams, turns: bool, size: int, seed: Sequence[int]) -> Drawn:
    """Return an epoch's batches of `size` episodes for one worker.

    Raises:
        PedigreeError: there are too few classes with enough images.
    """
    images = params.shots + params.queries
    pool = Pool.of(split.label, images)
    classes = len(pool.label) * (TURNS if turns else 1)
    if classes < params.ways:
        raise PedigreeError(
            f"train.episodes needs {params.ways} classes of {images} images, and training has {classes:,}: lower "
            "ways, shots or queries, or add images"
        )
    return Drawn(split, pool, params, turns, size, seed)
