"""python -m benchmarks.gate: how often the gate is wrong, on simulated test splits, into docs/gate.md.

Two versions answer the same test samples. Each sample has a difficulty that both share, and each version has an
error of its own per sample and per source. Everything is drawn from normal distributions; `gain` is added to what
the second version sees.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from components import scores
from components.contracts import Outcomes, Score
from components.params import GateParams
from components.trust import gate, intervals
from components.trust.gate import Candidate, Champion
from components.trust.intervals import Estimate
from components.trust.tables import table

PAGE = Path(__file__).parents[1] / "docs" / "gate.md"
LEVEL, MARGIN = 0.95, 0.05
TRIALS, BEFORE = 20_000, 1_000
"""Trials of each cell, for the gate as it is and for the bootstrap that it had before, which takes longer."""
CHANCE = 1.0
"""Points by which a share of so many trials may differ by chance: three and a half standard errors."""
RESAMPLINGS = 1_000
GATE = GateParams(at_least={}, at_most={}, level=LEVEL, margins={}, pinned=False, megabytes=1, milliseconds=1)
Floats = NDArray[np.float64]
Pair = tuple[Outcomes, Outcomes]


def _average_precision(columns: scores.Columns, weights: Floats) -> float:
    order = np.argsort(-columns["score"], kind="stable")
    right, weights = columns["right"][order], weights[order]
    found, all_ = np.cumsum(weights * right), np.cumsum(weights)
    total = found[-1]
    return float((found / np.maximum(all_, 1e-12) * weights * right).sum() / total) if total else math.nan


ACCURACY = scores.ratio("accuracy", "more", "correct", share=True)
SCORES = {
    "accuracy": ACCURACY,
    "per-speaker accuracy": ACCURACY,
    "perplexity": scores.perplexity("nats", "tokens"),
    "average precision": Score("average precision", "more", _average_precision, share=True),
}


@dataclass(frozen=True)
class Cell:
    """A kind of test split."""

    score: str
    samples: int
    sources: int = 0
    """Number of sources that the samples come from; 0 if samples are independent."""
    unequal: bool = False
    """Whether each source has 0.7 times as many samples as the one before, instead of equally many."""
    positives: int = 0
    """Of average precision: number of samples to be found."""

    def draw(self, random: Generator, gain: float) -> Pair:
        """Draw the outcomes of two versions; the second is better by `gain` standard deviations."""
        source = self._sources()
        difficulty = random.normal(size=self.samples)
        own = [random.normal(size=self.samples) for _ in range(2)]
        if self.sources:
            own = [each + 0.5 * random.normal(size=self.sources)[source] for each in own]
        names = [f"{index:06d}" for index in range(self.samples)]
        clusters = [f"source {index}" for index in source] if self.sources else ()
        if self.score == "perplexity":
            columns = [
                {"nats": 200 * (3 + 0.5 * difficulty + 0.1 * each), "tokens": np.full(self.samples, 200.0)}
                for each in (own[0], own[1] - gain)
            ]
        elif self.score == "average precision":
            right = (np.arange(self.samples) < self.positives).astype(np.float64)
            columns = [
                {"score": difficulty + each + (1.5 + more) * right, "right": right}
                for each, more in ((own[0], 0), (own[1], gain))
            ]
        else:
            columns = [
                {"correct": (0.7 + difficulty + each > 0).astype(np.float64)} for each in (own[0], own[1] + gain)
            ]
        old, new = (Outcomes(names, each, clusters=clusters) for each in columns)
        return old, new

    def _sources(self) -> NDArray[np.int64]:
        """Return the source of each sample; the same in each trial, as all versions share one test split."""
        if not self.sources or not self.unequal:
            return np.arange(self.samples) % max(1, self.sources)
        shares = 0.7 ** np.arange(self.sources)
        sizes = 1 + np.floor((self.samples - self.sources) * shares / shares.sum()).astype(np.int64)
        sizes[0] += self.samples - sizes.sum()
        return np.random.default_rng(0).permutation(np.repeat(np.arange(self.sources), sizes))


CELLS = (
    *(Cell("accuracy", samples) for samples in (20, 100, 1_000)),
    *(
        Cell("per-speaker accuracy", 200, sources, unequal)
        for sources in (2, 3, 5, 6, 20)
        for unequal in (False, True)
    ),
    *(Cell("perplexity", samples) for samples in (20, 100)),
    Cell("perplexity", 200, 6, unequal=True),
    *(Cell("average precision", samples, positives=samples // 5) for samples in (50, 200)),
    Cell("average precision", 200, 20, unequal=True, positives=40),
)
GROUPS = ((4, 20), (10, 100), (100, 100))
"""Number of classes, and samples of each."""
BETTER, LOSS = 0.02, 0.25
"""In the cells of groups: how much better the new version truly is in each class, and how much worse in one."""


def promoted(new: Outcomes, old: Outcomes, score: Score, margins: dict[str, float] | None = None) -> bool:
    """Return whether the gate promotes a version, the first challenger of its test split."""
    rules = GATE.model_copy(update={"margins": margins or {}})
    candidate = Candidate({}, new, 0, 0)
    return all(rule.passed for rule in gate.judge(candidate, Champion("version 1", old), score, rules, 0))


def promoted_before(new: Outcomes, old: Outcomes, score: Score, random: Generator) -> bool:
    """Return whether the earlier gate did: the new one is better in 95 % of the draws of a paired bootstrap."""
    names = intervals.units(new)
    unit_of_sample = np.unique(np.array(names), return_inverse=True)[1]
    count, positive = unit_of_sample.max() + 1, 0.0
    for _ in range(RESAMPLINGS):
        weights = np.bincount(random.integers(count, size=count), minlength=count)[unit_of_sample].astype(float)
        gain = score.of(new.columns, weights) - score.of(old.columns, weights)
        positive += 0.5 if gain == 0 else float(gain > 0) if score.better == "more" else float(gain < 0)
    return positive / RESAMPLINGS >= LEVEL


def draw_groups(groups: int, each: int, lost: float, random: Generator) -> Pair:
    """Draw outcomes of classes; the new version is better in all of them, but for a loss in the first."""
    names = np.arange(groups * each) % groups
    old = random.random(groups * each) < 0.8
    right = np.where((names == 0) & (lost > 0), 0.8 - lost, 0.8 + BETTER)
    new = random.random(groups * each) < right
    samples, classes = [str(index) for index in range(groups * each)], [f"class {name}" for name in names]
    first, second = (
        Outcomes(samples, {"correct": correct.astype(np.float64)}, groups={"class": classes})
        for correct in (old, new)
    )
    return first, second


def rejected_for_a_group(new: Outcomes, old: Outcomes) -> bool:
    """Return whether the gate finds a class that is worse by more than the margin."""
    margins = GATE.model_copy(update={"margins": {"class": MARGIN}})
    rules = gate.judge(Candidate({}, new, 0, 0), Champion("version 1", old), ACCURACY, margins, 0)
    return not next(rule.passed for rule in rules if rule.rule.startswith("no class"))


def rejected_for_a_group_before(new: Outcomes, old: Outcomes) -> bool:
    """Return whether the earlier gate did: some class has lost more than the margin, by chance or not."""
    after, before = (intervals.group_values(each, ACCURACY, "class") for each in (new, old))
    return max(before[name] - after[name] for name in before) > MARGIN


Trial = Callable[[Generator], bool]


def rate(trial: Trial, trials: int, seed: int) -> float:
    """Return the share of trials in which `trial` is true."""
    random = np.random.default_rng(seed)
    return sum(trial(random) for _ in range(trials)) / trials


def _promotes(cell: Cell, gain: float, random: Generator) -> bool:
    old, new = cell.draw(random, gain)
    return promoted(new, old, SCORES[cell.score])


def _promoted(cell: Cell, gain: float, random: Generator) -> bool:
    old, new = cell.draw(random, gain)
    return promoted_before(new, old, SCORES[cell.score], random)


def _rejects(groups: int, each: int, lost: float, random: Generator) -> bool:
    old, new = draw_groups(groups, each, lost, random)
    return rejected_for_a_group(new, old)


def _rejected(groups: int, each: int, lost: float, random: Generator) -> bool:
    old, new = draw_groups(groups, each, lost, random)
    return rejected_for_a_group_before(new, old)


def differences(cell: Cell, gain: float, trials: int, seed: int) -> Floats:
    """Return how much better the second version's score is in each of some trials."""
    random, score = np.random.default_rng(seed), SCORES[cell.score]
    sign = 1 if score.better == "more" else -1
    pairs = (cell.draw(random, gain) for _ in range(trials))
    return np.array([sign * (intervals.value(new, score) - intervals.value(old, score)) for old, new in pairs])


def detectable(cell: Cell, trials: int, seed: int) -> tuple[float, float]:
    """Return the gain that should pass with probability `gate.POWER`, and its mean difference in score.

    As `pedigree gate` does, this takes the standard error from versions that are no better.
    """
    random, score = np.random.default_rng(seed), SCORES[cell.score]
    found = [intervals.difference(*cell.draw(random, 0), score) for _ in range(min(trials, 1_000))]
    error, freedom = np.mean([each.error for each in found]), np.mean([each.freedom for each in found])
    needed = gate.detectable(Estimate(0, float(error), float(freedom)), gate.allowed(LEVEL, 0))
    low, high = 0.0, 4.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if differences(cell, middle, trials, seed).mean() < needed else (low, middle)
    return high, needed


def row(cell: Cell, trials: int, before: int) -> list[str]:
    """Measure one kind of test split; return a row of the table."""
    wrong = rate(partial(_promotes, cell, 0), trials, 1)
    wrong_before = rate(partial(_promoted, cell, 0), before, 2)
    sizes = {0: "independent"}.get(cell.sources, f"{cell.sources} {'unequal' if cell.unequal else 'equal'} sources")
    shown = [cell.score, f"{cell.samples}", sizes, f"{wrong_before:.1%}", f"{wrong:.1%}"]
    if 0 < cell.sources < gate.FEWEST_SOURCES:
        return [*shown, "", "never promoted"]
    gain, size = detectable(cell, min(trials, 2_000), 3)
    return [*shown, f"{size:.3g}", f"{rate(partial(_promotes, cell, gain), trials, 4):.1%}"]


def group_row(groups: int, each: int, trials: int, before: int) -> list[str]:
    """Measure one number of classes; return a row of the table."""
    trials = trials // 10 if groups * each > 1_000 else trials  # each takes a tenth of a second
    return [
        f"{groups}",
        f"{each}",
        f"{trials:,}",
        f"{rate(partial(_rejected, groups, each, 0.0), before, 5):.1%}",
        f"{rate(partial(_rejects, groups, each, 0.0), trials, 6):.1%}",
        f"{rate(partial(_rejects, groups, each, LOSS), trials, 7):.1%}",
    ]


def challengers(trials: int) -> tuple[float, float]:
    """Return how often one of twenty equal challengers is promoted: by the gate, and if each may err in 5 %."""
    cell, random = Cell("accuracy", 200), np.random.default_rng(8)
    promoted_one = np.zeros(2)
    for _ in range(trials):
        p_values = [_p_value(cell, random) for _ in range(20)]
        promoted_one += [
            any(p <= gate.allowed(LEVEL, earlier) for earlier, p in enumerate(p_values)),
            any(p <= 1 - LEVEL for p in p_values),
        ]
    return promoted_one[0] / trials, promoted_one[1] / trials


def _p_value(cell: Cell, random: Generator) -> float:
    return intervals.difference(*cell.draw(random, 0), SCORES[cell.score]).p_value()


INTRODUCTION = """# How sure a promotion is

A version becomes champion if it passes every rule of its gate. Two of them are statistical.

**Better than the champion.** Both versions answer the same test samples. Their difference in score is computed
again with each source (or each sample, if samples have none) left out in turn; the spread of these values gives
its standard error, and a t distribution its p-value. This jackknife (Tukey 1958) works for any score. Sources of
unequal size count as fewer (Carter, Schnepel and Steigerwald 2017). Sources are the speakers of clips, and the
groups of images if the test split was drawn by groups. Two to four of them are too few to tell, so that nothing is
promoted. If all samples come from one source, each sample is left out in turn instead, and the verdict says that
it holds for this source only.

Whoever tries long enough finds a version that is better by chance. So all challengers of a test split share an
error of 1 - `level`, 5 % in params.yaml: the first one needs p <= 2.5 %, the second 0.83 %, the k-th 5 % / (k (k
+ 1)). These add up to 5 %. Equal weights count once. A new test split starts the count anew.

**No group worse by more than its margin.** A group, such as a class, rejects a version only if its loss exceeds
the margin beyond chance: p <= 5 % divided by the number of groups, from the same jackknife. Groups of fewer than
ten samples, or from two to four sources, are named and not judged.

A model of `pedigree new` has no bounds for metrics, as those of the model that it is like say nothing of other
data: its first version becomes champion whatever its score, and the verdict says so. Set `register.gate.at_least`
or `at_most` in its section of params.yaml to demand a score.

**The interval of a score** comes from the same jackknife: Student's for any score, and Wilson's (1927) for a score
that is a share, such as accuracy. Its number of samples is the effective one, with which independent samples would
have the same standard error (Korn and Graubard 1998; Franco et al. 2019). So it has a width even if all samples are
right: 36 of 36 is 1 [0.897, 1]. Nothing then shows whether samples of a source are alike, and they count as
independent. It is at most the number of samples, unless these can be right in part, as images are whose pixels or
boxes count (mean IoU, mAP).

`pedigree gate MODEL` prints what the champion's test split can detect, and says so if the prepared data
have another one by now. Where all answers are right, or all wrong, it takes the standard error from Wilson's
interval. It promises no gain beyond what the score can reach.

## A new test split

`pedigree data MODEL --resplit` adds one to `prepare.resplit` of all models that read the data set. The next
preparation pools all samples, the data set's own splits included, and draws the test split of this number: images
by class and by groups that file names tell, clips by speaker, text as one block. The first challenger on it counts
as the first. Each draw may err in 5 % of its own, so drawing again until a version passes promotes by chance.

On any new test split, the champion answers through its served function, with its own code, and its answers are
evaluated. Samples that were none of its own test split may be among those that it was trained on, as after a new
draw. Its score is then too good, as its name in the verdict says: "version 3, re-evaluated on samples that it may
have been trained on". Train its parameters again on the new split, and make that version champion with `pedigree
promote`.

Perplexities of language models with different tokenizers are compared over the same text, in nats per token of
the new version. Where a tokenizer has `<unk>` for a part of it, they cannot be compared.

## Measured

Simulated test splits, by `python -m benchmarks.gate`. *Wrong* is how often a version is promoted that is no
better than the champion, as the first challenger. The gate promises at most 2.5 %; the bootstrap that it had
before promised 5 %. *Gain* is the true difference that should be promoted in 80 % of all cases, and *promoted*
how often it is.

"""


def fewer_than_stated(rows: Sequence[Sequence[str]]) -> str:
    """Return a sentence on the rows in which fewer versions are promoted than stated; empty if there is none."""
    fewer = [each for each in rows if each[-1].endswith("%") and float(each[-1][:-1]) < 100 * gate.POWER - CHANCE]
    if not fewer:
        return ""
    which = "; ".join(f"{score}, {samples} samples, {kind} ({share})" for score, samples, kind, *_, share in fewer)
    return (
        f"A version that is better by the gain is promoted in less than {100 * gate.POWER:.0f} % of all cases, so "
        f"that the true detectable difference is a little larger, with {which}.\n\n"
    )


def page(
    rows: Sequence[Sequence[str]], groups: Sequence[Sequence[str]], many: tuple[float, float], trials: str
) -> str:
    """Return docs/gate.md."""
    head = ("score", "samples", "", "wrong, bootstrap before", "wrong", "gain", "promoted")
    group_head = (
        "classes",
        "samples of each",
        "trials",
        "rejected, point estimate before",
        "rejected",
        f"rejected if one lost {100 * LOSS:.0f} points",
    )
    return (
        f"{INTRODUCTION}{table(head, rows)}\n\n{fewer_than_stated(rows)}{trials}\n\n"
        f"The new version is truly {100 * BETTER:.0f} points better in every class, and the margin is "
        f"{100 * MARGIN:.0f} points:\n\n{table(group_head, groups)}\n\n"
        "Of twenty challengers in a row that are no better, on one test split, at least one was promoted in "
        f"{many[0]:.1%} of all cases; if each could err in 5 %, it would be {many[1]:.1%}.\n"
    )


def main() -> None:
    """Measure all cells and write docs/gate.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--before", type=int, default=BEFORE, help="trials of the earlier gate")
    parser.add_argument("--workers", type=int, help="processes; default: one per core")
    options = parser.parse_args()
    with ProcessPoolExecutor(options.workers) as pool:
        cells = [pool.submit(row, cell, options.trials, options.before) for cell in CELLS]
        groups = [pool.submit(group_row, *each, options.trials, options.before) for each in GROUPS]
        many = pool.submit(challengers, options.trials // 10)
        for future in (*cells, *groups, many):
            print(future.result(), flush=True)
        trials = (
            f"{options.trials:,} trials of each row, {options.before:,} of what was before (a bootstrap of "
            f"{RESAMPLINGS:,} resamplings), {options.trials // 10:,} of the challengers in a row; seeds are fixed."
        )
        text = page([each.result() for each in cells], [each.result() for each in groups], many.result(), trials)
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
