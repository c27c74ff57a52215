"""A flow run keeps what it was started with, whatever params.yaml and the data say at its next attempt."""

import shutil
from pathlib import Path

import pytest

from components import models
from components.errors import PedigreeError
from pipelines import flow, runs, starts
from pipelines.prefect_yaml import attribute
from tests.pipelines.test_runs import interrupt, with_train


@pytest.fixture
def digits(project, tmp_path, monkeypatch):
    """The model in a folder with a params.yaml that the test may change."""
    shutil.copyfile(project / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return models.load(tmp_path, "digits")


def edit(root: Path, old: str, new: str) -> None:
    text = (root / "params.yaml").read_text()
    assert old in text
    (root / "params.yaml").write_text(text.replace(old, new))


def test_the_flow_of_another_attempt_has_the_parameters_of_the_first_even_if_params_yaml_lost_its_model(
    digits, monkeypatch
):
    runs.announce(with_train(digits, batch_size=24), "first", "digits batch_size=24")
    edit(digits.root, "digits:", "renamed:")
    with pytest.raises(AttributeError):
        getattr(flow, attribute("digits"))
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "first")
    its_flow = getattr(flow, attribute("digits"))
    assert its_flow.name == "digits"
    assert its_flow.validate_parameters({"train": {"epochs": 9}})["train"].model_dump() == {
        **digits.params.train.model_dump(),
        "batch_size": 24,
        "epochs": 9,
    }
    assert runs.started_with(digits.root, "first").label == "digits batch_size=24"


def test_each_flow_run_keeps_its_own_parameters_although_two_work_in_one_folder(digits):
    folder = interrupt(digits, "first", announced=True)
    assert interrupt(with_train(digits, workers=7), "second", announced=True) == folder
    assert interrupt(digits, "third", announced=True) == folder
    kept = [runs.started_with(digits.root, name).params["train"]["workers"] for name in ("first", "second")]
    assert kept == [digits.params.train.workers, 7]
    assert not (folder.parent / "second").exists()


def test_what_params_yaml_says_otherwise_is_named_and_what_the_flow_run_was_given_is_not(digits):
    given = {"train": {"epochs": 9}}
    start = starts.Start.of(with_train(digits, epochs=9), "digits epochs=9")
    assert start.changes(digits.root, given) == []
    edit(digits.root, "data: digits", "data: other")
    edit(digits.root, "level: 0.95", "level: 0.9")
    (sentence,) = start.changes(digits.root, given)
    assert sentence.startswith("digits keeps the parameters that this flow run was started with, although ")
    assert "data was digits, is other" in sentence
    assert "register.gate.level was 0.95, is 0.9" in sentence
    assert "epochs" not in sentence
    edit(digits.root, "digits:", "renamed:")
    assert "there is no model 'digits'" in start.changes(digits.root, given)[0]
    (_, of_code) = start.model_copy(update={"training_code": "of earlier code"}).changes(digits.root, given)
    assert of_code.startswith("the training code of digits was changed after this flow run was started")


def test_parameters_that_the_code_no_longer_accepts_are_one_sentence(digits, monkeypatch):
    start = starts.Start.of(digits, "digits")
    start.params["train"]["outdated"] = 1
    with pytest.raises(PedigreeError, match=r"\(train.outdated: .*\): start a new flow run"):
        start.load(digits.root)
    monkeypatch.setattr(runs, "started_with", lambda root, flow_run: start)
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "first")
    its_flow = getattr(flow, attribute("digits"))
    with pytest.raises(PedigreeError, match="no longer accepts"):
        its_flow.fn(**its_flow.validate_parameters({"train": {"epochs": 9}}))
