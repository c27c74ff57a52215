"""Figures of answers, drawn by matplotlib without pyplot."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from components import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


class Bar(NamedTuple):
    """Test questions of one group."""

    questions: int
    f1: float
    exact: float


def by_group(groups: Mapping[str, Mapping[str, Bar]]) -> "Figure":
    """Draw F1 and exact match of the questions of each group, a panel for each kind of group."""
    figure = figures.blank(9, 4)
    figure.suptitle("Results by question word and by the length of the answer")
    wide = [max(len(bars), 2) for bars in groups.values()]
    panels = figure.subplots(1, len(groups), sharey=True, width_ratios=wide, squeeze=False)[0]
    for axes, (kind, bars) in zip(panels, groups.items(), strict=True):
        places = np.arange(len(bars))
        for shift, name, label in ((-0.2, "f1", "F1"), (0.2, "exact", "Exact match")):
            drawn = axes.bar(places + shift, [getattr(bar, name) for bar in bars.values()], 0.4, label=label)
            axes.bar_label(drawn, fmt=lambda value: f"{value:.2f}".removeprefix("0"), fontsize=7, padding=2)
        labels = [f"{name.replace(' words', '')}\nn = {bar.questions:,}" for name, bar in bars.items()]
        axes.set_xticks(places, labels=labels, fontsize=8)
        axes.set(xlabel="Question word" if kind == "question" else "Words of the answer", ylim=(0, 1.2))
    panels[0].set_ylabel("Score")
    panels[-1].legend(loc="upper right", ncols=2, fontsize=8)
    return figure


def no_answer(margin: Floats, answerable: NDArray[np.bool_], f1: Floats) -> "Figure":
    """Draw what other thresholds of no answer would give.

    Args:
        margin: By how much the score of no answer exceeds that of the answer, less the threshold, (Q,).
        answerable: Whether the context answers the question, (Q,).
        f1: F1 of the best answer, also where it is not given, (Q,).
    """
    figure = figures.blank(9, 4)
    figure.suptitle("Saying that there is no answer, by the threshold")
    left, right = figure.subplots(1, 2)
    order = np.argsort(-margin, kind="stable")  # the first k are not answered
    said = np.arange(1, len(margin) + 1)
    true = np.cumsum(~answerable[order])
    left.plot(margin[order], true / said, label="Precision of no answer")
    left.plot(margin[order], true / max(int(true[-1]), 1), label="Recall of no answer")
    total = np.cumsum(np.where(answerable, -f1, 1)[order]) + np.where(answerable, f1, 0).sum()
    right.plot(margin[order], total / len(margin), color="black", label="F1 of all questions")
    bins = np.linspace(margin.min(), margin.max(), 31)
    counts = right.twinx()
    for own, name in ((answerable, "With answer"), (~answerable, "Without")):
        counts.hist(margin[own], bins, alpha=0.4, label=name)
    counts.set_ylabel("Questions")
    for axes in (left, right):
        axes.axvline(0, color="grey", linestyle="--", linewidth=1)
        axes.set(xlabel="Margin of no answer; the threshold was chosen at 0", ylim=(0, 1.02))
    left.legend(loc="lower left", fontsize=8)
    lines, names = right.get_legend_handles_labels()
    bars, kinds = counts.get_legend_handles_labels()
    figure.legend([*lines, *bars], [*names, *kinds], loc="outside lower right", ncols=3, fontsize=8)
    return figure
