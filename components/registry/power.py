"""Which difference between two versions a model's test split can detect."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from components.adapters import mlflow_versions
from components.adapters.mlflow_versions import CHAMPION, Version
from components.contracts import Better, Outcomes, Score
from components.errors import PedigreeError
from components.params import GateParams
from components.registry import compare
from components.registry.compare import Side
from components.stages import prepare, register
from components.trust import gate, intervals
from components.trust.intervals import Estimate
from components.trust.lineage import NONE


@dataclass(frozen=True)
class Group:
    """What the gate can detect in one group, such as a class."""

    kind: str
    name: str
    samples: int
    loss: float | None
    """The smallest loss that rejects a version with probability `gate.POWER`; None if no loss does."""
    why_not: str = ""
    """Why no loss does."""


@dataclass(frozen=True)
class Power:
    """What a test split can detect."""

    champion: Version
    test_split: str
    """Hash of the test split on which the champion was tested."""
    score: Score
    samples: int
    sources: int
    """Number of sources of the test samples; 0 if samples have none."""
    earlier: int
    """Challengers that were compared on this test split before."""
    most: float
    """The largest p-value with which the next challenger is promoted."""
    difference: float | None
    """The smallest gain in score that passes with probability `gate.POWER`; None if no gain does."""
    judged_by: str
    """Name of the other version whose differences from the champion show how much chance makes; empty if none."""
    groups: Sequence[Group]
    why_not: str = ""
    """Why no gain does."""


def power(name: str, rules: GateParams) -> Power:
    """Return what the test split of a model's champion can detect.

    How much two versions differ by chance is taken from the champion and the last other version that was tested on
    the same split. Without one, and where both have the same outcomes, which shows nothing of chance, their errors
    are assumed to be independent, which is more than usual.

    Args:
        name: The registered model.
        rules: The gate's level and margins.

    Raises:
        PedigreeError: there is no champion, or its files are gone.
    """
    champion = mlflow_versions.find(f"{name}@{CHAMPION}")
    side = compare.side_of(champion)
    outcomes, score = side.outcomes, compare.score_of(side)
    other, found = _other(champion, side)
    tested = side.lineage.data.test_split, champion.tags.get(register.TEST_SAMPLES, NONE)
    earlier = len(register.challengers(name, *tested))
    most, sources = gate.allowed(rules.level, earlier), len(set(outcomes.clusters))
    estimate = _by_chance(outcomes, intervals.difference(found, outcomes, score) if found else None, score)
    needed, value = gate.detectable(estimate, most), intervals.value(outcomes, score)
    left = _distance(value, score, score.better)
    why_not = ""
    if 1 < sources < gate.FEWEST_SOURCES or math.isnan(estimate.error):
        why_not = f"at least {gate.FEWEST_SOURCES} sources are needed"
    elif not estimate.error:
        why_not = "all outcomes are equal, which tells nothing of chance"
    elif needed > left:
        why_not = f"{needed:.3g} is needed, and the champion's {score.name} of {value:.4g} leaves {left:.3g}"
    return Power(
        champion,
        side.lineage.data.test_split,
        score,
        len(outcomes.samples),
        sources,
        earlier,
        most,
        None if why_not else needed,
        f"version {other.version}" if other else "",
        [group for kind in rules.margins for group in _groups(outcomes, found, score, kind, rules)],
        why_not,
    )


def is_of_another_split(found: Power, prepared: Path) -> bool:
    """Return whether a folder of prepared data has another test split than `found` is of, as after a new draw.

    A folder without prepared data that can be read has none.
    """
    try:
        present = prepare.load(prepared).manifest.splits["test"].sha256
    except PedigreeError:
        return False
    return present != found.test_split


def _other(champion: Version, side: Side) -> tuple[Version | None, Outcomes | None]:
    """Return the last other version that was tested on the champion's test split, and its outcomes."""
    for version in reversed(mlflow_versions.versions()):
        same = version.tags.get("data.test_split") == side.lineage.data.test_split
        if version.name != champion.name or version.version == champion.version or not same:
            continue
        if version.tags.get("weights") == side.lineage.weights:
            continue
        with suppress(PedigreeError):  # its files may be gone
            found = compare.side_of(version).outcomes
            if register.comparable(found, side.outcomes):
                return version, found
    return None, None


def _by_chance(outcomes: Outcomes, found: Estimate | None, score: Score) -> Estimate:
    """Estimate the difference that chance makes between two versions that are as good.

    Args:
        outcomes: Those of one version.
        found: Its difference from another version, if there is one.
        score: The score in which they differ.
    """
    if found and found.error:  # also if it is not a number
        return found
    own = intervals.estimate(outcomes, score)
    if own.error == 0 and score.share:  # all outcomes are equal, so that only the interval tells how sure that is
        ends = intervals.interval(outcomes, score)
        far = max(abs(end - own.value) for end in ends)
        own = replace(own, error=far / intervals.quantile(1 - (1 - intervals.LEVEL) / 2, own.freedom))
    return replace(own, error=math.sqrt(2) * own.error)


def _distance(value: float, score: Score, direction: Better) -> float:
    """Return how far a score is from the last value that it can have in a direction."""
    if not score.share:
        return math.inf
    return 1 - value if direction == "more" else value


def _groups(outcomes: Outcomes, other: Outcomes | None, score: Score, kind: str, rules: GateParams) -> list[Group]:
    if kind not in outcomes.groups:
        return []
    found = {
        name: (samples, _by_chance(samples, estimate if other else None, score))
        for name, (samples, estimate) in intervals.group_differences(
            other or outcomes, outcomes, score, kind
        ).items()
    }
    judged = [name for name, (samples, _) in found.items() if not gate.too_few(samples)]
    most, values = (1 - rules.level) / max(1, len(judged)), intervals.group_values(outcomes, score, kind)
    groups = []
    for name, (samples, estimate) in found.items():
        loss = rules.margins[kind] + gate.detectable(estimate, most)
        left = _distance(values.get(name, math.nan), score, "less" if score.better == "more" else "more")
        why_not = "too few samples" if name not in judged else "" if loss <= left else "more than it can lose"
        groups.append(Group(kind, name, len(samples.samples), None if why_not else loss, why_not))
    return groups
