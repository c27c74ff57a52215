import os
import re
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from components.contracts import Manifest
from components.errors import PedigreeError
from components.params import assignment, read, validate
from components.vision.model import Normalize, ResNet, build_model, initialise
from components.vision.params import VisionParams

FILE = Path(__file__).parents[2] / "params.yaml"
SPLIT = {"image": torch.zeros(4, 3, 32, 32, dtype=torch.uint8), "label": torch.arange(4)}
"""A training split, for networks that take nothing from it."""
REFERENCE = {18: torchvision.models.resnet18, 34: torchvision.models.resnet34}


def parameters(**model):
    values = read(FILE)
    for key, value in model.items():
        values = assignment(f"train.model.{key}={value}", ("tasks", "vision")).over(values)
    return validate(VisionParams, values, ("tasks", "vision"))


def pretrained(checkpoint, **model):
    values = {"width": 1, "stem": "imagenet", "init": "pretrained", "checkpoint": checkpoint}
    return parameters(**(values | model))


def manifest(channels=3, size=32, classes=10):
    facts = {
        "classes": [f"class {i}" for i in range(classes)],
        "channels": channels,
        "size": size,
        "mean": [0.5] * channels,
        "std": [0.25] * channels,
        "counts": {"train": {"class 0": 1}, "val": {}, "test": {}},
    }
    return Manifest(task="vision", splits={}, refused=[], facts=facts)


def reference(depth, classes=1000):
    """A torchvision network whose batch norms have statistics of their own, as a trained one's have."""
    torch.manual_seed(depth)
    network = REFERENCE[depth](weights=None, num_classes=classes)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.num_batches_tracked.fill_(7)
    return network.eval()


@pytest.fixture(scope="module")
def resnet18():
    return reference(18)


@pytest.fixture
def checkpoint(resnet18, tmp_path):
    torch.save(resnet18.state_dict(), tmp_path / "resnet18.pth")
    return tmp_path / "resnet18.pth"


def refusal(file, **model):
    params = pretrained(file, **model)
    network = build_model(params, manifest())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(PedigreeError) as caught:
        initialise(network, params, SPLIT)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)
    return str(caught.value)


def backbone(network):
    return {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("fc.")}


@pytest.mark.parametrize(("depth", "count"), [(18, 11_173_962), (34, 21_282_122)])
def test_the_small_stem_has_the_published_number_of_parameters(depth, count):
    assert sum(weights.numel() for weights in ResNet(depth, channels=3, classes=10).parameters()) == count


@pytest.mark.parametrize("depth", [18, 34])
def test_equal_seeds_give_torchvisions_weights(depth):
    torch.manual_seed(0)
    ours = ResNet(depth, channels=3, classes=10, stem="imagenet").state_dict()
    torch.manual_seed(0)
    theirs = REFERENCE[depth](weights=None, num_classes=10).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("depth", [18, 34])
@pytest.mark.parametrize("size", [64, 97])
def test_torchvisions_state_dict_loads_and_gives_torchvisions_logits(depth, size):
    theirs = reference(depth)
    ours = ResNet(depth, channels=3, classes=1000, stem="imagenet").eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    image = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        assert_close(ours(image), theirs(image), rtol=1e-6, atol=1e-6)


def test_training_gives_torchvisions_gradients():
    theirs = reference(18, classes=10).train()
    ours = ResNet(18, channels=3, classes=10, stem="imagenet")
    ours.load_state_dict(theirs.state_dict())
    image, label = torch.randn(4, 3, 64, 64), torch.arange(4)
    for network in (ours, theirs):
        nn.functional.cross_entropy(network(image), label).backward()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("width", "filters"),
    [(0.125, [8, 16, 32, 64]), (0.3, [16, 40, 80, 152]), (1, [64, 128, 256, 512])],
)
def test_the_width_multiplies_the_filters_in_steps_of_8(width, filters):
    network = ResNet(18, 3, 10, width)
    stages = [network.layer1, network.layer2, network.layer3, network.layer4]
    assert [stage[0].conv1.out_channels for stage in stages] == filters


@pytest.mark.parametrize("stem", ["small", "imagenet"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [28, 33])
def test_images_of_any_size_from_28_pixels_get_logits(stem, channels, size):
    network = ResNet(18, channels, classes=7, width=0.125, stem=stem)
    assert network(torch.randn(2, channels, size, size)).shape == (2, 7)


@pytest.mark.parametrize(("stem", "side"), [("small", 32), ("imagenet", 8)])
def test_the_small_stem_keeps_the_resolution_and_the_imagenet_stem_quarters_it(stem, side):
    network, shapes = ResNet(18, 3, 10, 0.125, stem), []
    network.layer1.register_forward_pre_hook(lambda module, inputs: shapes.append(inputs[0].shape))
    network(torch.randn(1, 3, 32, 32).expand(2, -1, -1, -1))
    assert shapes == [(2, 8, side, side)]


@pytest.mark.parametrize(
    ("chosen", "size", "stem"),
    [("auto", 64, "small"), ("auto", 65, "imagenet"), ("small", 65, "small"), ("imagenet", 28, "imagenet")],
)
def test_the_stem_follows_the_images_unless_it_is_chosen(chosen, size, stem):
    network = build_model(parameters(stem=chosen, width=0.125), manifest(size=size))
    assert network.network.stem == stem


def test_the_network_has_the_datas_channels_and_classes_and_the_chosen_depth_and_width():
    network = build_model(parameters(depth=34, width=0.125), manifest(channels=1, classes=4)).network
    assert (network.conv1.in_channels, network.conv1.out_channels, network.fc.out_features) == (1, 8, 4)
    assert len(network.layer3) == 6


def test_images_are_normalised_alike_as_bytes_and_as_floats():
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 0.125]
    image = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
    expected = torch.stack([(image[:, i] / 255 - mean[i]) / std[i] for i in range(3)], dim=1)
    floats = image.float()
    normalize = Normalize(mean, std)
    assert_close(normalize(image), expected)
    assert torch.equal(normalize(floats), normalize(image))
    assert torch.equal(floats, image.float())  # the given images are left alone
    assert set(normalize.state_dict()) == {"mean", "std"}


def test_the_built_network_normalises_with_the_datas_own_statistics():
    network = build_model(parameters(width=0.125), manifest()).eval()
    image = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    assert_close(network(image), network.network((image / 255 - 0.5) / 0.25))


def test_a_random_start_is_left_as_it_is():
    network = build_model(parameters(width=0.125), manifest())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    initialise(network, parameters(width=0.125), SPLIT)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def save_as_archive(weights, folder):
    torch.save(weights, folder / "new.pth")
    return folder / "new.pth"


def save_as_before_torch_1_6(weights, folder):
    torch.save(weights, folder / "old.pth", _use_new_zipfile_serialization=False)
    return folder / "old.pth"


def save_as_safetensors(weights, folder):
    save_file(weights, folder / "weights.safetensors")
    return folder / "weights.safetensors"


@pytest.mark.parametrize("save", [save_as_archive, save_as_before_torch_1_6, save_as_safetensors])
def test_a_checkpoint_gives_the_backbone_and_leaves_the_head_new(save, resnet18, tmp_path):
    params = pretrained(save(resnet18.state_dict(), tmp_path))
    network = build_model(params, manifest(classes=1000))  # as many classes as the checkpoint has
    head = network.network.fc.weight.clone()
    initialise(network, params, SPLIT)
    theirs = backbone(resnet18)
    assert len(theirs) == 120
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in backbone(network.network).items())
    assert torch.equal(network.network.fc.weight, head)
    assert not torch.equal(head, resnet18.fc.weight)


def test_a_checkpoint_is_found_from_the_current_folder(checkpoint, resnet18, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    params = pretrained(checkpoint.name)
    network = build_model(params, manifest())
    initialise(network, params, SPLIT)
    assert torch.equal(network.network.conv1.weight, resnet18.conv1.weight)


def test_a_grey_image_is_answered_as_the_checkpoint_answers_three_equal_channels(checkpoint, resnet18):
    params = pretrained(checkpoint)
    network = build_model(params, manifest(channels=1, classes=1000))
    initialise(network, params, SPLIT)
    network.network.fc = resnet18.fc
    grey = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        answer = network.eval().network(grey)
        assert_close(answer, resnet18(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_an_old_checkpoint_without_batch_counters_is_taken(resnet18, tmp_path):
    weights = {k: v for k, v in resnet18.state_dict().items() if not k.endswith("num_batches_tracked")}
    params = pretrained(save_as_archive(weights, tmp_path))
    network = build_model(params, manifest())
    initialise(network, params, SPLIT)
    assert torch.equal(network.network.layer4[1].bn2.running_var, resnet18.layer4[1].bn2.running_var)


def test_a_trained_network_is_rebuilt_when_its_checkpoint_is_gone(tmp_path):
    network = build_model(pretrained(tmp_path / "gone.pth"), manifest())
    network.load_state_dict(build_model(pretrained(tmp_path / "gone.pth"), manifest()).state_dict())


@pytest.mark.parametrize("stem", ["small", "auto"])
def test_a_checkpoint_is_refused_for_the_small_stem(stem, checkpoint):
    assert "set stem: imagenet" in refusal(checkpoint, stem=stem)


def test_a_missing_checkpoint_and_a_folder_are_refused(tmp_path):
    assert "is not a file" in refusal(tmp_path / "gone.pth")
    assert "is not a file" in refusal(tmp_path)


@pytest.mark.parametrize("save", [save_as_archive, save_as_before_torch_1_6, save_as_safetensors])
@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused_as_damaged(save, share, resnet18, tmp_path):
    file = save({"conv1.weight": resnet18.conv1.weight.detach()}, tmp_path)
    os.truncate(file, int(share * file.stat().st_size))
    assert "seems damaged" in refusal(file)


@pytest.mark.parametrize("name", ["page.pth", "page.safetensors"])
def test_a_file_of_another_kind_is_refused(name, tmp_path):
    (tmp_path / name).write_text("<html>404: not found</html>")
    refusal(tmp_path / name)


class _Command:
    """What a malicious checkpoint looks like: unpickling it runs a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("archive", [True, False])
def test_a_checkpoint_that_would_run_a_command_is_refused_and_runs_nothing(archive, tmp_path):
    command = _Command(f"touch {tmp_path}/ran")
    torch.save({"conv1.weight": command}, tmp_path / "a.pth", _use_new_zipfile_serialization=archive)
    assert "it could run code" in refusal(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "a.pth", weights_only=False)
    assert (tmp_path / "ran").exists()  # so the file was a dangerous one


def test_a_whole_saved_network_is_refused_with_the_advice_to_save_its_weights(resnet18, tmp_path):
    torch.save(resnet18, tmp_path / "whole.pth")
    assert "model.state_dict()" in refusal(tmp_path / "whole.pth")


def test_what_is_not_named_tensors_is_refused(resnet18, tmp_path):
    nested = {"epoch": 3, "state_dict": resnet18.state_dict()}
    assert "epoch, state_dict" in refusal(save_as_archive(nested, tmp_path))
    assert "holds a list" in refusal(save_as_archive([torch.ones(2)], tmp_path))
    assert "tensors, 0:" in refusal(save_as_archive({0: torch.ones(2)}, tmp_path))


def test_foreign_and_missing_names_are_listed(resnet18, tmp_path):
    weights = resnet18.state_dict()
    weights["norm.weight"] = weights.pop("bn1.weight")
    text = refusal(save_as_archive(weights, tmp_path))
    assert "norm.weight is foreign, bn1.weight is missing: give" in text


def test_only_the_first_misfits_are_named(resnet18, tmp_path):
    weights = {f"module.{name}": tensor for name, tensor in resnet18.state_dict().items()}
    text = refusal(save_as_archive(weights, tmp_path))
    assert "module.conv1.weight is foreign" in text
    assert re.search(r"and \d+ more", text)
    assert len(text) < 400


def test_wrong_shapes_are_named_with_the_right_ones(tmp_path):
    weights = ResNet(18, channels=3, classes=10, stem="small").state_dict()
    text = refusal(save_as_archive(weights, tmp_path))
    assert "conv1.weight is (64, 3, 3, 3) instead of (64, 3, 7, 7)" in text
    assert "set depth" not in text


@pytest.mark.parametrize(("depth", "other"), [(18, 34), (34, 18)])
def test_a_checkpoint_of_the_other_depth_is_recognised(depth, other, tmp_path):
    file = save_as_archive(ResNet(other, 3, 10, stem="imagenet").state_dict(), tmp_path)
    assert f"set depth: {other}" in refusal(file, depth=depth)


def test_a_checkpoint_of_a_deeper_network_is_recognised(tmp_path):
    weights = torchvision.models.resnet50(weights=None).state_dict()
    assert "50 layers or more" in refusal(save_as_archive(weights, tmp_path))


def update(network, image):
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(image).square().mean().backward()
    optimizer.step()


def test_a_frozen_backbone_stays_as_it_is_while_the_head_learns(checkpoint):
    params = pretrained(checkpoint, freeze_backbone=True)
    network = build_model(params, manifest())
    initialise(network, params, SPLIT)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.eval()
    network.train()  # as training does after each validation
    update(network, torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8))
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"network.fc.weight", "network.fc.bias"}
    assert {name for name, p in network.named_parameters() if p.requires_grad} == changed
    assert network.training
    assert network.network.training
    assert network.network.fc.training


def test_without_freezing_all_of_the_network_learns():
    network = build_model(parameters(width=0.125), manifest())
    before = {name: tensor.clone() for name, tensor in network.network.state_dict().items()}
    update(network, torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8))
    kept = [name for name, tensor in network.network.state_dict().items() if torch.equal(tensor, before[name])]
    assert kept == []
