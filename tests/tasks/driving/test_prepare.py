"""Recorded drives become samples; what is wrong with them is said with file and line, and nothing is lost."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from components.errors import PedigreeError
from components.tasks.driving import closed_loop, episodes
from components.tasks.driving import prepare as preparing
from tests.tasks.driving import tiny
from tests.tasks.driving.values import prepared, values


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> Path:
    """Tiny drives."""
    folder = tmp_path_factory.mktemp("drives") / "raw"
    tiny.write(folder)
    return folder


@pytest.fixture
def raw(simulated, tmp_path) -> Path:
    """A copy of tiny drives, to be damaged."""
    return shutil.copytree(simulated, tmp_path / "raw")


def lines(raw: Path, file: str = "train/0.csv") -> list[str]:
    return (raw / file).read_text().splitlines()


def rewrite(raw: Path, rows: list[str], file: str = "train/0.csv") -> None:
    (raw / file).write_text("\n".join(rows) + "\n")


def error_of(raw: Path, **options: object) -> str:
    """Return the error with which preparation ends."""
    with pytest.raises(PedigreeError) as error:
        prepared(raw.parent, max_rejected=0, **options)
    return str(error.value)


def test_the_samples_are_frames_with_the_acceleration_and_the_change_of_lane_until_the_horizon(raw):
    scenario, splits = episodes.survey(raw)
    drive = episodes.read(raw, splits["train"][0], scenario.lanes)
    speeds = drive.cars[:, 0, 3]
    (raw / "val").mkdir()
    for file in splits["train"][1:]:
        (raw / file).rename(raw / "val" / Path(file).name)
    manifest = prepared(raw.parent).manifest
    split = preparing.load_split(raw.parent / "prepared", "train")
    assert manifest.splits["train"].samples == len(speeds) - 3
    assert split["acceleration"].numpy() == pytest.approx((speeds[3:] - speeds[:-3]) / 0.6, abs=1e-4)
    assert set(split["change"].tolist()) <= {0, 1, 2}


def test_a_change_of_lane_is_the_label_of_the_frames_before_it():
    scenario = episodes.Scenario.model_validate(
        {
            "simulator": "none",
            "environment": "highway",
            "hertz": 5,
            "seconds": 2,
            "lanes": [{"points": [[0, 4 * n], [1000, 4 * n]], "width": 4} for n in range(3)],
        }
    )
    y = np.array([4, 4, 4, 3.5, 2.5, 1.5, 0.5, 0, 0, 0])
    cars = np.array([[[100 + 4 * i, each, 0, 20, 5, 2]] for i, each in enumerate(y)], np.float32)
    still = np.zeros(len(y), bool)
    options = values(prepare={"horizon": 0.6}).prepare
    calm = preparing._samples(scenario, [episodes.Drive("", cars, still)], options)
    assert calm.change.tolist() == [1, 1, 0, 0, 0, 1, 1]
    disturbed = still.copy()
    disturbed[4] = True
    left = preparing._samples(scenario, [episodes.Drive("", cars, disturbed)], options)
    assert left.change.tolist() == [1, 0, 1, 1], "frames 1, 2 and 3 lead over the disturbance"


def test_half_of_the_drives_for_training_are_disturbed_and_none_for_testing(tmp_path):
    tiny.write(tmp_path / "raw", train=4, test=2)
    scenario, splits = episodes.survey(tmp_path / "raw")
    assert {len(files) for files in splits.values()} == {2, 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny.simulator, "DISTURBED_EVERY", (0.5, 0.6))
        tiny.write(tmp_path / "often", train=4, test=2)
    drives = [episodes.read(tmp_path / "often", file, scenario.lanes) for own in splits.values() for file in own]
    disturbed = {each.file: int(each.disturbed.sum()) for each in drives}
    assert {file for file, count in disturbed.items() if count} == {"train/1.csv", "train/3.csv"}


def test_the_same_seeds_give_the_same_bytes_and_testing_has_seeds_of_its_own(raw, tmp_path):
    tiny.write(tmp_path / "again")
    for file in sorted(raw.rglob("*.csv")):
        assert file.read_bytes() == (tmp_path / "again" / file.relative_to(raw)).read_bytes()
    seeds = episodes.survey(raw).scenario.seeds
    assert len(set(seeds.values())) == len(seeds) == 11


def test_the_other_drivers_drive_the_test_seeds_and_the_expert_is_the_one_that_was_recorded(raw):
    folder = prepared(raw.parent).folder
    tables = preparing.drivers(folder)
    drive = episodes.read(raw, "test/1000000.csv", episodes.survey(raw).scenario.lanes)
    assert tables["expert"][0, 2] == pytest.approx(drive.cars[-1, 0, 0] - drive.cars[0, 0, 0])
    assert {table.shape for table in tables.values()} == {(3, 6)}
    assert tables["idle"][:, 4] == pytest.approx(0, abs=1e-9), "nobody accelerates"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda rows: [*rows[:5], rows[5] + ",7", *rows[6:]], "line 6: 11 values, but the header has 10 columns"),
        (
            lambda rows: [*rows[:5], rows[5].rpartition(",")[0], *rows[6:]],
            "line 6: 9 values, but the head",
        ),
        (
            lambda rows: [*rows[:5], "0,4,here,0,0,1,5,2,0,0", *rows[6:]],
            "line 6: 'here' in the column x is",
        ),
        (
            lambda rows: [*rows[:5], "0,4,nan,0,0,1,5,2,0,0", *rows[6:]],
            "line 6: 'nan' in the column x is",
        ),
        (
            lambda rows: [*rows, "3,2,100,0,0,20,5,2,0,0"],
            r"line 178: car 2 is in two places at once in frame 3: the other is in line 52",
        ),
        (
            lambda rows: [rows[0], *(row[:-3] + "0,0" for row in rows[1:])],
            r"lines 2 to 177: no row has an ego car \(ego = 1\)",
        ),
        (
            lambda rows: [*rows[:2], rows[2][:-3] + "1,0", *rows[3:]],
            "line 3: car 1 is a second ego car",
        ),
        (lambda rows: [row for row in rows if not row.startswith("4,0,")], r"line 66: frame 4 has no ego car"),
        (
            lambda rows: [rows[0], "0,0,-50,0,0,20,5,2,1,0", *rows[2:]],
            "line 2: the ego car is beyond the lan",
        ),
        (lambda rows: [rows[0].replace("heading", "angle"), *rows[1:]], "line 1: there is no column heading"),
        (lambda rows: rows[:1], "line 1: no row follows the header"),
    ],
)
def test_a_drive_that_cannot_be_used_is_named_with_its_file_and_line(raw, spoil, reason):
    rewrite(raw, spoil(lines(raw)))
    with pytest.raises(episodes.Unusable, match=reason) as error:
        episodes.read(raw, "train/0.csv", episodes.survey(raw).scenario.lanes)
    assert f"train/0.csv: {error.value}" in error_of(raw)


def test_a_drive_that_is_rejected_changes_no_other_split_where_some_may_be(raw):
    before = prepared(raw.parent).manifest
    rewrite(raw, [*lines(raw, "train/5.csv")[:-2], "nonsense"], "train/5.csv")
    shutil.rmtree(raw.parent / "prepared")
    after = prepared(raw.parent, max_rejected=0.2).manifest
    assert [(each.file, each.reason) for each in after.rejected] == [
        ("train/5.csv", "line 176: 1 values, but the header has 10 columns")
    ]
    assert after.splits["test"] == before.splits["test"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"lanes": []}, r"scenario.json: lanes: .*: correct it"),
        ({"hertz": 0}, r"scenario.json: hertz: .*: correct it"),
        (
            {"environment": "os:system"},
            r"scenario.json: environment: Input should be 'highway' or 'merge'",
        ),
        (
            {"seeds": {}},
            r"scenario.json: `seeds` has no seed for test/1000000.csv",
        ),
        (
            {"seeds": {f"test/100000{n}.csv": n for n in range(3)} | {"train/1.csv": 1}},
            r"test/1000001.csv for testing and train/1.csv for training have the same seed 1: remove one of them",
        ),
        (
            {"seeds": {f"test/100000{n}.csv": 50 + n for n in range(3)}},
            r"test/1000000.csv: the simulator that is installed begins seed 50 with another scene",
        ),
    ],
)
def test_a_scenario_that_cannot_be_used_is_named_with_what_to_correct(raw, change, reason):
    file = raw / "scenario.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(PedigreeError, match=reason):
        prepared(raw.parent)


def test_a_scenario_that_is_missing_or_no_json_is_one_sentence(raw):
    (raw / "scenario.json").write_text('{\n"hertz": 5,\n')
    assert "scenario.json:3: this is not JSON" in error_of(raw)
    (raw / "scenario.json").unlink()
    shutil.rmtree(raw.parent / "prepared")
    assert "scenario.json is missing: it describes the lanes" in error_of(raw)


def test_without_the_simulator_preparation_says_how_to_install_it(raw, monkeypatch):
    monkeypatch.setattr(closed_loop, "find_spec", lambda name: None)
    assert error_of(raw) == (
        "highway-env, the simulator that repeats the test drives, is not installed: install it with "
        "`uv pip install 'pedigree[driving]'`"
    )


def test_without_splits_only_drives_that_can_be_repeated_are_drawn_for_testing(raw):
    for file in (raw / "test").iterdir():
        file.rename(raw / "train" / file.name)
    (raw / "test").rmdir()
    scenario = json.loads((raw / "scenario.json").read_text())
    seeds = {f"train/{Path(file).name}": seed for file, seed in scenario["seeds"].items()}
    known = {file: seeds[file] for file in ("train/1000000.csv", "train/1000001.csv", "train/2.csv")}
    (raw / "scenario.json").write_text(json.dumps(scenario | {"seeds": known}))
    manifest = prepared(raw.parent).manifest
    assert manifest.drawn == "1 of 3 drives that the simulator can repeat"
    assert set((raw.parent / "prepared" / "test.files.txt").read_text().split()) <= set(known)
