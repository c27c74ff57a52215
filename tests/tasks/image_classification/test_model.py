import re
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.testing import assert_close

from components.contracts import Manifest
from components.datasets.splits import Columns
from components.errors import PedigreeError
from components.images.networks.normalize import Normalize
from components.images.networks.resnet import ResNet
from components.params import INIT, assignment, read, validate
from components.tasks.image_classification.model import build_model, initialise
from components.tasks.image_classification.params import VisionParams

FILE = Path(__file__).parents[2] / "params.yaml"
SPLIT = Columns({"image": torch.zeros(4, 3, 32, 32, dtype=torch.uint8), "label": torch.arange(4)})
"""A training split, for networks that take nothing from it."""
BUILD = {
    "resnet18": torchvision.models.resnet18,
    "resnet34": torchvision.models.resnet34,
    "mobilenet_v2": torchvision.models.mobilenet_v2,
}
REFERENCE = {18: torchvision.models.resnet18, 34: torchvision.models.resnet34}


def parameters(**model):
    values = read(FILE)
    for key, value in model.items():
        values = assignment(f"train.model.{key}={value}", ("models", "digits")).over(values)
    return validate(VisionParams, values, ("models", "digits"))


def pretrained(**model):
    return parameters(**({"width": 1, "stem": "imagenet"} | model))


def start(network, params, file):
    return initialise(network, SPLIT, params, {INIT: file})


def manifest(channels=3, size=32, classes=10):
    facts = {
        "classes": [f"class {i}" for i in range(classes)],
        "channels": channels,
        "size": size,
        "mean": [0.5] * channels,
        "std": [0.25] * channels,
        "counts": {"train": {"class 0": 1}, "val": {}, "test": {}},
    }
    return Manifest(task="image_classification", splits={}, rejected=[], facts=facts)


def reference(depth, classes=1000):
    torch.manual_seed(depth)
    return with_statistics(REFERENCE[depth](weights=None, num_classes=classes))


def with_statistics(network):
    """Return a network whose batch norms have statistics of their own, as a trained one's have."""
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


def rejection(file, **model):
    params = pretrained(**model)
    network = build_model(params, manifest())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(PedigreeError) as caught:
        start(network, params, file)
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


def test_the_network_has_the_datas_channels_and_classes_and_the_chosen_network_and_width():
    network = build_model(parameters(network="resnet34", width=0.125), manifest(channels=1, classes=4)).network
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
    assert initialise(network, SPLIT, parameters(width=0.125), {}) == set()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def save_as_archive(weights, folder):
    torch.save(weights, folder / "new.pth")
    return folder / "new.pth"


def test_a_torchvision_checkpoint_gives_the_backbone_and_leaves_the_head_new(checkpoint, resnet18):
    params = pretrained()
    network = build_model(params, manifest(classes=1000))  # as many classes as the checkpoint has
    head = network.network.fc.weight.clone()
    names = start(network, params, checkpoint)
    theirs = backbone(resnet18)
    assert len(theirs) == 120
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in backbone(network.network).items())
    assert torch.equal(network.network.fc.weight, head)
    assert not torch.equal(head, resnet18.fc.weight)
    assert names == {name for name, _ in network.named_parameters()} - {"network.fc.weight", "network.fc.bias"}


def test_a_grey_image_is_answered_as_the_checkpoint_answers_three_equal_channels(checkpoint, resnet18):
    params = pretrained()
    network = build_model(params, manifest(channels=1, classes=1000))
    assert "network.conv1.weight" in start(network, params, checkpoint)
    network.network.fc = resnet18.fc
    grey = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        answer = network.eval().network(grey)
        assert_close(answer, resnet18(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_an_old_checkpoint_without_batch_counters_is_taken(resnet18, tmp_path):
    weights = {k: v for k, v in resnet18.state_dict().items() if not k.endswith("num_batches_tracked")}
    params = pretrained()
    network = build_model(params, manifest())
    start(network, params, save_as_archive(weights, tmp_path))
    assert torch.equal(network.network.layer4[1].bn2.running_var, resnet18.layer4[1].bn2.running_var)


@pytest.mark.parametrize("stem", ["small", "auto"])
def test_a_torchvision_checkpoint_is_rejected_for_the_small_stem(stem, checkpoint):
    assert "set stem: imagenet" in rejection(checkpoint, stem=stem)


def test_foreign_and_missing_names_are_listed(resnet18, tmp_path):
    weights = resnet18.state_dict()
    weights["norm.weight"] = weights.pop("bn1.weight")
    text = rejection(save_as_archive(weights, tmp_path))
    assert "norm.weight is unexpected, bn1.weight is missing: use" in text


def test_only_the_first_misfits_are_named(resnet18, tmp_path):
    weights = {f"module.{name}": tensor for name, tensor in resnet18.state_dict().items()}
    weights["layer1.0.conv1.weight"] = weights.pop("module.layer1.0.conv1.weight")
    text = rejection(save_as_archive(weights, tmp_path))
    assert "module.conv1.weight is unexpected" in text
    assert re.search(r"and \d+ more", text)
    assert len(text) < 400


def test_wrong_shapes_are_named_with_the_right_ones(tmp_path):
    weights = ResNet(18, channels=3, classes=10, stem="small").state_dict()
    text = rejection(save_as_archive(weights, tmp_path))
    assert "conv1.weight is (64, 3, 3, 3) instead of (64, 3, 7, 7)" in text
    assert "set train.model.network" not in text


@pytest.mark.parametrize(
    ("network", "other"), [("resnet18", "resnet34"), ("resnet34", "mobilenet_v2"), ("mobilenet_v2", "resnet18")]
)
def test_a_checkpoint_of_another_network_is_recognised(network, other, tmp_path):
    file = save_as_archive(BUILD[other]().state_dict(), tmp_path)
    stem = "imagenet" if network.startswith("resnet") else "auto"
    text = rejection(file, network=network, stem=stem)
    assert f"use torchvision's weights of {network}, or set train.model.network: {other}, whose" in text


def test_a_checkpoint_of_a_deeper_network_is_recognised(tmp_path):
    weights = torchvision.models.resnet50(weights=None).state_dict()
    assert "50 layers or more" in rejection(save_as_archive(weights, tmp_path))


@pytest.mark.parametrize("kind", ["whitened", "resnet18", "mobilenet_v2"])
def test_a_network_starts_from_what_fits_of_one_that_was_trained_here_before(kind, tmp_path):
    params = parameters(network=kind, width=0.125)
    torch.manual_seed(1)
    trained, network = (build_model(params, manifest(classes=classes)) for classes in (7, 10))
    images = torch.randint(256, SPLIT["image"].shape, dtype=torch.uint8)
    initialise(trained, Columns({"image": images}), params, {})
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    names = start(network, params, save_as_archive(trained.state_dict(), tmp_path))
    head = {name for name in before if name.startswith(("network.fc.", "network.classifier."))}
    assert names == {name for name, _ in network.named_parameters()} - head
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name] if name in head else trained.state_dict()[name]), name


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    """torchvision's MobileNetV2, and the file that it publishes of it, with other numbers."""
    network = with_statistics(torchvision.models.mobilenet_v2(weights=None))
    file = tmp_path_factory.mktemp("published") / "mobilenet_v2-b0353104.pth"
    torch.save(network.state_dict(), file)
    return network, file


@pytest.mark.parametrize("channels", [1, 3])
def test_a_mobilenet_that_starts_from_torchvisions_file_answers_as_torchvisions(channels, mobilenet, caplog):
    theirs, file = mobilenet
    params = parameters(network="mobilenet_v2", width=1)
    network = build_model(params, manifest(channels, size=64, classes=1000))  # as many classes as the file has
    caplog.set_level("INFO", "pedigree.train")
    names = start(network, params, file)
    head = {"network.classifier.1.weight", "network.classifier.1.bias"}
    assert names == {name for name, _ in network.named_parameters()} - head
    assert caplog.messages == [
        "started from 312 of 316 tensors of mobilenet_v2-b0353104.pth; new: network.classifier.1.weight, "
        "network.classifier.1.bias"
    ]
    assert not torch.equal(network.network.classifier[1].weight, theirs.classifier[1].weight)
    network.network.classifier = theirs.classifier
    image = torch.randint(256, (2, channels, 64, 64), dtype=torch.uint8)
    if channels == 3:
        normal = torchvision.transforms.functional.normalize(
            image / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        )
    else:
        normal = ((image / 255 - 0.449) / 0.226).expand(-1, 3, -1, -1)
    with torch.inference_mode():
        assert_close(network.eval()(image), theirs(normal), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [28, 33])
def test_a_mobilenet_maps_images_of_any_size_from_28_pixels(size):
    network = build_model(parameters(network="mobilenet_v2", width=0.25), manifest(1, size, classes=7))
    assert network(torch.randint(256, (2, 1, size, size), dtype=torch.uint8)).shape == (2, 7)
    assert network.network.features[0][0].out_channels == 8


@pytest.mark.parametrize("network", ["mobilenet_v2", "whitened"])
def test_only_a_resnet_has_a_choice_of_stems(network):
    with pytest.raises(PedigreeError, match=f"network: {network} has first layers of its own: it needs stem: auto"):
        parameters(network=network, stem="small")


def test_the_number_of_layers_is_a_key_of_earlier_versions():
    with pytest.raises(PedigreeError, match=r"train\.model\.depth is called network now: write resnet18 for 18"):
        parameters(depth=18)


def test_all_of_a_network_learns():
    network = build_model(parameters(width=0.125), manifest())
    before = {name: tensor.clone() for name, tensor in network.network.state_dict().items()}
    network(torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)).square().mean().backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    same = [name for name, tensor in network.network.state_dict().items() if torch.equal(tensor, before[name])]
    assert same == []


def ensemble(members=3, **model):
    return build_model(parameters(members=members, **model), manifest())


def test_members_of_an_ensemble_start_with_different_weights_and_answer_with_their_mean_probability():
    torch.manual_seed(0)
    model, image = ensemble(width=0.125), torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    members = model.get_submodule("network").members
    assert len({float(member.fc.weight.detach()[0, 0]) for member in members}) == 3
    assert model.train()(image).shape == (3, 2, 10)
    model.eval()
    each = [nn.Sequential(model.normalize, member)(image).softmax(1) for member in members]
    assert_close(model(image).softmax(1), torch.stack(each).mean(0))


def test_a_single_member_has_the_names_of_a_network_of_its_own():
    single = build_model(parameters(width=0.125), manifest())
    assert all(name.startswith(("normalize.", "network.")) for name in single.state_dict())
    assert "network.conv1.weight" in single.state_dict()


def test_published_weights_and_those_of_one_network_initialise_every_member(checkpoint, resnet18, tmp_path):
    params = pretrained(members=2)
    model = build_model(params, manifest())
    loaded = start(model, params, checkpoint)
    for member in model.get_submodule("network").members:
        assert_close(member.layer3[0].conv1.weight, resnet18.layer3[0].conv1.weight)
    assert loaded == {name for name, _ in model.named_parameters() if ".fc." not in name}
    single = build_model(pretrained(), manifest())
    torch.save(single.state_dict(), tmp_path / "single.pt")
    loaded = start(model, params, tmp_path / "single.pt")
    assert loaded == {name for name, _ in model.named_parameters()}
    for member in model.get_submodule("network").members:
        assert_close(member.fc.weight, single.get_submodule("network").fc.weight)


def test_an_ensemble_starts_from_an_ensemble_member_by_member(tmp_path):
    torch.manual_seed(1)
    first, second = ensemble(width=0.125), ensemble(width=0.125)
    torch.save(first.state_dict(), tmp_path / "ensemble.pt")
    start(second, parameters(members=3, width=0.125), tmp_path / "ensemble.pt")
    for name, tensor in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], tensor)


def test_every_member_is_whitened():
    params = parameters(network="whitened", width=0.25, members=2)
    model, split = (
        build_model(params, manifest()),
        Columns({"image": torch.randint(0, 256, (64, 3, 32, 32)).byte()}),
    )
    initialise(model, split, params, {})
    one, two = (member.whiten.weight for member in model.get_submodule("network").members)
    assert torch.equal(one, two)


def test_layer_decay_needs_one_network():
    values = assignment("train.init.layer_decay=0.5", ("models", "digits")).over(read(FILE))
    values = assignment("train.model.members=2", ("models", "digits")).over(values)
    with pytest.raises(PedigreeError, match=r"init.layer_decay counts the layers of one network"):
        validate(VisionParams, values, ("models", "digits"))
