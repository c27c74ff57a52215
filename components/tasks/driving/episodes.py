"""Recorded drives as people have them: scenario.json, and one CSV of tracks for each drive.

scenario.json                about the road, the time between frames, and the simulator
train/*.csv  test/*.csv      one row for each car of each frame; without these folders, the splits are drawn
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.datasets import ingest, raw_files
from components.datasets.ingest import Unusable
from components.display import brief
from components.errors import PedigreeError
from components.tasks.driving.road import STATE, Floats, Road, lane_of

SCENARIO, TRACKS = "scenario.json", ".csv"
SIMULATED = "SIMULATED.txt"
"""A file of this name says how the drives were simulated; they are called so wherever their results are shown."""
COLUMNS = ("frame", "id", *STATE, "ego")
"""Columns that tracks have; `disturbed` may be another, and further ones are passed over."""
DISTURBED = "disturbed"


class Scenario(BaseModel):
    """scenario.json."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    simulator: str = Field(description="What made the drives, with its version")
    environment: Literal["highway", "merge"] = Field(description="What the simulator repeats for the closed loop")
    hertz: int = Field(ge=1, le=100, description="Frames a second")
    seconds: float = Field(gt=0, le=600, description="Length of a drive in closed loop")
    lanes: Road = Field(min_length=1, description="From left to right")
    seeds: Mapping[str, int] = Field(
        default={}, description="Seed of a drive's file, with which it can be repeated"
    )
    collided: Sequence[str] = Field(default=[], description="Files of drives that end as the ego car collides")


class Drive(NamedTuple):
    """A recorded drive."""

    file: str
    cars: NDArray[np.float32]
    """(T, C, 6), the ego car first; NaN where a car is not there."""
    disturbed: NDArray[np.bool_]
    """Whether the ego car was moved from outside just before a frame, (T,): a car does not accelerate like that."""


class Survey(NamedTuple):
    """What a raw folder holds."""

    scenario: Scenario
    splits: dict[str, list[str]]
    """Files by split; only train if there are no folders of splits."""


def survey(raw: Path) -> Survey:
    """Return the scenario and the files of drives, without reading tracks.

    Raises:
        PedigreeError: scenario.json is missing or invalid, there are no drives, or a test drive cannot be repeated.
    """
    scenario = _scenario(raw / SCENARIO)
    splits: dict[str, list[str]] = {}
    for name, is_folder in sorted(raw_files.visible(raw)):
        if is_folder and (split := raw_files.split_of(name)):
            own = [f"{name}/{file}" for file, folder in raw_files.visible(raw / name) if not folder]
            splits.setdefault(split, []).extend(sorted(file for file in own if file.endswith(TRACKS)))
        elif not is_folder and name.endswith(TRACKS):
            splits.setdefault("train", []).append(name)
    splits = {split: files for split, files in splits.items() if files}
    if "train" not in splits:
        raise PedigreeError(f"{raw} has no tracks for training: put one CSV for each drive into {raw}/train/")
    for file in splits.get("test", []):
        _expect_seed(raw, file, scenario)
    seen = {scenario.seeds[file]: file for file in splits["train"] if file in scenario.seeds}
    for file in splits.get("test", []):
        if twin := seen.get(scenario.seeds[file]):
            raise PedigreeError(
                f"{raw / SCENARIO}: {file} for testing and {twin} for training have the same seed "
                f"{scenario.seeds[file]}: remove one of them"
            )
    return Survey(scenario, splits)


def _expect_seed(raw: Path, file: str, scenario: Scenario) -> None:
    if file not in scenario.seeds:
        raise PedigreeError(
            f"{raw / SCENARIO}: `seeds` has no seed for {file}, so the simulator cannot repeat it for a test: add "
            "the seed, or move the file to train/"
        )


def _scenario(file: Path) -> Scenario:
    try:
        return Scenario.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise PedigreeError(
            f"{file} is missing: it describes the lanes and the frames of the tracks beside it, as "
            "docs/tasks/driving.md says"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise PedigreeError(f"{file}: {where}: {first['msg']}: correct it") from None
    except json.JSONDecodeError as error:
        raise PedigreeError(f"{file}:{error.lineno}: this is not JSON ({error.msg}): correct this line") from None
    except (ValueError, RecursionError):
        raise PedigreeError(f"{file}: this is not JSON in UTF-8: write it as docs/tasks/driving.md says") from None


def read(raw: Path, file: str, road: Road) -> Drive:
    """Read a drive's tracks.

    Raises:
        Unusable: with the line, if a row has the wrong length or no numbers, a car is in two places at once, frames
            are missing, or there is not one ego car in each frame, in a lane that it may use.
    """
    text = _text(raw, file)
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = [name.strip() for name in next(rows, [])]
    if missing := [name for name in COLUMNS if name not in header]:
        raise Unusable(f"line 1: there is no column {', '.join(missing)}")
    table, lines = [], []
    wanted = [header.index(name) for name in (*COLUMNS, *([DISTURBED] if DISTURBED in header else []))]
    try:
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise Unusable(f"line {rows.line_num}: {len(row)} values, but the header has {len(header)} columns")
            table.append(_numbers(row, wanted, header, rows.line_num))
            lines.append(rows.line_num)
    except csv.Error as error:
        raise Unusable(f"line {rows.line_num}: {error}") from None
    if not table:
        raise Unusable("line 1: no row follows the header")
    return _drive(file, np.array(table), np.array(lines), road)


def _text(raw: Path, file: str) -> str:
    try:
        return ingest.contents(raw, file, "tracks").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unusable(f"byte {error.start} is not UTF-8") from None


def _numbers(row: Sequence[str], wanted: Sequence[int], header: Sequence[str], line: int) -> list[float]:
    found = []
    for column in wanted:
        try:
            value = float(row[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise Unusable(f"line {line}: {brief(row[column])} in the column {header[column]} is not a number")
        found.append(value)
    return found


def _drive(file: str, table: Floats, lines: NDArray[np.int64], road: Road) -> Drive:
    frame, car = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
    _expect_one_place(frame, car, lines)
    ego, first = table[:, COLUMNS.index("ego")] > 0, frame.min()
    if not ego.any():
        raise Unusable(f"lines {lines[0]} to {lines[-1]}: no row has an ego car (ego = 1)")
    if len(several := np.unique(car[ego])) > 1:
        line = lines[ego & (car == several[1])][0]
        raise Unusable(f"line {line}: car {several[1]} is a second ego car beside car {several[0]}")
    frames = np.arange(first, frame.max() + 1)
    without = np.setdiff1d(frames, frame[ego])
    if len(without):
        raise Unusable(f"line {lines[frame >= without[0]][0]}: frame {without[0]} has no ego car")
    others = np.setdiff1d(car, several)
    numbers = {int(number): place for place, number in enumerate([*several, *others])}
    cars = np.full((len(frames), len(numbers), len(STATE)), np.nan, np.float32)
    places = [numbers[number] for number in car.tolist()]
    cars[frame - first, places] = table[:, 2 : 2 + len(STATE)]
    disturbed = np.zeros(len(frames), bool)
    if table.shape[1] > len(COLUMNS):
        disturbed[frame[ego] - first] = table[ego, len(COLUMNS)] > 0
    own = cars[:, 0].astype(np.float64)
    if len(nowhere := np.flatnonzero(lane_of(road, own[:, 0], own[:, 1]) < 0)):
        line = lines[ego & (frame == first + nowhere[0])][0]
        raise Unusable(f"line {line}: the ego car is beyond the lanes of {SCENARIO}")
    return Drive(file, cars, disturbed)


def _expect_one_place(frame: NDArray[np.int64], car: NDArray[np.int64], lines: NDArray[np.int64]) -> None:
    order = np.lexsort((lines, car, frame))
    same = (np.diff(frame[order]) == 0) & (np.diff(car[order]) == 0)
    if same.any():
        one, two = order[np.flatnonzero(same)[0]], order[np.flatnonzero(same)[0] + 1]
        raise Unusable(
            f"line {lines[two]}: car {car[two]} is in two places at once in frame {frame[two]}: the other is in "
            f"line {lines[one]}"
        )
