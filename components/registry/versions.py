"""Lists the versions of a registered model with their scores, data and verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.adapters import mlflow_runs, mlflow_versions
from components.adapters.mlflow_store import metric_name
from components.adapters.mlflow_versions import Promotion, Version
from components.registry import promote
from components.trust import gate
from components.trust.lineage import NONE

HASH = 8
"""Characters of a hash that the list shows; `pedigree trace --data` accepts them."""


@dataclass(frozen=True)
class Row:
    """A version's row in the list."""

    version: int
    score: str
    """Name, value and interval; empty for a version that Pedigree did not register."""
    aliases: tuple[str, ...]
    created: float
    """When it was registered, in seconds since 1970."""
    data: str
    """Name and beginning of the hash of its data set, and whether that is pinned."""
    why: str
    """Why it was or was not promoted, in brief."""


def rows(name: str) -> list[Row]:
    """Return a row for each version of a registered model, the newest first.

    Raises:
        PedigreeError: there is no such model, or the record of its promotions is damaged.
    """
    versions = mlflow_versions.of_model(name)
    aliases, steps = mlflow_versions.aliases(name), mlflow_versions.promotions(name)
    # A training may have become several versions: the metrics of its run are those of the last one.
    last = {each.run_id: each.version for each in versions}
    return [
        Row(
            version=each.version,
            score=_score(
                each.tags.get(mlflow_versions.SCORE, ""),
                mlflow_runs.metrics_of(each.run_id) if last[each.run_id] == each.version else {},
            ),
            aliases=tuple(sorted(alias for alias, version in aliases.items() if version == each.version)),
            created=each.created,
            data=_data(each.tags),
            why=_why(each, steps),
        )
        for each in reversed(versions)
    ]


def _score(score: str, metrics: Mapping[str, float]) -> str:
    """Return a score with its interval, which is only on the run and so may be gone."""
    ends = [metrics.get(metric_name(f"test/{score.rpartition(' ')[0]}_{end}")) for end in ("low", "high")]
    return score if None in ends else f"{score} [{ends[0]:.4g}, {ends[1]:.4g}]"


def _data(tags: Mapping[str, str]) -> str:
    if "data.raw" not in tags:
        return ""
    pinned = "pinned" if tags.get("data", NONE) != NONE else "not pinned"
    return f"{tags.get('data.name', '')} {tags['data.raw'][:HASH]}, {pinned}".lstrip()


def _why(version: Version, steps: Sequence[Promotion]) -> str:
    """Return what a person did with the version last, or else what the gate decided."""
    by_people = [each for each in promote.history(steps, version.version) if each[1]["who"] != mlflow_versions.GATE]
    if by_people:
        what, step = by_people[-1]
        return f"{what} by {step['who']}: {step['why']}"
    failed = [rule.objection for rule in gate.parse(version.tags.get(gate.TAG, "[]")) if not rule.passed]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return f"not promoted: {failed[0].partition('; ')[0]}{more}"
    return version.tags.get(mlflow_versions.REASON, "").replace("champion: ", "promoted: ", 1)
