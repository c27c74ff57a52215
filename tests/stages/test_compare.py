"""Two versions side by side: what is not the same in them."""

import pytest

from components import params
from components.adapters import mlflow_store
from components.errors import PedigreeError
from components.stages import evaluate, register, train
from components.stages.compare import compare
from components.stages.origin import Origin
from pipelines import registry as door


@pytest.fixture(scope="module")
def other(chain, tmp_path_factory):
    """A version of the same data with another seed and one epoch."""
    folder = tmp_path_factory.mktemp("other")
    changes = {"train": {"epochs": 1, "seed": 5}, "register": {"name": "compared"}}
    tree = params.Values(changes, {}).over(params.Values(chain.values.model_dump(by_alias=True), {})).tree
    values = chain.task.params.model_validate(tree)
    trained = train.train(chain.task, values, chain.prepared, folder / "model", Origin(chain.root))
    evaluated = evaluate.evaluate(chain.task, values, chain.prepared, trained, folder / "evaluation")
    registered = register.register(
        chain.task, values, chain.prepared, trained, evaluated, folder / "registered.json"
    )
    return f"compared/{registered.version}", evaluated


def test_what_differs_is_named_and_what_is_the_same_is_not(chain, other):
    address, evaluated = other
    found = compare(f"vision/{chain.registered.version}", address, chain.root)
    assert {change.what: (change.old, change.new) for change in found.params} == {
        "train.epochs": ("3", "1"),
        "train.seed": ("0", "5"),
        "register.name": ("vision", "compared"),
    }
    assert list(found.data) == list(found.code) == list(found.files) == []
    accuracy = next(change for change in found.metrics if change.what == "accuracy")
    assert accuracy.old == f"{chain.evaluated.metrics['accuracy']:.4g}"
    assert accuracy.new == f"{evaluated.metrics['accuracy']:.4g}"


def test_the_difference_has_an_interval_and_the_disputed_samples_make_it_up(chain, other):
    address, evaluated = other
    found = compare("models:/vision@champion", address, chain.root)
    assert found.difference.low <= found.difference.mean <= found.difference.high
    gap = evaluated.metrics["accuracy"] - chain.evaluated.metrics["accuracy"]
    assert found.difference.mean == pytest.approx(gap)
    samples = len(evaluate.read_outcomes(evaluated.folder).names)
    assert sum(each.new - each.old for each in found.disputes) / samples == pytest.approx(gap)
    assert all(each.label in "0123" and each.old != each.new for each in found.disputes)


def test_a_version_against_itself_is_the_same_in_everything(chain, capsys):
    door.diff(chain.root, "vision@champion", "vision@champion")
    said = capsys.readouterr().out
    assert "the same in both: data, code and machine, params, metric" in said
    assert "They disagree on 0 samples." in said


def test_the_table_of_a_difference_names_the_parameters_and_samples(chain, other, capsys):
    door.diff(chain.root, f"vision/{chain.registered.version}", other[0])
    said = capsys.readouterr().out
    assert "train.epochs" in said
    assert "of a paired bootstrap" in said
    assert "test/" in said


def test_versions_of_two_tasks_are_not_compared(chain_of):
    chain_of("vision")
    chain_of("language")
    mlflow_store.connect(chain_of("vision").root)
    with pytest.raises(PedigreeError, match=r"vision@champion is of vision and language@champion of language"):
        compare("vision@champion", "language@champion", chain_of("vision").root)
