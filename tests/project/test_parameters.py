"""What people read about a model's parameters: their values, and what each may be, from the fields themselves."""

import re

import pytest

from components import models, params
from components.errors import PedigreeError
from components.project.parameters import parameters
from pipelines import parameters as shown
from tests.conftest import MODELS, PARAMS, ROOT


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project with the tests' models."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "params.yaml").write_text(PARAMS.read_text())
    return folder


def one(root, name, of="digits"):
    (found,) = parameters(models.load(root, of), name)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_of_a_model_is_listed_with_its_value_what_it_may_be_and_what_it_means(root, name):
    model = models.load(root, name)
    listed = parameters(model)
    leaves = params.flat(model.params.model_dump(by_alias=True, exclude={"register_": {"gate"}}))
    assert leaves.keys() < {each.name for each in listed}
    assert len({each.name for each in listed}) == len(listed)
    for each in listed:
        assert each.allowed, each.name
        assert each.description, each.name


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("train.optimizer.name", "adamw", "sgd, adamw, muon"),
        ("train.optimizer.lr", "0.003", "number above 0 up to 100"),
        ("train.epochs", "6", "whole number from 0 up to 100,000"),
        ("train.clip_norm", "1.0", "number from 0"),
        ("train.average.decay", "0.99", "number from 0 and below 1"),
        ("train.compile", "false", "false, true"),
        ("train.augment.flip", "false", "false, true, alternate"),
        ("prepare.size", "auto", "whole number from 28 up to 1,024, auto"),
        ("prepare.channels", "auto", "1, 3, auto"),
        ("train.init.from", "random", "text"),
        ("register.gate.at_least", "{accuracy: 0.9}", "numbers by name"),
        ("register.gate.margins", "{class: 0.05}", "numbers by name from 0"),
    ],
)
def test_choices_and_bounds_are_in_words(root, name, value, allowed):
    assert (one(root, name).value, one(root, name).allowed) == (value, allowed)


def test_what_is_listed_as_a_choice_is_accepted_and_a_bound_that_is_listed_holds(root):
    for choice in one(root, "train.average.name").choices:
        models.load(root, "digits", settings=[f"train.average.name={choice}"])
    models.load(root, "digits", settings=["train.optimizer.lr=100"])
    with pytest.raises(PedigreeError):
        models.load(root, "digits", settings=["train.optimizer.lr=100.1"])


def test_a_section_is_listed_alone_and_no_parameter_whose_name_only_begins_alike(root):
    model = models.load(root, "digits")
    assert [each.name for each in parameters(model, "train.init")] == [
        "train.init.from",
        "train.init.freeze",
        "train.init.layer_decay",
    ]
    with pytest.raises(PedigreeError, match=r"'train.mdel'; did you mean train.model\?: `pedigree params digits`"):
        parameters(model, "train.mdel")


def test_the_comments_of_params_yaml_list_the_choices_that_there_are():
    comments: dict[str, set[str]] = {}  # by key, what the comments on its line or above it say
    for line in (ROOT / "params.yaml").read_text().splitlines():
        text, _, comment = line.partition("# ")
        for part in comment.split("; "):
            named = re.fullmatch(r"(?:(\w+): )?([\w-]+(?:, [\w-]+)+)", part)
            if named:
                comments.setdefault(named[1] or text.split(":")[0].strip(), set()).add(named[2])
    expected: dict[str, set[str]] = {}
    for each in models.listed(models.read(ROOT)):
        for parameter in parameters(models.load(ROOT, each.name)):
            if parameter.choices:
                key = parameter.name.rpartition(".")[2]
                expected.setdefault(key, set()).add(", ".join(parameter.choices))
    assert comments == expected


def test_pedigree_params_prints_a_parameter_a_line_outside_a_terminal(root, capsys):
    shown.show(root, "digits", "train.optimizer")
    lines = capsys.readouterr().out.splitlines()
    (name,) = [line.split("  ") for line in lines if "train.optimizer.name" in line]
    assert [cell.strip() for cell in name if cell.strip()] == [
        "train.optimizer.name",
        "adamw",
        "sgd, adamw, muon",
        "sgd uses Nesterov momentum; muon trains the hidden matrices, with adamw for the rest",
    ]
    assert len([line for line in lines if "train.optimizer." in line]) == 4
