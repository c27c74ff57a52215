"""The same code on a team's servers: PostgreSQL behind MLflow and Prefect, S3 for data and artifacts."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest

from tests.classifiers import predictions
from tests.conftest import commit, run_in, tiny
from tests.pipelines.test_cli import pedigree
from tests.team import services
from tests.team.services import ARTIFACTS, DATA, KEYS, Team

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(480),
    pytest.mark.skipif(
        services.initdb() is None, reason="there is no PostgreSQL here: `apt-get install postgresql` brings it"
    ),
]


@pytest.fixture(scope="module")
def team(tmp_path_factory) -> Iterator[Team]:
    with services.team(tmp_path_factory.mktemp("servers")) as running:
        yield running


@dataclass
class Work:
    """Three checkouts: she pushes the data, he trains on them, and they have nothing but the commit."""

    hers: Path
    his: Path
    theirs: Path
    said: str
    """By his run."""


@pytest.fixture(scope="module")
def work(team, project, tmp_path_factory) -> Work:
    folder = tmp_path_factory.mktemp("people")
    hers = folder / "hers"
    shutil.copytree(project, hers, ignore=shutil.ignore_patterns("build", "mlflow.db", "mlruns", ".prefect"))
    for words in (
        ("remote", "add", "--default", "team", f"s3://{DATA}/pedigree"),
        ("remote", "modify", "team", "endpointurl", team.s3),
        ("push",),
    ):
        done = run_in(hers, "dvc", *words, **KEYS)
        assert done.returncode == 0, done.stderr
    commit(hers, "The team's remote")
    his, theirs = (clone(hers, folder / name) for name in ("his", "theirs"))
    brought = pedigree(his, "data", "--all", **KEYS)
    assert "restored data/digits from DVC's remote" in brought.stdout, brought.stderr
    ran = pedigree(his, "run", "digits", **team.env)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return Work(hers, his, theirs, ran.stdout)


def clone(source: Path, folder: Path) -> Path:
    subprocess.run(["git", "clone", "--quiet", source, folder], check=True)
    return folder


def rows(team: Team, database: str, query: str) -> list[tuple]:
    with closing(psycopg2.connect(f"{team.database}/{database}")) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def test_a_clone_has_the_data_that_another_checkout_pushed_to_s3(work):
    files = [path for path in (work.hers / "data").rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert (work.his / path.relative_to(work.hers)).read_bytes() == path.read_bytes()


def test_runs_versions_and_flows_are_in_postgresql_and_nothing_of_them_in_the_checkout(team, work):
    assert rows(team, "mlflow", "SELECT name, version FROM model_versions") == [("digits", 1)]
    validations = rows(team, "mlflow", "SELECT DISTINCT step FROM metrics WHERE key = 'val/loss'")
    assert len(validations) == tiny("digits").SETTINGS["train"]["epochs"]
    assert rows(team, "mlflow", "SELECT status FROM runs") == [("FINISHED",)]
    assert rows(team, "prefect", "SELECT state_type FROM flow_run") == [("COMPLETED",)]
    assert not (work.his / "mlflow.db").exists()
    assert f"{team.mlflow}/#/models/digits/versions/1" in work.said


def test_artifacts_are_on_s3_though_he_who_trained_had_no_key_to_it(team, work):
    listed = services.s3_client(team.s3).list_objects_v2(Bucket=ARTIFACTS)["Contents"]
    names = {each["Key"].rpartition("/")[2] for each in listed}
    assert {"weights.safetensors", "metrics.json", "environment.json", "MLmodel"} <= names
    assert rows(team, "mlflow", "SELECT artifact_uri FROM runs")[0][0].startswith("mlflow-artifacts:/")


def test_a_checkout_without_data_traces_the_version(team, work):
    traced = pedigree(work.theirs, "trace", "digits", **team.env, **KEYS)
    assert traced.returncode == 0, traced.stderr
    where = {
        line.strip("│├└─ ").split()[0]: line.rsplit("  ", 1)[-1] for line in traced.stdout.splitlines() if line
    }
    expected = {"weights": "here", "prepared": "gone", "data": "in DVC's remote", "code": "here", "run": "here"}
    assert {what: where[what] for what in expected} == expected


def test_a_checkout_without_data_answers_as_evaluation_did(team, work):
    evaluation = next((work.his / "build" / "runs").glob("*/evaluation"))
    files = [str(work.hers / "data" / "digits" / row["file"]) for row in predictions(evaluation)]
    asked = pedigree(work.theirs, "predict", "digits", *files, "--format", "json", **team.env)
    assert asked.returncode == 0, asked.stderr
    tiny("digits").check([json.loads(line) for line in asked.stdout.splitlines()], evaluation)
