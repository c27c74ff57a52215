"""Two versions side by side: what is not the same in them."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from components import params
from components.adapters import mlflow_store, mlflow_versions
from components.errors import PedigreeError
from components.registry import compare as compare_module
from components.registry.compare import compare
from components.registry.power import power
from components.runtime import files
from components.stages import evaluate, prepare, register, train
from pipelines import versions
from tests.drawing import draw_only
from tests.trust.test_gate import GATE


@pytest.fixture(scope="module")
def other(chain, tmp_path_factory):
    """A version of the same data with another seed and one epoch."""
    folder = tmp_path_factory.mktemp("other")
    changes = {"train": {"epochs": 1, "seed": 5}}
    tree = params.Values(changes, {}).over(params.Values(chain.values.model_dump(by_alias=True), {})).tree
    values = chain.task.params.model_validate(tree)
    trained = train.train(chain.having(values), chain.prepared, folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        draw_only(patch)
        evaluated = evaluate.evaluate(chain.having(values), chain.prepared, trained, folder / "evaluation")
    compared = replace(chain.having(values), name="compared")
    registered = register.register(compared, chain.prepared, trained, evaluated, folder / "registered.json")
    return f"compared/{registered.version}", evaluated


def test_what_differs_is_named_and_what_is_the_same_is_not(chain, other):
    address, evaluated = other
    found = compare(f"digits/{chain.registered.version}", address, chain.root)
    assert {change.what: (change.old, change.new) for change in found.params} == {
        "train.epochs": ("3", "1"),
        "train.seed": ("0", "5"),
    }
    assert list(found.data) == list(found.code) == list(found.files) == []
    accuracy = next(change for change in found.metrics if change.what == "accuracy")
    assert accuracy.old == f"{chain.evaluated.metrics['accuracy']:.4g}"
    assert accuracy.new == f"{evaluated.metrics['accuracy']:.4g}"


def test_the_difference_has_an_interval_and_the_disputed_samples_make_it_up(chain, other):
    address, evaluated = other
    found = compare("models:/digits@champion", address, chain.root)
    low, high = found.difference.interval
    assert low <= found.difference.value <= high
    gap = evaluated.metrics["accuracy"] - chain.evaluated.metrics["accuracy"]
    assert found.difference.value == pytest.approx(gap)
    samples = len(evaluate.read_outcomes(evaluated.folder).samples)
    assert sum(each.new - each.old for each in found.disputes) / samples == pytest.approx(gap)
    assert all(each.label in "0123" and each.old != each.new for each in found.disputes)


def test_a_version_against_itself_is_the_same_in_everything(chain, capsys):
    versions.diff(chain.root, "digits@champion", "digits@champion")
    said = capsys.readouterr().out
    assert "identical: data, code and machine, params, metric" in said
    assert "They disagree on 0 samples." in said


def test_the_table_of_a_difference_names_the_parameters_and_samples(chain, other, capsys):
    versions.diff(chain.root, f"digits/{chain.registered.version}", other[0])
    said = capsys.readouterr().out
    assert "train.epochs" in said
    assert "(95 % interval)" in said
    assert "test/" in said


def test_versions_of_two_tasks_are_not_compared(chain_of):
    chain_of("digits")
    chain_of("docstrings")
    mlflow_store.connect(chain_of("digits").root)
    with pytest.raises(
        PedigreeError,
        match=r"digits@champion has the task image_classification and docstrings@champion language_model",
    ):
        compare("digits@champion", "docstrings@champion", chain_of("digits").root)


def test_the_power_of_a_test_split_follows_from_its_samples_where_no_other_version_shows_it(other):
    alone = power("compared", GATE)
    assert (alone.samples, alone.sources, alone.earlier, alone.judged_by) == (52, 0, 0, "")
    assert alone.most == pytest.approx(0.025)
    assert 0 < alone.difference < 1
    assert {(each.kind, each.name, each.samples) for each in alone.groups} == {("class", c, 13) for c in "0123"}
    for each in alone.groups:
        assert each.why_not == "more than it can lose" if each.loss is None else GATE.margins["class"] <= each.loss


def test_a_test_split_whose_answers_are_all_right_promises_neither_a_better_version_nor_a_sure_small_loss(
    chain, other, monkeypatch, capsys
):
    side = compare_module.side_of(mlflow_versions.find(other[0]))
    right = np.ones_like(side.outcomes.columns["correct"])
    perfect = replace(side, outcomes=replace(side.outcomes, columns={"correct": right}))
    monkeypatch.setattr(compare_module, "side_of", lambda version: perfect)
    found = power("compared", GATE)
    assert found.difference is None
    assert re.fullmatch(r"0\.\d+ is needed, and the champion's accuracy of 1 leaves 0", found.why_not)
    assert all(0.3 < each.loss < 1 for each in found.groups)
    versions.power(chain.root, "digits")
    said = " ".join(capsys.readouterr().out.split())
    assert "No gain promotes it with probability 80%: 0." in said


def test_the_power_of_a_test_split_is_printed_with_what_it_is_estimated_from(chain, monkeypatch, capsys):
    side = compare_module.side_of(mlflow_versions.find("digits/1"))
    half = (np.arange(len(side.outcomes.samples)) % 2).astype(float)  # room for a gain, on any machine
    side = replace(side, outcomes=replace(side.outcomes, columns={"correct": half}))
    monkeypatch.setattr(compare_module, "side_of", lambda version: side)
    versions.power(chain.root, "digits")
    said = capsys.readouterr().out
    assert "The champion is digits version 1, with 52 test samples." in said
    assert re.search(
        r"\d+ challengers? (was|were) compared on this test split; the next one needs p <= 0\.\d+\.", said
    )
    assert re.search(r"It is promoted with probability 80% if its accuracy is truly 0\.\d+ higher\.", said)
    assert "tested on" in said
    assert "another test split" not in said


@pytest.fixture
def redrawn(chain):
    """Prepared data of the model with another test split than its champion's."""
    splits = chain.prepared.manifest.splits
    test = splits["test"].model_copy(update={"sha256": "0" * 64})
    manifest = chain.prepared.manifest.model_copy(update={"splits": {**splits, "test": test}})
    folder = chain.model.build / "prepared"
    folder.mkdir(parents=True)
    files.write_json(folder / prepare.MANIFEST, manifest.model_dump())
    yield
    shutil.rmtree(chain.model.build)


@pytest.mark.usefixtures("redrawn")
def test_the_power_is_said_to_be_of_the_champions_test_split_if_prepared_data_have_another(chain, capsys):
    versions.power(chain.root, "digits")
    said = " ".join(capsys.readouterr().out.split())
    assert "with 52 test samples. build/digits/prepared has another test split. What follows is of" in said
