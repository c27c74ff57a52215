"""`pedigree run`: which models it runs; what a run prints is tested where one is run."""

import shutil
from contextlib import contextmanager

import pytest
from ruamel.yaml import YAML

from components.errors import PedigreeError
from components.models import Model
from components.params import FILE
from components.stages import summary
from pipelines import run, server
from tests.conftest import ROOT


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """A function that runs `pedigree run` without servers and flows, and returns the parameters of its models.

    The project has a second model of images, `xrays`.
    """
    tree = YAML(typ="safe").load(ROOT / FILE)
    tree["models"] = {name: tree["models"][name] for name in ("digits", "docstrings", "words")}
    tree["models"]["xrays"] = tree["models"]["digits"] | {"data": "xrays"}
    YAML().dump(tree, tmp_path / FILE)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    models: list[Model] = []

    @contextmanager
    def connected(check, load):
        yield check()

    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "WARNING")
    monkeypatch.setattr(server, "connected", connected)
    monkeypatch.setattr(run, "_leave_errors_to_the_command", lambda: None)
    monkeypatch.setattr(run, "_run_flow", models.append)
    monkeypatch.setattr(run, "_outcome", lambda model, result: (model.name, len(models)))
    monkeypatch.setattr(summary, "show", print)
    monkeypatch.setattr(Model, "expect_data", lambda model: None)

    def parameters(names, task, profile):
        models.clear()
        run.run(tmp_path, names, task, profile, [])
        return {model.name: model.params for model in models}

    return parameters


@pytest.mark.parametrize(
    ("names", "task", "profile", "chosen"),
    [
        ([], None, None, ["digits", "docstrings", "words", "xrays"]),
        ([], "image_classification", None, ["digits", "xrays"]),
        ([], "spoken_words", None, ["words"]),
        ([], None, "cifar10", ["digits", "xrays"]),
        ([], None, "wikitext2", ["docstrings"]),
        (["xrays"], None, "cifar10", ["xrays"]),
        (["words", "digits"], None, None, ["words", "digits"]),
    ],
)
def test_models_are_chosen_by_name_or_else_by_task_or_else_by_the_profiles_task(ran, names, task, profile, chosen):
    assert list(ran(names, task, profile)) == chosen


def test_the_links_of_all_models_are_those_after_the_last_one_ran(ran, capsys):
    ran(["words", "digits"], None, None)
    assert capsys.readouterr().out == "[('words', 2), ('digits', 2)]\n"


def test_weights_that_do_not_exist_are_named_before_any_model_runs(ran):
    with pytest.raises(
        PedigreeError, match=r"^train\.init\.from names .*\.pth, which does not exist: get it first"
    ):
        ran(["xrays"], None, "photographs")


def test_a_profile_is_laid_over_every_model_that_it_selects(ran):
    own = ran([], "image_classification", None)
    epochs = {name: params.train.epochs for name, params in ran([], None, "cifar10").items()}
    assert epochs.keys() == own.keys()
    assert all(epochs[name] != params.train.epochs for name, params in own.items())
