"""Episodes of training, the loss, and what a network knows."""

from types import MappingProxyType

import numpy as np
import pytest
import torch

from components.contracts import Shard
from components.errors import PedigreeError
from components.images.augment import warped
from components.params import INIT
from components.tasks.few_shot import episodes, model, prepare, train
from components.training import model_files


@pytest.fixture
def chain(chain_of):
    """The small alphabets."""
    return chain_of("glyphs")


def with_augment(chain, **changes):
    section = chain.values.train.augment.model_copy(update=changes)
    return chain.values.model_copy(update={"train": chain.values.train.model_copy(update={"augment": section})})


def test_an_episode_depends_on_seed_epoch_and_index_alone_and_has_each_image_once(chain):
    split = prepare.load_split(chain.prepared.folder, "train")
    first, again, next_epoch = (train.batches(split, chain.values, Shard(epoch)) for epoch in (0, 0, 1))
    assert torch.equal(first[2]["image"], again[2]["image"])
    assert not torch.equal(first[2]["image"], first[1]["image"])
    assert not torch.equal(first[2]["image"], next_epoch[2]["image"])
    images = first[2]["image"].flatten(0, 2).flatten(1)
    turns = first[2]["turn"]
    assert images.shape[0] == 2 * 5 * 3
    kinds = first[2]["label"] * episodes.TURNS + turns
    assert all(len(set(each)) == len(each) for each in kinds.tolist()), (
        "a class may return, but not in the same turn"
    )


def test_classes_are_turned_as_a_whole(chain):
    split = prepare.load_split(chain.prepared.folder, "train")
    batch = train.batches(split, chain.values, Shard())[0]
    turned = train.augment(batch, with_augment(chain, turns=True, rotate=0, scale=0, shift=0))["image"]
    for episode in range(2):
        for way, turns in enumerate(batch["turn"][episode].tolist()):
            assert torch.equal(turned[episode, way], batch["image"][episode, way].rot90(turns, (-2, -1)))


def test_warping_by_nothing_changes_nothing_and_shifts_go_as_far_as_given():
    image = torch.zeros(50, 1, 28, 28, dtype=torch.uint8)
    image[:, :, 14, 14] = 255
    torch.testing.assert_close(warped(image, 0, 0, 0), image.float(), rtol=0, atol=0.01)
    weights = warped(image, 0, 0, 0.25)
    rows, columns = ((weights.sum(axis) * torch.arange(28)).sum(-1) / weights.sum((2, 3)) for axis in (3, 2))
    assert (rows - 14).abs().max() <= 7.01
    assert (columns - 14).abs().max() > 3


def test_more_ways_than_there_are_classes_are_one_sentence(chain):
    split = prepare.load_split(chain.prepared.folder, "train")
    section = chain.values.train.episodes.model_copy(update={"ways": 300})
    with pytest.raises(PedigreeError, match="needs 300 classes of 3 images, and training has 36"):
        episodes.drawn(split, section, turns=True, size=1, seed=(0,))


def test_an_image_is_of_the_nearest_prototype(chain):
    network = model.network(model_files.rebuild(chain.task, chain.trained.folder))
    embedding = torch.randn(7, network.prototypes.shape[1])
    distances = (embedding[:, None] - network.prototypes).square().sum(2)
    assert torch.equal(network.classify(embedding).argmax(1), distances.argmin(1))
    probabilities = (-model.SCALE * distances).softmax(1)
    torch.testing.assert_close(network.classify(embedding).softmax(1), probabilities)


def test_a_trained_version_knows_the_classes_of_validation(chain):
    network = model.network(model_files.rebuild(chain.task, chain.trained.folder))
    images = prepare.load_split(chain.prepared.folder, "val", images=True)
    with torch.inference_mode():
        found = network.classify(network(images.image)).argmax(1)
    assert set(images.label.tolist()) == set(range(len(network.prototypes)))
    assert (found == images.label).double().mean() > 1.5 / len(network.prototypes)


def test_taught_prototypes_are_the_means_of_the_support_and_one_image_can_be_left_out(chain):
    network = model.network(model_files.rebuild(chain.task, chain.trained.folder))
    embedding, label = torch.randn(6, network.prototypes.shape[1]), torch.tensor([0, 0, 0, 1, 1, 1])
    network.learn(embedding, label)
    torch.testing.assert_close(network.prototypes[1], embedding[3:].mean(0))
    network.alone = True
    logits = network.classify(embedding, label)
    others = torch.stack([embedding[1:3].mean(0), embedding[3:].mean(0)])
    torch.testing.assert_close(logits[0, :2], model.compare(others, embedding[:1])[0])


def test_the_classes_of_given_images_are_learnt_when_the_network_starts(chain):
    section = chain.values.prepare.model_copy(update={"taught": True})
    values = chain.values.model_copy(update={"prepare": section})
    manifest = chain.prepared.manifest
    network = model.network(model.build_model(values, manifest))
    images = prepare.load_split(chain.prepared.folder, "val", images=True)
    model.initialise(network, images, values, MappingProxyType({INIT: chain.trained.folder}))
    first = images.image[images.label == 0]
    network.eval()
    with torch.inference_mode():
        torch.testing.assert_close(network.prototypes[0], network(first).mean(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(network.support, images.label.bincount())
