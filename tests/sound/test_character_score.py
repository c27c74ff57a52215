"""With a language model of characters, the search finds the text that brute force over all texts finds."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_model

from components.errors import PedigreeError
from components.sound import character_score, prefix_search
from components.text import language_model, tokens
from components.text.generate import score
from components.text.language_model import LanguageModel
from components.text.params import DropoutParams, RecurrentParams, TokenizerParams
from tests.sound.test_prefix_search import BLANK, LETTERS, log_probs, totals

DROPOUT = DropoutParams(embedding=0, input=0, hidden=0, output=0, weight=0)
NETWORK = {
    "cell": "lstm",
    "embedding": 6,
    "hidden": 8,
    "layers": 2,
    "tie": False,
    "orthogonal": False,
    "forget_bias": 0.0,
}
TOKENIZER = tokens.train(TokenizerParams(name="char", vocabulary=100, min_count=1), ["ab ba\nab c\n"])


def model(cell: str = "lstm") -> LanguageModel:
    torch.manual_seed(0)
    params = RecurrentParams.model_validate(NETWORK | {"cell": cell})
    network = language_model.built(params, TOKENIZER.get_vocab_size(), DROPOUT)
    with torch.no_grad():
        network.output.weight *= 6  # so that it prefers some characters
    return network.eval()


def scorer(network: LanguageModel) -> character_score.CharacterScore:
    return character_score.of_tokens(network, TOKENIZER, LETTERS, 0.7, 0.3)


def added(network: LanguageModel, text: str) -> float:
    """Return what the model adds to a text and the end of its line, by the language model's own scores."""
    _, log_probabilities = score(network, TOKENIZER, f"\n{text}\n")
    return 0.7 * math.fsum(log_probabilities[1:]) + 0.3 * len(text.split())


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("seed", range(3))
def test_with_a_language_model_of_characters_the_best_text_is_that_of_brute_force(seed, cell):
    rows, network = log_probs(seed), model(cell)
    expected = {
        text: total + added(network, "".join(LETTERS[i] for i in text)) for text, total in totals(rows).items()
    }
    best, *_ = prefix_search.search(rows, BLANK, 10_000, scorer(network), least=-math.inf)
    assert best.tokens == max(expected, key=expected.__getitem__)
    assert best.score == pytest.approx(expected[best.tokens], abs=1e-4)


def test_a_character_that_the_language_model_lacks_is_its_unknown_one():
    found = character_score.of_tokens(model(), TOKENIZER, " xé", 1, 0)
    assert found.ids[1] == found.ids[2] == tokens.unknown_id(TOKENIZER)
    assert found.spaces == {0}


def saved(folder, **changes):
    """Write what a registered version has; return the network."""
    network = model()
    facts = {"kind": "char", "tokenizer": TOKENIZER.to_str(), "vocabulary": TOKENIZER.get_vocab_size()}
    described = {
        "task": "language_model",
        "params": {"train": {"model": NETWORK, "dropout": DROPOUT.model_dump()}},
        "manifest": {"facts": facts | changes.pop("facts", {})},
    }
    (folder / "model.json").write_text(json.dumps(described | changes))
    save_model(network, str(folder / "weights.safetensors"))
    return network


def test_a_saved_language_model_is_the_one_that_was_trained(tmp_path):
    network = saved(tmp_path)
    loaded, tokenizer = language_model.load_characters(tmp_path)
    ids = torch.tensor([tokens.encode(tokenizer, "ab ba")])
    assert torch.equal(loaded(ids)[0], network(ids)[0])
    assert not loaded.training


@pytest.mark.parametrize(
    "changes", [{"facts": {"kind": "bpe"}}, {"facts": {"kind": "word"}}, {"task": "translation"}]
)
def test_a_version_that_is_no_language_model_of_characters_is_rejected_by_name(tmp_path, changes):
    saved(tmp_path, **changes)
    with pytest.raises(PedigreeError, match=r"and characters are needed: name a version of a language model that"):
        language_model.load_characters(tmp_path)


def test_many_texts_are_read_at_once_as_one_by_one():
    network = scorer(model())
    first = network.start()
    network.ready([first])
    both = [network.extended(first, token) for token in (1, 2)]
    network.ready(both)
    for token, state in zip((1, 2), both, strict=True):
        alone = network.extended(first, token)
        network.ready([alone])
        np.testing.assert_allclose(alone.log_probs, state.log_probs, atol=1e-6)
