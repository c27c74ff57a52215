"""Whether a new version takes the champion's place: rules, each with its number, all of which have to hold."""

import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from components.contracts import Outcomes
from components.params import EvaluateParams, GateParams
from components.trust import bootstrap
from components.trust.tables import table

TAG = "verdict"
"""Of a version: the rules as JSON."""


@dataclass(frozen=True)
class Rule:
    """One condition, and how it came out."""

    rule: str
    found: str
    """The number that was measured, or why there is none."""
    passed: bool


@dataclass(frozen=True)
class Rival:
    """The champion, as far as a new version can be compared with it."""

    name: str
    """As people call it: "version 3"."""
    outcomes: Outcomes | None
    """On the very samples that the new version was tested on."""
    why_not: str = ""
    """Where there are no such outcomes: the reason."""


@dataclass(frozen=True)
class Candidate:
    """What was measured of a new version."""

    metrics: Mapping[str, float]
    outcomes: Outcomes
    megabytes: float
    """Of its weights."""
    milliseconds: float
    """That it takes to answer one request."""


def parse(text: str) -> list[Rule]:
    """Read the rules of a version from their JSON."""
    return [Rule(**rule) for rule in json.loads(text)]


def judge(
    new: Candidate, rival: Rival | None, better: Literal["more", "less"], gate: GateParams, draws: EvaluateParams
) -> list[Rule]:
    """Return every rule and how it came out; the version is promoted when all have passed.

    Args:
        new: The version at the gate.
        rival: The present champion, if there is one.
        better: Which mean outcome is the better one.
        gate: The bounds.
        draws: The bootstrap's resamplings and seed.
    """
    return [
        *_bounds(new.metrics, gate),
        *_against(new.outcomes, rival, better, gate, draws),
        Rule(f"weights at most {gate.megabytes:g} MB", f"{new.megabytes:.1f} MB", new.megabytes <= gate.megabytes),
        Rule(
            f"an answer within {gate.milliseconds:g} ms",
            f"{new.milliseconds:.1f} ms",
            new.milliseconds <= gate.milliseconds,
        ),
    ]


def _bounds(metrics: Mapping[str, float], gate: GateParams) -> Iterator[Rule]:
    sides = (("at least", gate.at_least, operator.ge), ("at most", gate.at_most, operator.le))
    for side, bounds, holds in sides:
        for name, bound in bounds.items():
            rule, value = f"{name} {side} {bound:g}", metrics.get(name)
            yield (
                Rule(rule, "not measured", False)
                if value is None
                else Rule(rule, f"{value:.4g}", holds(value, bound))
            )


def _against(
    new: Outcomes, rival: Rival | None, better: Literal["more", "less"], gate: GateParams, draws: EvaluateParams
) -> Iterator[Rule]:
    sure = f"better than the champion, {gate.level:.1%} sure"
    if rival is None:
        yield Rule(sure, "there is no champion", True)
        return
    old = rival.outcomes
    if old is None:
        yield Rule(sure, f"cannot be compared with {rival.name}: {rival.why_not}", False)
        return
    found = bootstrap.difference(old, new, draws)
    if not np.isfinite(found.mean):
        yield Rule(sure, "its outcomes, or the champion's, are not finite numbers", False)
        return
    share = found.positive if better == "more" else 1 - found.positive
    size = f"{found.mean:+.4g} [{found.low:+.4g}, {found.high:+.4g}]"
    yield Rule(sure, f"{share:.1%}: {size} against {rival.name}", share >= gate.level)
    if new.classes:
        name, loss = _worst_class(old, new, better)
        told = f"{name} is worse by {loss:.4g}" if loss > 0 else "none is worse"
        yield Rule(f"no class worse by more than {gate.class_margin:g}", told, loss <= gate.class_margin)


def _worst_class(old: Outcomes, new: Outcomes, better: Literal["more", "less"]) -> tuple[str, float]:
    """Return the class whose mean outcome lost most, and how much it lost."""
    names, places = np.unique(np.array(new.classes, dtype=object), return_inverse=True)
    counts = np.bincount(places, new.counts)
    gained = np.bincount(places, new.sums - old.sums) / counts
    loss = -gained if better == "more" else gained
    worst = int(loss.argmax())
    return str(names[worst]), float(loss[worst])


def markdown(rules: Sequence[Rule]) -> str:
    """Return the verdict as a table that MLflow and Prefect show."""
    told = ((rule.rule, rule.found, "passed" if rule.passed else "**failed**") for rule in rules)
    return table(("rule", "found", ""), told)
