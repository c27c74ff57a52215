"""Figures of predictions from tables."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components import figures
from components.tables import measures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 5_000
"""Most points of a figure, evenly spaced."""


def decision_curve(positive: NDArray[np.float64], probability: NDArray[np.float64], chosen: float) -> "Figure":
    """Draw the net benefit of flagging rows by the model, all rows, and none, at each threshold.

    Args:
        positive: 1 or 0, (N,).
        probability: Of being positive, (N,).
        chosen: The threshold that the costs give.
    """
    thresholds = np.linspace(0.01, 0.99, 99)
    figure = figures.blank(6.5, 4.5)
    axes = figure.add_subplot(
        title="Decision curve", xlabel="Threshold of the probability", ylabel="Net benefit per row"
    )
    of_all = measures.net_benefit(positive, np.ones(len(positive)), thresholds.tolist())
    own = measures.net_benefit(positive, probability, thresholds.tolist())
    axes.plot(thresholds, own, label="rows flagged by the model")
    axes.plot(thresholds, of_all, "--", label="all rows flagged")
    axes.axhline(0, color="grey", linewidth=1, label="no row flagged")
    axes.axvline(chosen, color="grey", linestyle=":", label=f"threshold by costs, {chosen:.2f}")
    top = max(float(own.max()), float(positive.mean()), 0.01)
    axes.set(xlim=(0, 1), ylim=(-0.3 * top, 1.1 * top))
    axes.legend(frameon=False)
    return figure


def quantity(predicted: NDArray[np.float64], actual: NDArray[np.float64], name: str) -> "Figure":
    """Draw predicted quantities over actual ones."""
    rows = np.arange(min(len(actual), SHOWN)) * len(actual) // min(len(actual), SHOWN)
    figure = figures.blank(5.5, 5.5)
    axes = figure.add_subplot(xlabel="Actual", ylabel="Predicted")
    axes.set_title(figures.drawable(name, 60), parse_math=False)
    axes.plot(actual[rows], predicted[rows], ".", markersize=3, alpha=0.5)
    ends = [float(actual.min()), float(actual.max())]
    axes.plot(ends, ends, color="grey", linewidth=1)
    return figure
