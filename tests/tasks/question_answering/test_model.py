"""A network reads a window and no padding, finds a piece of the context, and starts from a BERT's weights."""

import pytest
import torch

from components.contracts import Manifest
from components.errors import PedigreeError
from components.params import INIT
from components.tasks.question_answering.model import Reader, build_model, initialise
from components.text import wordpiece
from components.training import model_files
from tests.tasks.question_answering.values import values
from tests.text import bert_folders

FACTS = {
    "tokenizer": "",
    "vocabulary": 40,
    "cut": [24, 10, 4],
    "counts": {},
    "unanswerable": {"train": 1, "val": 1, "test": 1},
}
NETWORKS = ("lstm", "bert")
SPLIT = None
"""Initial weights do not depend on the data."""


def build(network: str, **facts: object) -> Reader:
    torch.manual_seed(0)
    manifest = Manifest(task="question_answering", splits={}, rejected=[], facts=FACTS | facts)
    built = build_model(values(train={"model": {"network": network, "layers": 2}}), manifest)
    assert isinstance(built, Reader)
    return built.eval()


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    token = torch.randint(40, (3, 12), generator=torch.Generator().manual_seed(1))
    return token, torch.tensor([12, 7, 5]), torch.tensor([5, 4, 3])


@torch.no_grad()
@pytest.mark.parametrize("network", NETWORKS)
def test_an_answer_is_in_the_context_or_none_and_padding_changes_nothing(network):
    model, (token, length, first) = build(network), batch()
    whole = model(token, length, first)
    assert whole.shape == (2, 3, 12)
    for row in range(3):
        possible = {0, *range(first[row], length[row] - 1)}  # without the last [SEP]
        for logits in whole[:, row]:
            assert {place for place in range(12) if logits[place] > -torch.inf} == possible
        count = int(length[row])
        alone = model(token[row, None, :count], length[row, None], first[row, None])
        torch.testing.assert_close(whole[:, row, :count], alone[:, 0], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("network", NETWORKS)
def test_the_question_decides_what_the_answer_is(network):
    model, (token, length, first) = build(network), batch()
    changed = token.clone()
    changed[0, 2] = (token[0, 2] + 1) % 40
    assert not torch.allclose(model(changed, length, first)[:, 0], model(token, length, first)[:, 0])


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_has_a_threshold_only_if_it_was_trained_on_questions_without_an_answer(network):
    assert build(network).state_dict()["threshold"] == 0
    always = build(network, unanswerable={"train": 0, "val": 1, "test": 1})
    assert always.threshold is None
    assert "threshold" not in always.state_dict()


def test_a_bert_starts_from_a_folder_with_all_weights_but_those_of_the_last_layer(tmp_path):
    folder = bert_folders.write(tmp_path / "bert")
    tokenizer = wordpiece.load(folder / "vocab.txt")
    facts = FACTS | {"tokenizer": tokenizer.to_str(), "vocabulary": tokenizer.get_vocab_size()}
    manifest = Manifest(task="question_answering", splits={}, rejected=[], facts=facts)
    size = bert_folders.SIZE.model_dump()
    small = {"longest": 16, "longest_question": 4, "overlap": 2}
    params = values(train={"model": {"network": "bert", "bert": size}}, prepare=small)
    model = build_model(params, manifest)
    loaded = initialise(model, SPLIT, params, {INIT: folder})
    assert loaded == {name for name, _ in model.named_parameters()} - {"head.weight", "head.bias"}
    expected = bert_folders.tensors()["embeddings.word_embeddings.weight"]
    assert torch.equal(model.encoder.tokens.weight, expected)
    with pytest.raises(
        PedigreeError, match=r"is a BERT's folder: set train\.model\.network to bert, or name other"
    ):
        initialise(build_model(values(), manifest), SPLIT, values(), {INIT: folder})


def test_a_network_starts_from_weights_of_its_own_kind_and_without_a_source_from_random_ones(tmp_path):
    model_files.save_weights(tmp_path / "weights.safetensors", build("lstm"))
    fresh = build("lstm")
    assert initialise(fresh, SPLIT, values(), {}) == set()
    params = values(train={"model": {"layers": 2}})
    names = initialise(fresh, SPLIT, params, {INIT: tmp_path / "weights.safetensors"})
    assert names == {name for name, _ in fresh.named_parameters()}


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"prepare": {"overlap": 11}}, "has room for 11 of the context beside a question of longest_question 10"),
        (
            {"train": {"model": {"network": "bert"}}, "prepare": {"longest": 65}},
            "more than the 64 positions of the",
        ),
    ],
)
def test_windows_without_room_or_without_positions_are_an_error_of_the_parameters(section, problem):
    with pytest.raises(PedigreeError, match=problem):
        values(**section)
