"""Metrics on their way to MLflow: at any step, each once, whatever the store does with them."""

import logging

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.utils import validation

from components.adapters import mlflow_pages, mlflow_runs, mlflow_store
from components.trust.lineage import NONE
from tests.pages.runs import manifest


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The folder of a new store, whose tables take MLflow seconds."""
    folder = tmp_path_factory.mktemp("store")
    mlflow_store.connect(folder)
    return folder


@pytest.fixture
def run_id(store, request):
    """A new run."""
    return mlflow_runs.start_run(request.node.name, "metrics", "a run", {}, manifest(), store)


def steps(run_id: str, name: str) -> list[int]:
    return [metric.step for metric in MlflowClient().get_metric_history(run_id, name)]


def test_metrics_that_come_at_one_step_apart_are_all_sent(run_id):
    with mlflow_runs.recording(run_id) as recorder:
        recorder.log({"val/loss": 0.5}, 10)
        recorder.log({"train/loss": 0.6, "val/loss": 0.5}, 10)
        recorder.log({"val/loss": 0.4}, 20)
    assert steps(run_id, "val/loss") == [10, 20]
    assert steps(run_id, "train/loss") == [10]


def test_a_training_that_resumes_sends_again_only_what_the_store_does_not_have(run_id):
    with mlflow_runs.recording(run_id) as recorder:
        recorder.log({"val/loss": 0.5}, 10)
    with mlflow_runs.recording(run_id) as recorder:
        for step, loss in ((10, 0.5), (20, 0.4)):
            recorder.log({"val/loss": loss}, step)
    assert steps(run_id, "val/loss") == [10, 20]


def test_a_metric_that_mlflow_rejects_costs_neither_the_others_nor_the_training(run_id, caplog, monkeypatch):
    monkeypatch.setattr(mlflow_runs, "metric_name", lambda name: name)
    history = MlflowClient.get_metric_history

    def as_a_server_does(client, run, name):
        validation._validate_metric_name(name)
        return history(client, run, name)

    monkeypatch.setattr(MlflowClient, "get_metric_history", as_a_server_does)
    with caplog.at_level(logging.WARNING), mlflow_runs.recording(run_id) as recorder:
        for step in (10, 20):
            recorder.log({"val/loss": 0.5, "recall/C++": 1.0}, step)
    monkeypatch.undo()
    assert steps(run_id, "val/loss") == [10, 20]
    assert MlflowClient().get_run(run_id).info.status == "FINISHED"
    assert len([message for message in caplog.messages if "MLflow rejects the metric 'recall/C++'" in message]) == 1


@given(st.text(max_size=300))
@example("recall/C++")
@example("recall/é")
@example("../a//b/./..")
def test_every_name_becomes_one_that_mlflow_accepts(name):
    valid = mlflow_store.metric_name(name)
    validation._validate_metric_name(valid)
    assert len(valid) <= validation.MAX_ENTITY_KEY_LENGTH
    assert mlflow_store.metric_name(valid) == valid


def test_a_metric_whose_name_mlflow_would_reject_is_shown_under_a_valid_one(run_id):
    with mlflow_runs.recording(run_id) as recorder:
        recorder.log({"recall/C++": 1.0}, 10)
    mlflow_runs.log_metrics(run_id, {"test/f1 (C#)": 0.5})
    assert steps(run_id, "recall/C__") == [10]
    assert steps(run_id, "test/f1 _C__") == [0]


def test_a_run_started_where_there_is_no_git_names_no_commit():
    tags = mlflow_pages.source_tags("ann", "pedigree run digits", NONE)
    assert tags == {
        "mlflow.user": "ann",
        "mlflow.source.name": "pedigree run digits",
        "mlflow.source.type": "LOCAL",
    }


def test_a_score_that_is_logged_again_is_the_newest_one(run_id):
    for value in (0.5, 0.75, 0.75):
        mlflow_pages.log_score(run_id, "accuracy", value)
    run = MlflowClient().get_run(run_id)
    assert (run.data.metrics["score"], run.data.tags["score"]) == (0.75, "accuracy 0.75")
    assert len(steps(run_id, "score")) == 3
