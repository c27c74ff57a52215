"""Figures of an evaluation on episodes."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from components import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 10
"""Pairs of confused classes that are drawn."""


def of(images: Tensor) -> Callable[[int], NDArray[Any]]:
    """Return a function that returns the picture (H, W) or (H, W, 3) of one of the images (N, C, H, W)."""

    def picture(index: int) -> NDArray[Any]:
        return np.asarray(images[index].permute(1, 2, 0).squeeze(2))

    return picture


def by_ways(accuracies: Mapping[int, Mapping[int, float]]) -> "Figure":
    """Draw how accuracy falls with the number of classes, a line for each number of shots.

    Args:
        accuracies: By shots and ways.
    """
    figure = figures.blank(7, 5)
    axes = figure.add_subplot(title="New classes", xlabel="Classes", ylabel="Accuracy", xscale="log")
    for shots, by_number in accuracies.items():
        axes.plot([*by_number], [*by_number.values()], "o-", label=f"{shots} image{'s' * (shots > 1)} of each")
    ticks = sorted({ways for by_number in accuracies.values() for ways in by_number})
    axes.set_xticks(ticks, labels=map(str, ticks))
    axes.minorticks_off()
    axes.set_ylim(top=1.005)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def confused(
    pairs: NDArray[np.int64], label: NDArray[np.int64], images: Tensor, classes: Sequence[str]
) -> "Figure":
    """Draw the pairs of classes that are most often confused, an image of each.

    Args:
        pairs: A class and what it was taken for, (P, 2).
        label: The class of each image, (N,).
        images: (N, C, H, W).
        classes: Class names.
    """
    picture = of(images)
    tiles = []
    for (own, other), count in Counter(map(tuple, pairs.tolist())).most_common(SHOWN):
        both = [picture(int(np.flatnonzero(label == each)[0])) for each in (own, other)]
        names = f"{classes[own]} → {classes[other]}"
        tiles.append(figures.Tile(np.concatenate(both, 1), names, f"{count:,} queries"))
    title = f"{len(pairs):,} queries were taken for another class\nthe most frequent pairs, an image of each"
    return figures.gallery(tiles, title, empty="All queries are recognised.")
