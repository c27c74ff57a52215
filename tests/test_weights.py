"""Weights that a network starts from: read without running anything, and taken where they fit."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from components import params
from components.errors import PedigreeError
from components.jobs import sources
from components.params import INIT, assignment
from components.tasks.image_classification.params import VisionParams
from components.weights import MODEL_WEIGHTS, read, start_from

PARAMS = Path(__file__).parent / "params.yaml"
SECTION = ("models", "digits")


def network(outputs=3):
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, outputs))


def trained(outputs=3):
    """Return a network that differs from every new one, in its running statistics too."""
    model = network(outputs)
    for tensor in model.state_dict().values():
        tensor.copy_(torch.arange(7, 7 + tensor.numel()).view(tensor.shape))
    return model


def save_as_archive(weights, folder):
    torch.save(weights, folder / "new.pth")
    return folder / "new.pth"


def save_as_before_torch_1_6(weights, folder):
    torch.save(weights, folder / "old.pth", _use_new_zipfile_serialization=False)
    return folder / "old.pth"


def save_as_safetensors(weights, folder):
    save_file(weights, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def save_as_a_trained_models_folder(weights, folder):
    save_file(weights, folder / MODEL_WEIGHTS)
    (folder / "model.json").write_text("{}")
    return folder


FILES = [save_as_archive, save_as_before_torch_1_6, save_as_safetensors]


def rejection(path):
    """Return the one sentence with which a start from `path` is rejected; the network is left as it was."""
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(PedigreeError) as caught:
        start_from(model, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("save", [*FILES, save_as_a_trained_models_folder])
def test_a_network_starts_from_the_weights_and_running_statistics_of_another(save, tmp_path):
    model, other = network(), trained().state_dict()
    names = start_from(model, save(other, tmp_path))
    assert all(torch.equal(tensor, other[name]) for name, tensor in model.state_dict().items())
    assert names == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("save", FILES)
def test_what_has_another_shape_or_name_stays_new_and_is_not_among_the_names(save, tmp_path):
    model, other = network(), trained(outputs=2).state_dict()
    other["another.weight"] = torch.ones(2)
    del other["0.bias"]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert start_from(model, save(other, tmp_path)) == {"0.weight", "1.weight", "1.bias"}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name] if name == "0.bias" or name.startswith("2.") else other[name])


@pytest.mark.parametrize("first", ["first", "second"])
def test_of_weights_that_two_layers_share_one_name_in_the_file_is_enough(first, tmp_path):
    def tied(names):
        layers = nn.ModuleDict({name: nn.Linear(4, 4, bias=False) for name in names})
        layers[names[1]].weight = layers[names[0]].weight
        return layers

    other, model = tied(["first", "second"]), tied([first, "second" if first == "first" else "first"])
    save_model(other, str(tmp_path / "weights.safetensors"))
    assert len(read(tmp_path / "weights.safetensors")) == 1
    assert start_from(model, tmp_path / "weights.safetensors") == {f"{first}.weight"}
    assert torch.equal(model["first"].weight, other["first"].weight)


def test_weights_of_which_none_fits_are_rejected_with_the_first_names_of_either(tmp_path):
    weights = {f"module.{name}": tensor for name, tensor in trained().state_dict().items()}
    text = rejection(save_as_archive(weights, tmp_path))
    assert "has no weights that match this network by name and shape (module.0.weight (5, 4), " in text
    assert "in the file, 0.weight (5, 4), 0.bias (5,), 1.weight (5,), … in the network)" in text
    assert "(nothing in the file" in rejection(save_as_archive({}, tmp_path))


def test_running_statistics_alone_are_no_start(tmp_path):
    """Networks of other architectures have those of the data, by which they normalise."""
    statistics = {name: tensor for name, tensor in trained().state_dict().items() if "running" in name}
    assert "has no weights" in rejection(save_as_archive(statistics, tmp_path))


def test_a_missing_file_and_a_folder_without_weights_are_rejected(tmp_path):
    assert "is not a file" in rejection(tmp_path / "gone.pth")
    assert "is not a file" in rejection(tmp_path)


@pytest.mark.parametrize("save", FILES)
@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_a_truncated_file_is_rejected_as_damaged(save, share, tmp_path):
    file = save({"0.weight": torch.randn(5, 4), "large": torch.randn(1000, 100)}, tmp_path)
    os.truncate(file, int(share * file.stat().st_size))
    assert "seems damaged" in rejection(file)


@pytest.mark.parametrize("name", ["page.pth", "page.safetensors"])
def test_a_file_of_another_kind_is_rejected(name, tmp_path):
    (tmp_path / name).write_text("<html>404: not found</html>")
    rejection(tmp_path / name)


class _Command:
    """What a malicious checkpoint looks like: unpickling it runs a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("archive", [True, False])
def test_a_file_that_would_run_a_command_is_rejected_and_runs_nothing(archive, tmp_path):
    command = _Command(f"touch {tmp_path}/ran")
    torch.save({"0.weight": command}, tmp_path / "a.pth", _use_new_zipfile_serialization=archive)
    assert "it could run code" in rejection(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "a.pth", weights_only=False)
    assert (tmp_path / "ran").exists()  # so the file was a dangerous one


def test_a_whole_saved_network_is_rejected_with_the_advice_to_save_its_weights(tmp_path):
    torch.save(trained(), tmp_path / "whole.pth")
    assert "model.state_dict()" in rejection(tmp_path / "whole.pth")


def test_what_is_not_named_tensors_is_rejected(tmp_path):
    nested = {"epoch": 3, "state_dict": trained().state_dict()}
    assert "epoch, state_dict" in rejection(save_as_archive(nested, tmp_path))
    assert "contains a list" in rejection(save_as_archive([torch.ones(2)], tmp_path))
    assert "tensors, 0:" in rejection(save_as_archive({0: torch.ones(2)}, tmp_path))


def test_a_file_of_weights_is_looked_for_from_the_projects_folder(tmp_path, monkeypatch):
    values = assignment(f"{INIT}=new.pth", SECTION).over(params.read(PARAMS))
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    save_as_archive(trained().state_dict(), project)
    monkeypatch.chdir(elsewhere)
    found = sources.identify(params.validate(VisionParams, values, SECTION), project)
    local = sources.fetch(found, project, elsewhere / "sources")
    assert read(local[INIT]).keys() == network().state_dict().keys()
