"""Each network reads all of a text and nothing else, and a BERT starts from its published weights."""

from pathlib import Path

import pytest
import torch

from components.contracts import Manifest
from components.errors import PedigreeError
from components.params import INIT
from components.tasks.text_classification.model import Classifier, build_model, initialise
from components.text import wordpiece
from components.training import model_files
from components.training.optimization import build_optimizers
from tests.tasks.text_classification.values import values
from tests.text import bert_folders

FACTS = {
    "classes": ["animal", "fruit", "tool"],
    "several": False,
    "pair": False,
    "out_of_scope": "",
    "tokenizer": "",
    "vocabulary": 40,
    "longest": 16,
    "counts": {},
    "foreign": {},
}
NETWORKS = ("cnn", "lstm", "transformer", "bert")
SPLIT = None
"""Initial weights do not depend on the data."""


def build(network: str, **facts: object) -> Classifier:
    torch.manual_seed(0)
    manifest = Manifest(task="text_classification", splits={}, rejected=[], facts=FACTS | facts)
    built = build_model(values(train={"model": {"network": network, "layers": 2}}), manifest)
    assert isinstance(built, Classifier)
    return built.eval()


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    token = torch.randint(40, (4, 12), generator=torch.Generator().manual_seed(1))
    return token, torch.tensor([12, 7, 2, 1]), torch.tensor([5, 7, 2, 1])


@torch.no_grad()
@pytest.mark.parametrize("network", NETWORKS)
def test_what_follows_the_end_of_a_text_changes_nothing_and_every_token_of_it_counts(network):
    model, (token, length, first) = build(network), batch()
    whole = model(token, length, first)
    assert whole.shape == (4, 3)
    for row, count in enumerate(length.tolist()):
        alone = model(token[row : row + 1, :count], length[row : row + 1], first[row : row + 1])
        torch.testing.assert_close(whole[row : row + 1], alone, rtol=0, atol=1e-5)
        for place in range(12):
            changed = token.clone()
            changed[row, place] = (token[row, place] + 1) % 40
            differs = not torch.equal(model(changed, length, first)[row], whole[row])
            assert differs == (place < count), f"token {place} of {count}"


@torch.no_grad()
@pytest.mark.parametrize("network", ["lstm", "transformer", "bert"])
def test_the_order_of_the_tokens_counts(network):
    model, (token, length, first) = build(network), batch()
    swapped = token[:, torch.tensor([1, 0, *range(2, 12)])]
    assert not torch.allclose(model(swapped, length, first)[0], model(token, length, first)[0])


@torch.no_grad()
def test_a_bert_knows_which_tokens_are_of_the_second_text():
    model, (token, length, first) = build("bert"), batch()
    assert not torch.equal(model(token, length, first)[0], model(token, length, length)[0])


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_of_several_labels_carries_their_thresholds(network):
    model = build(network, several=True)
    assert model.decision.threshold.tolist() == [0.5, 0.5, 0.5]
    assert "decision.threshold" in model.state_dict()


def started(folder: Path, name: str = "bert", vocabulary: Path | None = None) -> tuple[Classifier, set[str]]:
    """Return a network that started from a BERT's folder, and the names of what was loaded."""
    tokenizer = wordpiece.load(vocabulary or folder / "vocab.txt")
    size = bert_folders.SIZE.model_dump()
    params = values(train={"model": {"network": name, "bert": size}}, prepare={"longest": 16})
    facts = FACTS | {"tokenizer": tokenizer.to_str(), "vocabulary": tokenizer.get_vocab_size()}
    model = build_model(params, Manifest(task="text_classification", splits={}, rejected=[], facts=facts))
    assert isinstance(model, Classifier)
    return model, initialise(model, SPLIT, params, {INIT: folder})


def test_a_bert_starts_from_a_folder_with_all_weights_but_those_of_the_last_layer(tmp_path):
    folder = bert_folders.write(tmp_path / "bert")
    model, loaded = started(folder)
    assert loaded == {name for name, _ in model.named_parameters()} - {"head.weight", "head.bias"}
    expected = bert_folders.tensors()["embeddings.word_embeddings.weight"]
    assert torch.equal(model.embedding.weight, expected)


def test_a_bert_of_another_vocabulary_and_a_network_of_another_kind_are_rejected(tmp_path):
    folder = bert_folders.write(tmp_path / "bert")
    (tmp_path / "vocab.txt").write_text("\n".join([*bert_folders.WORDS, "more"]))
    with pytest.raises(
        PedigreeError, match=r"other tokens than those that the data were prepared with: set prepare"
    ):
        started(folder, vocabulary=tmp_path / "vocab.txt")
    with pytest.raises(
        PedigreeError, match=r"is a BERT's folder: set train\.model\.network to bert, or name other"
    ):
        started(folder, "cnn")


def test_a_network_starts_from_weights_of_its_own_kind_and_without_a_source_from_random_ones(tmp_path):
    model_files.save_weights(tmp_path / "weights.safetensors", build("cnn"))
    torch.manual_seed(1)
    fresh = build_model(values(), Manifest(task="text_classification", splits={}, rejected=[], facts=FACTS))
    assert initialise(fresh, SPLIT, values(), {}) == set()
    names = initialise(fresh, SPLIT, values(), {INIT: tmp_path / "weights.safetensors"})
    assert names == {name for name, _ in fresh.named_parameters()}


def test_layers_of_a_bert_nearer_to_its_input_learn_more_slowly():
    params = values(train={"model": {"network": "bert"}})
    model = build("bert")
    (optimizer,) = build_optimizers(model, params.train.optimizer, 0.5)
    rates = {id(p): group["layer_factor"] for group in optimizer.param_groups for p in group["params"]}
    named = {name: rates[id(p)] for name, p in model.named_parameters()}
    assert named["head.weight"] == 1
    assert named["encoder.layers.0.projected.weight"] == named["encoder.layers.0.norm.weight"] == 0.5
    assert named["encoder.tokens.weight"] < named["encoder.layers.0.projected.weight"]
