"""Evaluation in closed loop: collisions, progress beside the expert's, comfort, and films of the worst drives."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from components import figures, scores
from components.contracts import Batch, Manifest, Outcomes, Prepared, Score
from components.datasets import ingest
from components.tasks.driving import decisions, measures, pictures
from components.tasks.driving.measures import Measures
from components.tasks.driving.model import Planner
from components.tasks.driving.params import DrivingParams
from components.tasks.driving.pictures import Film
from components.tasks.driving.prepare import DrivingFacts, drivers
from components.tasks.driving.road import STATE, Floats
from components.tasks.driving.train import CARS, FRAMES

WORST = 5
"""Number of drives that are shown."""
MOVED = 1.0
"""Metres that the expert must have driven for progress to be a share of them."""


def outcomes(predictions: Iterable[Batch], prepared: Prepared, params: DrivingParams) -> Outcomes:
    """Return the measures of each test drive, beside the expert's progress on the same seed."""
    return _outcomes(_table(predictions), prepared)


def _table(predictions: Iterable[Batch]) -> Floats:
    """Return the measures of the predicted drives, (N, 6)."""
    return np.concatenate(
        [np.stack([batch[name].numpy() for name in Measures._fields], 1) for batch in predictions]
    )


def _outcomes(table: Floats, prepared: Prepared) -> Outcomes:
    found = dict(zip(Measures._fields, table.T, strict=True))
    expert = drivers(prepared.folder)["expert"][:, Measures._fields.index("progress")]
    found["gain"] = found["progress"] - expert
    found["relative"] = found["progress"] / np.maximum(expert, MOVED)
    found["safe"] = np.where(found["collided"] + found["off_road"] > 0, 0.0, found["relative"])
    return Outcomes(ingest.file_names(prepared.folder, "test"), found)


def score(manifest: Manifest) -> Score:
    """Return the mean progress relative to the expert's, where a drive with a collision or off the road counts 0.

    So does nuPlan's closed-loop score (Caesar et al. 2021, arXiv:2106.11810), of which this is a part: progress,
    multiplied by 0 after a collision or outside the drivable area.
    """
    return scores.ratio("safe_progress", "more", "safe")


def further_scores(manifest: Manifest) -> Sequence[Score]:
    """Return the rates of collisions and of drives off the road, and progress, paired by seed with the expert's."""
    return [
        scores.ratio("collision_rate", "less", "collided", share=True),
        scores.ratio("off_road_rate", "less", "off_road", share=True),
        scores.ratio("progress", "more", "relative"),
        scores.ratio("progress_gain", "more", "gain"),
    ]


def evaluate(
    model: nn.Module, predictions: Iterable[Batch], prepared: Prepared, out: Path, params: DrivingParams
) -> dict[str, float]:
    """Compute metrics; write plots of the drivers and film strips, all drives, animations, and scenes with answers.

    Args:
        model: The network, on the CPU and in evaluation mode, for what it does in the first scenes.
        predictions: From `train.predict`, in the split's order.
        prepared: The prepared data of the predictions.
        out: Gets plots/{drivers,film_strips}.png, and examples/{drives.csv,scenes.jsonl,worst_<number>.gif}.
        params: Unused.
    """
    assert isinstance(model, Planner), "from build_model"
    facts = DrivingFacts.model_validate(prepared.manifest.facts)
    table = _outcomes(_table(predictions), prepared)
    others = drivers(prepared.folder)
    films = _films(predictions, facts, table)
    _write_examples(out / "examples", model, predictions, table)
    road, hertz, note = facts.scenario.lanes, facts.scenario.hertz, prepared.manifest.note
    for number, film in enumerate(films, 1):
        pictures.animate(road, film, hertz, out / "examples" / f"worst_{number}.gif")
    figures.save(pictures.film_strips(road, films, hertz), out / "plots" / "film_strips.png", note)
    own = np.stack([table.columns[name] for name in Measures._fields], 1)
    figures.save(pictures.drivers({"network": own, **others}), out / "plots" / "drivers.png", note)
    every = np.ones(len(table.samples))
    metrics = {
        each.name: each.of(table.columns, every)
        for each in (score(prepared.manifest), *further_scores(prepared.manifest))
    }
    metrics["collision_bound"] = _bound(table.columns["collided"])
    metrics |= _summary("", own)
    for driver, results in others.items():
        metrics |= {
            f"{driver}_collision_rate": float(results[:, 0].mean()),
            f"{driver}_off_road_rate": float(results[:, 1].mean()),
            f"{driver}_progress": float((results[:, 2] / np.maximum(others["expert"][:, 2], MOVED)).mean()),
            **_summary(f"{driver}_", results),
        }
    return metrics


def _bound(collided: NDArray[np.float64]) -> float:
    """Return the rate of collisions that is not exceeded, at 95 % (Clopper and Pearson 1934)."""
    from scipy.stats import binomtest  # which a served version does without

    found = binomtest(int(collided.sum()), len(collided)).proportion_ci(0.9, "exact")
    return float(found.high)


def _summary(prefix: str, table: Floats) -> dict[str, float]:
    """Return the means of the measures in metres, m/s, m/s³ and seconds."""
    names = {"progress": "metres", "speed": "speed", "jerk": "jerk", "min_ttc": "min_ttc"}
    return {
        f"{prefix}{name}": float(table[:, Measures._fields.index(field)].mean()) for field, name in names.items()
    }


def _drives(predictions: Iterable[Batch]) -> Iterable[Floats]:
    """Yield the cars of each predicted drive, (T, C, 6), one after the other."""
    for batch in predictions:
        for cars, frames in zip(batch[CARS].numpy(), batch[FRAMES].tolist(), strict=True):
            yield cars[:frames].astype(np.float64)


def _films(predictions: Iterable[Batch], facts: DrivingFacts, table: Outcomes) -> list[Film]:
    """Return the worst drives: collisions and drives off the road first, then those with the least progress."""
    columns = table.columns
    unsafe = columns["collided"] + columns["off_road"]
    worst = np.lexsort((columns["relative"], -unsafe))[:WORST].tolist()
    found: Mapping[int, Floats] = {
        number: cars for number, cars in enumerate(_drives(predictions)) if number in worst
    }
    films = []
    for number in worst:
        cars, name = found[number], table.samples[number]
        times = measures.times_to_collision(facts.scenario.lanes, cars)
        moment = len(cars) - 1 if columns["collided"][number] else int(times.argmin())
        collided, off_road = columns["collided"][number], columns["off_road"][number]
        what = "collision, " if collided else "off the road, " if off_road else ""
        caption = (
            f"{name}: {what}{columns['relative'][number]:.0%} of the expert's progress, least time to collision "
            f"{columns['min_ttc'][number]:.1f} s"
        )
        films.append(Film(name, cars, moment, caption))
    return films


def _write_examples(folder: Path, model: Planner, predictions: Iterable[Batch], table: Outcomes) -> None:
    """Write the first scene of each drive as a request, and its measures with what the network does first."""
    policy = decisions.policy_of(model)
    with (
        (folder / "scenes.jsonl").open("w", encoding="utf-8", newline="\n") as scenes,
        (folder / "drives.csv").open("w", newline="", encoding="utf-8") as drives,
    ):
        writer = csv.writer(drives)
        writer.writerow(["file", *table.columns, "first_acceleration", "first_lane"])
        for row, cars in enumerate(_drives(predictions)):
            scene = cars[0][~np.isnan(cars[0, :, 0])]
            cells = [dict(zip(STATE, car, strict=True)) for car in scene.tolist()]
            request = {"cars": [{**cell, "ego": not number} for number, cell in enumerate(cells)]}
            scenes.write(f"{json.dumps(request)}\n")
            control = policy(scene[None])
            measured = [f"{column[row]:.6g}" for column in table.columns.values()]
            answer = [f"{control.acceleration[0]:.6g}", int(control.lane[0])]
            writer.writerow([table.samples[row], *measured, *answer])
