"""Recorded drives -> what the ego car saw and did in each frame, and the seeds of the test drives."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from components.contracts import Manifest, Part, RejectedFile
from components.datasets import arrays, groups, ingest, raw_files
from components.datasets.ingest import Unusable
from components.datasets.splits import Columns
from components.errors import PedigreeError
from components.runtime.progress import Progress
from components.tasks.driving import closed_loop, episodes, measures
from components.tasks.driving.closed_loop import Driver
from components.tasks.driving.episodes import Drive, Scenario
from components.tasks.driving.measures import Driven
from components.tasks.driving.params import DrivingParams, DrivingPrepareParams
from components.tasks.driving.road import FEATURES, SPEED, Floats, X, Y, features, lane_of

log = logging.getLogger("pedigree.prepare")

SEEN, ACCELERATION, CHANGE, SEED = "features", "acceleration", "change", "seed"
"""Names of the arrays. Train and val have what the ego car sees, and until the horizon its acceleration in m/s² and
its change of lane: 0 to the left, 1 none, 2 to the right. Test has seeds."""
DRIVERS: tuple[Driver, ...] = ("expert", "idm", "idle")
"""Who drives the test seeds, too: whoever was recorded, IDM that stays in its lane, and nobody."""
REPEATED = 0.05
"""Metres, radians and m/s by which the first frame of a repeated drive may differ from the recorded one."""


class DrivingFacts(BaseModel):
    """Facts about the drives that the network and its callers need."""

    model_config = ConfigDict(frozen=True)

    scenario: Scenario
    mean: list[float] = Field(description="Of each feature in training")
    spread: list[float] = Field(description="Standard deviation of each feature in training, at least 0.01")
    accelerations: tuple[float, float] = Field(description="Least and largest acceleration in training, in m/s²")
    changes: dict[str, list[int]] = Field(description="Samples with a change to the left, none and to the right")
    drives: dict[str, int] = Field(description="Drives by split")


def prepare(raw: Path, out: Path, params: DrivingParams) -> Manifest:
    """Write the samples of train and val, and the seeds of test and how `DRIVERS` do, into the empty folder `out`.

    Memory holds all drives.

    Raises:
        PedigreeError: there are no drives, they cannot be divided or repeated, or too many are rejected.
    """
    closed_loop.expect_simulator("repeats the test drives")
    options = params.prepare
    scenario, given = episodes.survey(raw)
    drives, rejected = _read(raw, scenario, given)
    total = sum(map(len, given.values()))
    ingest.expect_few(raw, out, rejected, total, options.max_rejected)
    splits, drawn = _divided(raw, scenario, drives, options)
    samples = {split: _samples(scenario, splits[split], options) for split in ("train", "val")}
    for split, own in samples.items():
        if not len(own.features):
            raise PedigreeError(
                f"{raw}: no drive for {split} is longer than prepare.horizon, {options.horizon:g} s: add some"
            )
    parts = {split: _write(out, split, own) for split, own in samples.items()}
    parts["test"] = _write_test(raw, out, scenario, splits["test"])
    train = samples["train"]
    facts = DrivingFacts(
        scenario=scenario.model_copy(update={"seeds": {}, "collided": []}),
        mean=train.features.mean(0, dtype=np.float64).round(6).tolist(),
        spread=np.maximum(train.features.std(0, dtype=np.float64), 0.01).round(6).tolist(),
        accelerations=(float(train.acceleration.min()), float(train.acceleration.max())),
        changes={split: np.bincount(each.change, minlength=3).tolist() for split, each in samples.items()},
        drives={split: len(each) for split, each in splits.items()},
    )
    return Manifest(
        task="driving",
        splits={split: parts[split] for split in raw_files.SPLITS},
        rejected=rejected,
        ignored=raw_files.about(raw),
        facts=facts.model_dump(mode="json"),
        drawn=drawn,
        note="simulated traffic" if (raw / episodes.SIMULATED).is_file() else "",
    )


def survey(raw: Path, options: DrivingPrepareParams) -> episodes.Survey:
    """Return the scenario and the files of drives; see `episodes.survey`."""
    return episodes.survey(raw)


def _read(
    raw: Path, scenario: Scenario, given: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[Drive]], list[RejectedFile]]:
    drives: dict[str, list[Drive]] = {}
    rejected, progress, done = [], Progress(log), 0
    total = sum(map(len, given.values()))
    for split, files in given.items():
        drives[split] = []
        for file in files:
            try:
                drives[split].append(episodes.read(raw, file, scenario.lanes))
            except Unusable as reason:
                rejected.append(RejectedFile(file=file, reason=str(reason)))
            done += 1
            progress.say(f"{raw}: {done:,} of {total:,} drives read")
    return drives, rejected


def _divided(
    raw: Path, scenario: Scenario, given: Mapping[str, Sequence[Drive]], options: DrivingPrepareParams
) -> tuple[dict[str, list[Drive]], str]:
    """Draw the splits that are missing from train, or, with `resplit`, test and val from all drives.

    Only drives that the simulator can repeat are drawn for testing: those with a seed and without disturbances.
    """
    parts = {split: list(own) for split, own in given.items() if own}
    if options.resplit:
        parts = {"train": [drive for own in parts.values() for drive in own]}
    drawn = ""
    for split, share in (("test", options.test_share), ("val", options.val_share)):
        if split in parts:
            continue
        pool = parts.get("train", [])
        if split == "test":
            pool = [each for each in pool if each.file in scenario.seeds and not each.disturbed.any()]
        if len(parts.get("train", [])) <= (2 if split == "test" else 1) or len(pool) < 2:
            raise PedigreeError(f"{raw}: {len(pool):,} drives are too few to draw {split} from them: add some")
        chosen = groups.draw_each({"": [each.file for each in pool]}, share, 1, options.seed, options.resplit)
        parts[split] = [each for each in parts["train"] if each.file in chosen]
        parts["train"] = [each for each in parts["train"] if each.file not in chosen]
        if split == "test":
            drawn = f"{len(chosen):,} of {len(pool):,} drives that the simulator can repeat"
    return parts, drawn


class Samples(NamedTuple):
    """The samples of a split, one for each frame with a horizon."""

    features: NDArray[np.float32]  # (N, F)
    acceleration: NDArray[np.float32]  # (N,)
    change: NDArray[np.int64]  # (N,)


def _samples(scenario: Scenario, drives: Sequence[Drive], options: DrivingPrepareParams) -> Samples:
    """Return the samples of drives; a frame is left out if a disturbance comes before its horizon."""
    road, ahead = scenario.lanes, max(1, round(options.horizon * scenario.hertz))
    found = []
    for each in drives:
        cars = each.cars.astype(np.float64)
        ego, frames = cars[:, 0], len(cars) - ahead
        if frames < 1:
            continue
        lane = lane_of(road, ego[:, X], ego[:, Y])
        change = np.clip(lane[ahead:] - lane[:-ahead], -1, 1) + 1
        acceleration = (ego[ahead:, SPEED] - ego[:-ahead, SPEED]) * scenario.hertz / ahead
        before = np.concatenate([[0], each.disturbed.cumsum()])
        calm = before[1 + ahead :] == before[1:-ahead]
        seen = features(road, cars[:frames])
        found.append(Samples(seen[calm], acceleration[calm].astype(np.float32), change[calm]))
    if not found:
        return Samples(np.empty((0, len(FEATURES)), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))
    return Samples(*(np.concatenate(each) for each in zip(*found, strict=True)))


def _write(out: Path, split: str, samples: Samples) -> Part:
    with (
        arrays.Writer(out / f"{split}.{SEEN}.npy", np.float32, (len(FEATURES),)) as seen,
        arrays.Writer(out / f"{split}.{ACCELERATION}.npy", np.float32) as acceleration,
        arrays.Writer(out / f"{split}.{CHANGE}.npy", np.int64) as change,
    ):
        seen.append(samples.features)
        acceleration.append(samples.acceleration)
        change.append(samples.change)
    return Part(samples=change.rows, sha256=arrays.joint_sha256(seen, acceleration, change))


def _write_test(raw: Path, out: Path, scenario: Scenario, drives: Sequence[Drive]) -> Part:
    """Write the seeds of the test drives, their files, and how each driver drives them."""
    seeds = [scenario.seeds[each.file] for each in drives]
    _expect_repeated(raw, scenario, drives[0])
    results: dict[Driver, Floats] = {
        "expert": measures.table(
            scenario.lanes,
            [Driven(each.cars.astype(np.float64), each.file in scenario.collided) for each in drives],
            scenario.hertz,
        )
    }
    for driver in DRIVERS[1:]:
        driven = closed_loop.drive(scenario, seeds, driver, log)
        results[driver] = measures.table(scenario.lanes, driven, scenario.hertz)
    names = "".join(f"{each.file}\n" for each in drives)
    (out / "test.files.txt").write_text(names, encoding="utf-8", newline="\n")
    with arrays.Writer(out / f"test.{SEED}.npy", np.int64) as written:
        written.append(np.array(seeds))
    for name, table in results.items():
        with arrays.Writer(_of_driver(out, name), np.float64, (table.shape[1],)) as writer:
            writer.append(table)
    return Part(samples=len(seeds), sha256=arrays.joint_sha256(written))


def _expect_repeated(raw: Path, scenario: Scenario, drive: Drive) -> None:
    """Check that the simulator begins a test drive as it was recorded: another version of it may not."""
    again, recorded = closed_loop.first_scene(scenario, scenario.seeds[drive.file]), drive.cars[0]
    if again.shape != recorded.shape or not np.allclose(again, recorded, rtol=0, atol=REPEATED):
        raise PedigreeError(
            f"{raw / drive.file}: the simulator that is installed begins seed {scenario.seeds[drive.file]} with "
            f"another scene: install {scenario.simulator}, or write the data again"
        )


def _of_driver(folder: Path, driver: Driver) -> Path:
    return folder / f"test.{driver}.npy"


def drivers(prepared: Path) -> dict[str, Floats]:
    """Return how each of `DRIVERS` drives the test seeds, (N, 6) as `measures.Measures`.

    Raises:
        PedigreeError: a file is missing or damaged.
    """
    return {driver: arrays.load(_of_driver(prepared, driver)).numpy() for driver in DRIVERS}


def load_split(prepared: Path, split: str) -> Columns:
    """Return features, float32 (N, F), acceleration, float32 (N,), and change, int64 (N,); of test the seed, int64.

    Raises:
        PedigreeError: a file is missing or damaged.
    """
    names = (SEED,) if split == "test" else (SEEN, ACCELERATION, CHANGE)
    return Columns({name: arrays.load(prepared / f"{split}.{name}.npy") for name in names})
