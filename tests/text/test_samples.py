"""Samples become tokens by a tokenizer that is learnt or read, single texts and pairs alike."""

import logging

import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer

from components.runtime import progress
from components.text import samples, tokens
from components.text.params import SampleTokenizerParams
from tests.text import bert_folders

TEXTS = ["The cat, it sat.", "Lost my CARD\nagain", "the card of the cat"]


def params(name: str, **changes: object) -> SampleTokenizerParams:
    values = {"name": name, "vocabulary": 300, "min_count": 1, "lowercase": True, "from": ""}
    return SampleTokenizerParams.model_validate(values | changes)


def learnt(name: str, **changes: object) -> Tokenizer:
    return samples.learn(params(name, **changes), TEXTS)


def one(tokenizer: Tokenizer, *texts: str, longest: int = 100) -> samples.Encoded:
    (found,) = samples.encoded(tokenizer, [texts], longest)
    return found


@pytest.mark.parametrize("name", ["word", "bpe"])
def test_small_letters_stand_for_capital_ones_if_asked_for(name):
    assert one(learnt(name), "LOST Card").ids == one(learnt(name), "lost card").ids
    assert one(learnt(name, lowercase=False), "CARD").ids != one(learnt(name, lowercase=False), "card").ids


@pytest.mark.parametrize("name", ["word", "bpe"])
def test_two_texts_have_a_token_between_them_which_no_text_becomes(name):
    tokenizer = learnt(name)
    separator = tokenizer.token_to_id(samples.SEPARATOR)
    pair = one(tokenizer, "the cat", "my card")
    assert pair.ids == [*one(tokenizer, "the cat").ids, separator, *one(tokenizer, "my card").ids]
    assert pair.first == pair.ids.index(separator) + 1
    assert separator not in one(tokenizer, f"a {samples.SEPARATOR}{samples.SEPARATOR} b").ids


def test_what_a_learnt_tokenizer_knows_is_saved_with_it():
    for name in ("word", "bpe"):
        tokenizer = learnt(name)
        again = tokens.load(tokenizer.to_str())
        assert one(again, "The CAT", "my card") == one(tokenizer, "The CAT", "my card")


def test_whether_marks_stand_apart_is_told_by_many_texts_and_not_by_the_first_alone():
    apart = ["a lone text", *[f"the cat sat , and sat {number} !" for number in range(20)]]
    assert one(samples.learn(params("word"), apart), "don't sat,").ids == [0, 0]


def test_a_sample_is_cut_after_its_longest_number_of_tokens_and_says_so(tmp_path):
    folder = bert_folders.write(tmp_path / "bert")
    tokenizer = learnt("wordpiece", **{"from": str(folder / "vocab.txt")})
    assert one(tokenizer, "the cat", longest=4) == samples.Encoded([2, *words("the", "cat"), 3], 4, False)
    assert one(tokenizer, "the cat sat", longest=4) == samples.Encoded([2, *words("the", "cat"), 3], 4, True)
    pair = one(tokenizer, "the cat sat on my mat", "lost", longest=6)
    assert pair == samples.Encoded([2, *words("the", "cat"), 3, *words("lost"), 3], 4, True)
    assert one(tokenizer, "the", "lost", longest=6).cut is False


def words(*names: str) -> list[int]:
    return [bert_folders.WORDS.index(name) for name in names]


def test_progress_is_reported_where_many_texts_take_long(monkeypatch, caplog):
    monkeypatch.setattr(progress, "QUIET_SECONDS", -1)
    with caplog.at_level(logging.INFO, "pedigree.prepare"):
        assert len(list(samples.encoded(learnt("word"), [("the cat",)] * 1500, 10))) == 1500
    assert caplog.messages[-1] == "1,500 texts became tokens"


@pytest.mark.parametrize(
    ("name", "changes", "problem"),
    [
        ("wordpiece", {}, "wordpiece is read from a file"),
        ("word", {"from": "vocab.txt"}, "word is learnt from the training texts"),
        ("bpe", {"vocabulary": 100}, "bpe has a token for each of the 256 bytes"),
    ],
)
def test_a_tokenizer_has_what_its_name_needs(name, changes, problem):
    with pytest.raises(ValidationError, match=problem):
        params(name, **changes)
