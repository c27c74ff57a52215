"""The figures of docs/performance.md."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

Rows = Mapping[str, Sequence[Mapping[str, float]]]
"""The results of each contender in each round."""


def throughput(found: Mapping[str, Rows], folder: Path) -> None:
    """Draw each contender's rate relative to the first one's, with its range, and the first one's share of peak."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 1.2 + 0.9 * len(found)), width_ratios=(3, 1), sharey=True, layout="constrained"
    )
    contenders = list(next(iter(found.values())))
    height = 0.8 / len(contenders)
    for number, contender in enumerate(contenders):
        ratios = [
            [row["rate"] / ours["rate"] for row, ours in zip(rows[contender], rows[contenders[0]], strict=True)]
            for rows in found.values()
        ]
        middle = [statistics.median(each) for each in ratios]
        positions = np.arange(len(found)) + number * height
        spread = [
            [m - min(each) for m, each in zip(middle, ratios, strict=True)],
            [max(each) - m for m, each in zip(middle, ratios, strict=True)],
        ]
        bars = left.barh(positions, middle, height * 0.9, xerr=spread, label=contender, color=f"C{number}")
        left.bar_label(bars, [f"{each:.2f}" for each in middle], padding=3, fontsize=8)
    left.set_yticks(np.arange(len(found)) + 0.4 - height / 2, list(found))
    left.invert_yaxis()
    left.set_xlabel("throughput relative to Pedigree in the same round")
    figure.legend(fontsize=8, loc="outside upper center", ncols=len(contenders))
    shares = [statistics.median(row["share_of_peak"] for row in rows[contenders[0]]) for rows in found.values()]
    bars = right.barh(np.arange(len(found)) + 0.4 - height / 2, shares, 0.5, color="C0")
    right.bar_label(bars, [f"{each:.2f}" for each in shares], padding=3, fontsize=8)
    right.set_xlim(0, 1)
    right.set_xlabel("Pedigree's share of peak")
    figure.savefig(folder / "throughput.png", dpi=110)
    plt.close(figure)
