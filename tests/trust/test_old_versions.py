"""Lineages of versions from before models had names are read as what they are."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from components import models, params
from components.errors import PedigreeError
from components.project import data
from components.registry import trace
from components.runtime import files
from components.training import model_files
from components.training.model_files import Saved
from components.trust import lineage, old_versions


def without(value: dict, *keys: str) -> dict:
    return {key: each for key, each in value.items() if key not in keys}


@pytest.fixture
def current(chain):
    return lineage.read(chain.trained.folder)


@pytest.fixture
def old(current):
    """The same, as a version of that time has it."""
    tree = json.loads(current.model_dump_json())
    tree = without(tree, "model") | {"data": without(tree["data"], "name") | {"pinned": "0" * 32 + ".dir"}}
    tree["task"] = tree["params"]["register"]["name"] = "vision"
    tree["params"]["prepare"]["max_refused"] = tree["params"]["prepare"].pop("max_rejected")
    return lineage.parse(json.dumps(tree), "it")


def test_a_new_version_names_its_model_and_its_data_set(chain, current):
    assert (current.model, current.task, current.data.name) == ("digits", "image_classification", "digits")
    assert current.data.pinned == current.data.raw == chain.prepared.manifest.raw
    assert (old_versions.is_old(current), old_versions.below(current)) == (False, "")


def test_an_old_versions_task_is_called_as_it_is_today(old):
    assert (old.task, old_versions.task(old)) == ("vision", "image_classification")


def test_an_old_one_has_its_tasks_section_and_folder(old):
    assert old_versions.is_old(old)
    assert (old_versions.section(old), old_versions.data_folder(old), old_versions.below(old)) == ("vision",) * 3


def test_a_version_is_trained_again_from_a_params_yaml_that_its_code_can_read(current, old, tmp_path):
    assert old_versions.params_file(old, old.params) == {"tasks": {"vision": old.params}}
    (tmp_path / params.FILE).write_text(json.dumps(old_versions.params_file(current, current.params)))
    assert models.load(tmp_path, "digits").params.model_dump(by_alias=True, mode="json") == current.params


def test_a_version_from_before_a_parameter_was_added_or_renamed_is_trained_again_by_the_present_code(
    chain, current
):
    older = json.loads(json.dumps(current.params))
    del older["register"]["gate"]["pinned"], older["prepare"]["resplit"], older["prepare"]["test_share"]
    del older["train"]["model"]["network"]
    older["train"]["model"]["depth"] = 18
    again = chain.task.params.model_validate(old_versions.completed(older))
    assert again.model_dump(by_alias=True, mode="json") == current.params
    assert old_versions.completed(current.params) == current.params


def test_the_model_json_of_an_old_version_is_read(chain):
    tree = json.loads((chain.trained.folder / "model.json").read_text())
    tree = without(tree, "model") | {"manifest": without(tree["manifest"], "data")}
    read = Saved.model_validate(tree)
    assert (read.model, read.task, read.manifest.data) == ("", "image_classification", "")


def test_the_network_of_a_version_whose_gate_had_other_parameters_is_rebuilt(chain, tmp_path):
    folder = shutil.copytree(chain.trained.folder, tmp_path / "model")
    described = json.loads((folder / model_files.MODEL).read_text())
    described["params"]["evaluate"]["bootstrap"] = 2000
    del described["params"]["register"]["gate"]["pinned"]
    (folder / model_files.MODEL).write_text(json.dumps(described))
    files.seal(folder)
    weights = model_files.rebuild(chain.task, folder, chain.values).state_dict()
    expected = model_files.rebuild(chain.task, chain.trained.folder).state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    with pytest.raises(PedigreeError, match=r"was written by code with other parameters \(evaluate.bootstrap, reg"):
        model_files.rebuild(chain.task, folder)


def test_the_trace_of_an_old_version_says_where_its_data_are(chain, old, monkeypatch):
    monkeypatch.setattr(trace, "lineage_of", lambda version: old)
    (weights,) = (each for each in trace.trace("digits", chain.root).parents if each.what == "weights")
    (prepared,) = (each for each in weights.parents if each.what == "prepared")
    (data,) = prepared.parents
    assert (data.which, data.where) == (f"vision {old.data.raw}", "gone")


def test_raw_files_of_an_old_version_come_from_its_pinned_data(chain, old, tmp_path, monkeypatch):
    embedded = replace(chain.task, embedded={"digits": lambda folder: (folder / "one.png").write_bytes(b"one")})
    monkeypatch.setattr(data.tasks, "load", lambda name: embedded)  # the real one's 5,000 files take seconds
    lost = old.model_copy(update={"data": old.data.model_copy(update={"raw": "1" * 32 + ".dir"})})
    with pytest.raises(PedigreeError, match="1111"):
        data.bring_raw(chain.root, lost, tmp_path / "lost")
    data.bring_raw(chain.root, old, tmp_path / "raw")
    assert {path.name for path in (tmp_path / "raw").iterdir()} == {path.name for path in chain.raw.iterdir()}
