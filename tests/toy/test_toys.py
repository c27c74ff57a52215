"""Two tasks that are nothing like a classifier go from raw files to a served version, through shared code."""

import base64
import csv
import io
import json
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from components.adapters import mlflow_store, mlflow_versions
from components.contracts import Outcomes
from components.stages import evaluate
from components.trust import intervals
from tests.conftest import ROOT
from tests.running import pedigree
from tests.toy.values import FOLDER, NAMES, importable, values

CHAIN = """
import base64, json
from pathlib import Path
import mlflow, pandas as pd
from components import models, tasks
from components.__main__ import STAGES, run_stage
for name in ("spots", "tones"):
    folder = Path("data", name)
    folder.mkdir(parents=True)
    tasks.load(name).embedded[name](folder)
    for stage in STAGES:
        run_stage(name, stage, Path.cwd())

def answers(name, rows, params=None):
    try:
        found = versions[name].predict(rows, params=params).to_dict("records")
    except mlflow.exceptions.MlflowException as error:
        found = error.message
    return json.loads(json.dumps(found, default=lambda each: base64.b64encode(each).decode()))

versions = {name: mlflow.pyfunc.load_model(f"models:/{name}/1") for name in ("spots", "tones")}
Path("answers.json").write_text(json.dumps({
    "good": answers("spots", pd.DataFrame({"series": ["0 0 2.3 0 0", "0 0"]})),
    "mixed": answers("spots", pd.DataFrame({"series": ["0 2.3 0", "zero", "0 0"]})),
    "bad": answers("spots", pd.DataFrame({"series": ["zero", "one"]})),
    "sounds": answers("tones", pd.DataFrame(index=range(2)), {"tones": 3}),
}))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project with the two tasks, each trained, evaluated and registered."""
    folder = tmp_path_factory.mktemp("toys")
    for name in ("components", "pipelines"):
        shutil.copytree(ROOT / name, folder / name)
    for name in NAMES:
        shutil.copytree(FOLDER / name, folder / "components" / "tasks" / name)
    models = {name: {"task": name, "data": name, **values()} for name in NAMES}
    with (folder / "params.yaml").open("w") as file:
        YAML(typ="safe").dump({"models": models}, file)
    done = subprocess.run([sys.executable, "-c", CHAIN], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def answers(project) -> dict:
    """What the two versions answered, as JSON."""
    return json.loads((project / "answers.json").read_text())


def metrics(project: Path, name: str) -> dict[str, float]:
    return json.loads((project / "build" / name / "evaluation" / "metrics.json").read_text())


def test_average_precision_is_the_score_of_a_version_and_stands_in_its_interval(project):
    found = metrics(project, "spots")
    assert 0.5 < found["average_precision"] < 1
    assert found["average_precision_low"] <= found["average_precision"] <= found["average_precision_high"]


def test_outcomes_keep_samples_without_a_row(project):
    found = evaluate.read_outcomes(project / "build" / "spots" / "evaluation")
    assert len(found.samples) == 25
    assert found.samples[24] == "series 24"
    assert set(range(25)) - set(found.row_samples.tolist()), "some series have neither spots nor detections"
    assert 24 not in found.row_samples
    with (project / "build" / "spots" / "evaluation" / "examples" / "outcomes.csv").open(newline="") as file:
        assert {row["sample"] for row in csv.DictReader(file)} == set(found.samples)


def test_a_sample_that_is_drawn_twice_counts_as_two(project):
    importable()
    from components.tasks.spots.task import average_precision

    found = evaluate.read_outcomes(project / "build" / "spots" / "evaluation")
    twice = {name: np.concatenate([column, column]) for name, column in found.columns.items()}
    rows = len(found.row_samples)
    assert average_precision(twice, np.ones(2 * rows)) == pytest.approx(
        average_precision(found.columns, np.full(rows, 2.0)), abs=0.02
    )
    none = average_precision(found.columns, (found.row_samples != 0).astype(float))
    selected = found.row_samples != 0
    assert none == average_precision(
        {name: c[selected] for name, c in found.columns.items()}, np.ones(selected.sum())
    )


def test_two_versions_are_compared_by_a_score_that_is_no_mean(project):
    importable()
    from components.tasks.spots.task import average_precision, score

    found = evaluate.read_outcomes(project / "build" / "spots" / "evaluation")
    worse = dict(found.columns) | {"probability": 1 - found.columns["probability"]}
    other = Outcomes(found.samples, worse, found.sample)
    difference = intervals.difference(other, found, score(None))
    rows = np.ones(len(found.row_samples))
    expected = average_precision(found.columns, rows) - average_precision(worse, rows)
    assert difference.value == pytest.approx(expected)
    assert difference.interval[0] <= difference.value <= difference.interval[1]
    assert difference.p_value() < 0.05


def test_validation_decodes_while_the_network_trains(project):
    with (project / "build" / "spots" / "model" / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 20
    assert float(rows[-1]["val/f1"]) > float(rows[0]["val/f1"])
    assert [int(float(row["update"])) for row in rows] == [4 * (index + 1) for index in range(len(rows))]


def test_a_version_answers_with_records(answers):
    first, second = (each["spots"] for each in answers["good"])
    assert max(first, key=lambda each: each["probability"])["position"] == 2
    assert all(each["probability"] < 0.5 for each in second)


def test_one_bad_row_costs_the_others_nothing(answers):
    first, second, third = answers["mixed"]
    assert first["spots"]
    assert first["error"] is third["error"] is None
    assert second["spots"] is None
    assert second["error"].startswith("the series cannot be used: expected numbers with spaces between them")


def test_a_request_without_an_answerable_row_is_an_error_that_names_the_first_rows(answers):
    first, second = answers["bad"].splitlines()
    assert first.startswith("row 0: the series cannot be used")
    assert second.startswith("row 1: the series cannot be used")


def test_a_version_without_inputs_answers_each_row_with_bytes(answers):
    sounds = [base64.b64decode(each["sound"]) for each in answers["sounds"]]
    for sound in sounds:
        with wave.open(io.BytesIO(sound)) as opened:
            assert opened.getnframes() == 3 * 800
    assert sounds[0] != sounds[1], "each row has a seed of its own"


@pytest.mark.long
def test_the_command_line_shows_records_and_names_the_file_that_cannot_be_answered(project, tmp_path):
    (tmp_path / "good.txt").write_text("0 0 2.3 0")
    (tmp_path / "bad.txt").write_text("zero")
    done = pedigree(project, "predict", "spots", str(tmp_path / "good.txt"), str(tmp_path / "bad.txt"))
    assert done.returncode == 1, done.stderr
    answer = json.loads(done.stdout)
    assert max(answer["spots"], key=lambda each: each["probability"])["position"] == 2
    assert f"{tmp_path / 'bad.txt'}: the series cannot be used: expected numbers" in done.stderr


def test_a_version_of_either_task_has_its_lineage_and_its_score(project):
    mlflow_store.connect(project)
    for name, score in (("spots", "average_precision"), ("tones", "perplexity")):
        tags = mlflow_versions.find(f"{name}/1").tags
        assert tags["score"].startswith(f"{score} ")
        assert "weights" in tags
