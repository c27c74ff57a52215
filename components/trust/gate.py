"""The gate that decides whether a new version becomes champion: a list of rules, all of which must pass."""

import json
import math
import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import nctdtrinc

from components import display
from components.contracts import Outcomes, Score
from components.params import GateParams
from components.trust import intervals
from components.trust.intervals import Estimate
from components.trust.tables import table

TAG = "verdict"
"""Record of a version: the rules as JSON."""
BETTER = "better than the champion"
"""Beginning of the rule that compares scores; older versions add the level."""
FEWEST_SOURCES, FEWEST_SAMPLES = 5, 10
"""Fewest sources, if there is more than one, and fewest samples of a group, from which a difference is judged."""
POWER = 0.8
"""Probability with which a version passes that is better by what `detectable` returns."""
NOT_PINNED = "its data were not pinned by DVC"
SHOWN = 5
"""Most groups that a sentence names."""


@dataclass(frozen=True)
class Rule:
    """One condition and its result."""

    rule: str
    found: str
    """The measured number, or why there is none."""
    passed: bool
    failure: str = ""
    """Why the rule failed, as part of a sentence; empty if it passed, and in verdicts of old versions."""

    @property
    def objection(self) -> str:
        """Why the rule failed."""
        return self.failure or f"{self.rule}: {self.found}"


@dataclass(frozen=True)
class Champion:
    """The present champion, in a form that a new version can be compared with."""

    name: str
    """Its name in sentences, such as "version 3"."""
    outcomes: Outcomes | None
    """Its outcomes on the new version's test samples."""
    why_not: str = ""
    """Why there are no such outcomes."""
    instead: str = ""
    """What a person can do then, as part of a sentence."""


@dataclass(frozen=True)
class Candidate:
    """The measurements of a new version."""

    metrics: Mapping[str, float]
    outcomes: Outcomes
    megabytes: float
    """Size of its weights."""
    milliseconds: float
    """Latency of the fastest of several predictions."""
    pinned: bool = True
    """Whether its data are pinned by DVC."""
    untested: str = ""
    """Why its test samples say little of others; empty if they do not."""
    baselines: Mapping[str, Outcomes] = field(default_factory=dict)
    """Outcomes of the task's baselines on the same test samples, by name."""


def compared(rules: Sequence[Rule]) -> bool:
    """Return whether a version's score was compared with a champion's, which may have promoted it by chance."""
    return any(rule.rule.startswith(BETTER) and " against " in rule.found for rule in rules)


def parse(text: str) -> list[Rule]:
    """Parse the rules of a version from JSON."""
    return [Rule(**rule) for rule in json.loads(text)]


def judge(new: Candidate, champion: Champion | None, score: Score, gate: GateParams, earlier: int) -> list[Rule]:
    """Return all rules with their results, failed ones first; the version is promoted if all pass.

    Args:
        new: The new version.
        champion: The present champion, if there is one.
        score: The score by which the two are compared.
        gate: The bounds.
        earlier: Number of other challengers that were compared with a champion on this test split before.
    """
    rules = [
        *_pinned(new, gate),
        *_tested(new),
        *_bounds(new.metrics, gate),
        *_beside(new, score, gate),
        *_against(new.outcomes, champion, score, gate, earlier),
        _limit(
            f"weights at most {gate.megabytes:g} MB",
            f"{new.megabytes:.1f} MB",
            new.megabytes <= gate.megabytes,
            f"the weights take {new.megabytes:.1f} MB, more than {gate.megabytes:g}",
        ),
        _limit(
            f"an answer within {gate.milliseconds:g} ms",
            f"{new.milliseconds:.1f} ms, the fastest of several",
            new.milliseconds <= gate.milliseconds,
            f"the fastest of several answers takes {new.milliseconds:.1f} ms, more than {gate.milliseconds:g}",
        ),
    ]
    return sorted(rules, key=lambda rule: rule.passed)  # a person looks for what failed


def _limit(rule: str, found: str, passed: bool, failure: str) -> Rule:
    return Rule(rule, found, passed, "" if passed else failure)


def _pinned(new: Candidate, gate: GateParams) -> Iterator[Rule]:
    if gate.pinned:
        yield _limit("data pinned by DVC", "pinned" if new.pinned else "not pinned", new.pinned, NOT_PINNED)


def _tested(new: Candidate) -> Iterator[Rule]:
    if new.untested:
        yield Rule("tested on samples of its own", "none", False, new.untested)


def _bounds(metrics: Mapping[str, float], gate: GateParams) -> Iterator[Rule]:
    sides = (("at least", "below", gate.at_least, operator.ge), ("at most", "above", gate.at_most, operator.le))
    for side, beyond, bounds, holds in sides:
        for name, bound in bounds.items():
            rule, value = f"{name} {side} {bound:g}", metrics.get(name)
            if value is None:
                yield Rule(rule, "not measured", False, f"{name} is not measured")
            else:
                where = "not a number" if math.isnan(value) else f"{beyond} {bound:g}"
                yield _limit(rule, f"{value:.4g}", holds(value, bound), f"{name} {value:.4g} is {where}")


def _beside(new: Candidate, score: Score, gate: GateParams) -> Iterator[Rule]:
    """Judge whether the version is worse than a baseline by more than chance."""
    for name in gate.beats:
        rule = f"no worse than the baseline {name}"
        if name not in new.baselines:
            there = ", ".join(sorted(new.baselines)) or "none"
            yield Rule(rule, "not measured", False, f"there is no baseline {name} to beat, but {there}")
            continue
        found = intervals.difference(new.baselines[name], new.outcomes, score)
        if not np.isfinite(found.value):
            yield Rule(
                rule, "not a number", False, f"its {score.name} or that of the baseline {name} is not a number"
            )
            continue
        low, high = found.interval
        gain = _toward(found, score)
        p = replace(gain, value=-gain.value).p_value()
        measured = "" if math.isnan(low) else f" [{low:+.4g}, {high:+.4g}]"
        text = f"{found.value:+.4g}{measured}"
        lost = _lost(-gain.value, score)
        yield _limit(rule, text, p > 1 - gate.level, f"its {score.name} {lost} against the baseline {name}")


def allowed(level: float, earlier: int) -> float:
    """Return the largest p-value with which the next challenger of a test split is promoted.

    Over any number of challengers that are no better, these add up to 1 - level, so that this is also the most
    probable error of all promotions on one test split together.

    Args:
        level: The gate's level, such as 0.95.
        earlier: Number of challengers that were compared on this test split before.
    """
    return (1 - level) / ((earlier + 1) * (earlier + 2))


def detectable(found: Estimate, most: float) -> float:
    """Return the smallest true difference that passes with probability `POWER`, such as 0.8.

    Args:
        found: An estimate with the standard error of a difference between two versions.
        most: The largest p-value that passes.
    """
    # The noncentrality with which a t statistic exceeds the critical value with this probability.
    errors = nctdtrinc(found.freedom, 1 - POWER, intervals.quantile(1 - most, found.freedom))
    return float(errors) * found.error


def _against(
    new: Outcomes, champion: Champion | None, score: Score, gate: GateParams, earlier: int
) -> Iterator[Rule]:
    for kind in (kind for kind in gate.margins if kind not in new.groups):
        yield Rule(_margin(gate, kind), "not measured", False, f"nothing is measured by {kind}")
    if champion is None:
        yield Rule(BETTER, "there is no champion", True)
        return
    old = champion.outcomes
    if old is None:
        reason = f"cannot be compared with {champion.name}: {champion.why_not}"
        yield Rule(BETTER, reason, False, "; ".join(filter(None, (reason, champion.instead))))
        return
    old = replace(old, clusters=new.clusters)  # the old version may not have known them
    found = intervals.difference(old, new, score)
    if not np.isfinite(found.value):
        reason = f"its outcomes, or those of {champion.name}, are not finite numbers"
        yield Rule(BETTER, reason, False, reason)
        return
    yield _better(found, set(new.clusters), champion.name, score, allowed(gate.level, earlier), earlier)
    for kind, margin in gate.margins.items():
        if kind in new.groups and kind in old.groups:
            yield _no_group_worse(old, new, score, kind, margin, gate)


def _better(
    found: Estimate, sources: Collection[str], champion: str, score: Score, most: float, earlier: int
) -> Rule:
    """Judge whether the difference in score is more than chance."""
    low, high = found.interval
    size = f"{found.value:+.4g} [{low:+.4g}, {high:+.4g}] against {champion}"
    if 1 < len(sources) < FEWEST_SOURCES:
        reason = (
            f"test samples of {len(sources)} sources cannot show that it is better than {champion}: at least "
            f"{FEWEST_SOURCES} sources are needed"
        )
        return Rule(BETTER, f"{size}, from {len(sources)} sources", False, reason)
    p = _toward(found, score).p_value()
    probability = f"p = {p:.2g}" if p >= 0.0001 else "p < 0.0001"
    which = f"at most {most:.2g} for the {_ordinal(earlier + 1)} challenger of this test split"
    alone = f"; for its only source, {next(iter(sources))}" if len(sources) == 1 else ""
    surely = "surely " if _toward(found, score).value > 0 else ""
    return _limit(
        BETTER,
        f"{size}, {probability}, {which}{alone}",
        p <= most,
        f"not {surely}better than {champion}",
    )


def _toward(found: Estimate, score: Score) -> Estimate:
    """Return an estimate of the gain, which is positive if the new version is better."""
    return found if score.better == "more" else replace(found, value=-found.value)


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
    return f"{number}{ending}"


def _no_group_worse(old: Outcomes, new: Outcomes, score: Score, kind: str, margin: float, gate: GateParams) -> Rule:
    """Judge whether a group's loss exceeds the margin by more than chance."""
    found = intervals.group_differences(old, new, score, kind)
    before = intervals.group_values(old, score, kind)
    after = intervals.group_values(new, score, kind)
    had = [name for name in found if not math.isnan(before.get(name, math.nan))]  # others have nothing to lose
    gone = [name for name in had if math.isnan(after.get(name, math.nan))]
    judged = {name: found[name] for name in had if name not in gone and not too_few(found[name][0])}
    few = [f"{name} ({len(found[name][0].samples)})" for name in had if name not in gone and name not in judged]
    losses = {name: replace(gain := _toward(each, score), value=-gain.value) for name, (_, each) in judged.items()}
    most = (1 - gate.level) / max(1, len(losses))
    failed = {name: loss for name, loss in losses.items() if loss.p_value(margin) <= most}
    worst = max(losses, key=lambda name: losses[name].value, default="")
    loss = losses[worst].value if losses else 0.0
    text = f"{worst} is worse by {loss:.4g}" if loss > 0 else "none is worse"
    if loss > margin and not failed:
        text += f", which may be chance (p = {losses[worst].p_value(margin):.2g})"
    if gone:
        text = f"{', '.join(gone)} lost the {score.name}"
    if few:
        text += f"; too few samples to judge: {', '.join(few)}"
    lost = [f"{name} lost its {score.name}" for name in gone]
    lost += [f"{name} {_lost(failed[name].value, score)}" for name in _by_loss(failed)]
    return _limit(_margin(gate, kind), text, not lost, f"{kind} {_listed(lost)}")


def too_few(outcomes: Outcomes) -> bool:
    """Return whether a group has too few samples, or samples of too few sources, to be judged."""
    sources = len(set(outcomes.clusters))
    return len(outcomes.samples) < FEWEST_SAMPLES or 1 < sources < FEWEST_SOURCES


def _by_loss(losses: Mapping[str, Estimate]) -> list[str]:
    return sorted(losses, key=lambda name: -losses[name].value)


def _listed(lost: Sequence[str]) -> str:
    more = [f"and {len(lost) - SHOWN} more"] if len(lost) > SHOWN else []
    return ", ".join([*lost[:SHOWN], *more])


def _margin(gate: GateParams, kind: str) -> str:
    return f"no {kind} worse by more than {gate.margins[kind]:g}"


def _lost(loss: float, score: Score) -> str:
    if score.share:
        points = f"{100 * loss:.3g}"
        return f"lost {points} {'point' if points == '1' else 'points'}"
    return f"is worse by {loss:.4g}"


def markdown(rules: Sequence[Rule]) -> str:
    """Return the verdict as a Markdown table."""
    rows = (
        (display.markdown(rule.rule), display.markdown(rule.found), "passed" if rule.passed else "**failed**")
        for rule in rules
    )
    return table(("rule", "found", ""), rows)
