"""The gate before models that were trained to be worse, better, and better but for one class."""

import shutil
from functools import cache

import pytest

from components import params
from components.stages import evaluate, prepare, register, train
from components.stages.origin import Origin
from tests.vision import tiny

TRAIN, TEST = 24, 20


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Digits of four classes."""
    folder = tmp_path_factory.mktemp("digits") / "vision"
    tiny.write(folder, TRAIN, TEST)
    return folder


def changed(chain, **sections):
    tree = params.Values(sections, {}).over(params.Values(chain.values.model_dump(by_alias=True), {})).tree
    return chain.task.params.model_validate(tree)


@pytest.fixture(scope="module")
def model(chain, tmp_path_factory):
    """Train on so many images of each class, once."""

    @cache
    def make(*images, epochs, digits):
        folder = tmp_path_factory.mktemp("gate")
        shutil.copytree(digits, folder / "raw")
        for label, count in enumerate(images):
            for file in sorted((folder / "raw" / "train" / str(label)).iterdir())[count:]:
                file.unlink()
        values = changed(chain, train={"epochs": epochs})
        prepared = prepare.prepare(chain.task, values, folder / "raw", folder / "prepared")
        trained = train.train(chain.task, values, prepared, folder / "model", Origin(chain.root))
        return prepared, trained, evaluate.evaluate(chain.task, values, prepared, trained, folder / "evaluation")

    return make


@pytest.fixture
def register_as(chain, raw, model, tmp_path):
    """Register the model of so many images of each class."""

    def make(name, *images, epochs=5, digits=raw, margin=1.0):
        parts = model(*images, epochs=epochs, digits=digits)
        values = changed(chain, register={"name": name, "gate": {"class_margin": margin}})
        registered = register.register(chain.task, values, *parts, tmp_path / "registered.json")
        return registered, parts[-1].metrics["accuracy"]

    return make


def failed(registered):
    return {rule["rule"]: rule["found"] for rule in registered.verdict if not rule["passed"]}


SURE = "better than the champion, 95.0% sure"
CLASSES = "no class worse by more than 0.05"


def test_a_model_of_half_the_data_is_refused(register_as):
    first, whole = register_as("halved", *[TRAIN] * 4)
    second, half = register_as("halved", *[TRAIN // 2] * 4)
    assert half < whole
    assert "champion" in first.aliases
    assert second.aliases == ("challenger",)
    assert SURE in failed(second)


def test_a_better_model_is_accepted(register_as):
    _, weak = register_as("bettered", *[4] * 4, epochs=1)
    second, good = register_as("bettered", *[TRAIN] * 4)
    assert good > weak
    assert second.aliases == ("challenger", "champion")
    assert not failed(second)


def test_a_model_that_is_better_on_average_and_loses_a_class_is_refused_by_its_name(register_as):
    _, old = register_as("lopsided", 3, 3, 3, TRAIN)
    second, new = register_as("lopsided", TRAIN, TRAIN, TRAIN, 3, margin=0.05)
    assert new > old
    assert list(failed(second)) == [CLASSES]
    assert failed(second)[CLASSES].startswith("3 is worse by ")


def test_on_a_test_split_that_changed_the_champion_is_evaluated_anew_before_it_is_beaten(
    register_as, raw, tmp_path
):
    register_as("moved", *[4] * 4, epochs=1)
    fewer = shutil.copytree(raw, tmp_path / "fewer")
    for label in "0123":
        (fewer / "test" / label / f"{TRAIN:03d}.png").unlink()
    second, _ = register_as("moved", *[TRAIN] * 4, digits=fewer)
    (found,) = (rule["found"] for rule in second.verdict if rule["rule"] == SURE)
    assert found.endswith("against version 1, evaluated anew")
    assert second.aliases == ("challenger", "champion")


def test_a_test_split_that_the_champion_cannot_read_is_no_way_past_it(register_as, tmp_path):
    register_as("unread", *[4] * 4, epochs=1)
    tiny.write(tmp_path / "five", TRAIN, TEST, classes=5)
    second, _ = register_as("unread", *[TRAIN] * 5, digits=tmp_path / "five")
    assert failed(second) == {
        SURE: "cannot be compared with version 1: it cannot read the new test split, whose classes differ"
    }
    assert second.aliases == ("challenger",)
