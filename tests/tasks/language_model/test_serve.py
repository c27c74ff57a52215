import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from components.contracts import Manifest, Rejected
from components.errors import PedigreeError
from components.tasks.language_model.serve import LARGEST, load_predict, served
from components.text import tokens
from components.text.generate import generate, score
from components.text.language_model import LanguageModel
from components.text.params import DropoutParams, TokenizerParams
from tests.tasks.language_model.values import values

KINDS = ("char", "word", "bpe")
TEXT = (Path(__file__).parents[3] / "LICENSE").read_text()


def tokenizer_of(kind):
    return tokens.train(TokenizerParams(name=kind, vocabulary=400, min_count=1), [TEXT])


TOKENIZERS = {kind: tokenizer_of(kind) for kind in KINDS}


def manifest(kind):
    nothing = dict.fromkeys(("train", "val", "test"), 0)
    facts = {
        "kind": kind,
        "tokenizer": TOKENIZERS[kind].to_str(),
        "vocabulary": TOKENIZERS[kind].get_vocab_size(),
        "characters": nothing,
        "tokens": nothing,
        "unknown": nothing,
    }
    return Manifest(task="language_model", splits={}, rejected=[], facts=facts)


def network_of(kind):
    """A network that has learnt nothing, with weights large enough that it has its likes."""
    torch.manual_seed(0)
    dropout = DropoutParams(embedding=0.5, input=0.5, hidden=0.5, output=0.5, weight=0.5)
    size = TOKENIZERS[kind].get_vocab_size()
    network = LanguageModel("lstm", size, embedding=24, hidden=[24], tie=True, dropout=dropout)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.7)
    return network


NETWORKS = {kind: network_of(kind).eval() for kind in KINDS}
PARAMS = values()
PREDICT = {kind: load_predict(NETWORKS[kind], manifest(kind), PARAMS) for kind in KINDS}
DEFAULTS = dict(served(manifest("char"), PARAMS).params)


def ask(kind, *texts, **given):
    return PREDICT[kind]([{"text": text} for text in texts], given)


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_is_answered_with_the_columns_that_were_promised(kind):
    promise = served(manifest(kind), PARAMS)
    assert list(promise.example) == list(promise.inputs)
    (answer,) = PREDICT[kind]([promise.example], {})
    (scored,) = PREDICT[kind]([promise.example], {"score": True})
    assert {*answer, *scored} == {*promise.outputs}
    assert len(answer["tokens"]) == len(answer["log_probabilities"]) > 0
    assert served(manifest(kind), PARAMS) == promise


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_request_leaves_open_is_what_was_promised_as_default(kind):
    usual = ask(kind, "the ")
    assert usual == ask(kind, "the ", **DEFAULTS) == ask(kind, "the ", seed=0)
    assert usual != ask(kind, "the ", seed=1)
    sampling = {name: value for name, value in DEFAULTS.items() if name not in ("score", "tokens")}
    direct = generate(NETWORKS[kind], TOKENIZERS[kind], "the ", **sampling)
    assert usual == [
        {
            "continuation": direct.text,
            "tokens": direct.tokens,
            "log_probabilities": direct.log_probabilities,
            "note": "",
        }
    ]


@pytest.mark.parametrize(
    "setting",
    [
        {"temperature": 0.0},
        {"temperature": 2},
        {"top_k": 2},
        {"top_p": 0.3},
        {"seed": 2**63 - 1},
        {"stop": "e"},
        {"max_length": 3},
        {"score": True},
    ],
)
def test_each_setting_changes_the_answer(setting):
    assert ask("char", "the work", **setting) != ask("char", "the work")


@pytest.mark.parametrize("kind", KINDS)
def test_scoring_gives_log_probability_bits_and_perplexity_of_the_whole_text_and_its_tokens_on_demand(kind):
    text = "You may not use this file except"
    pieces, log_probabilities = score(NETWORKS[kind], TOKENIZERS[kind], text)
    total = sum(log_probabilities)
    (answer,) = ask(kind, text, score=True, temperature=0.0, max_length=1)
    assert answer == {
        "log_probability": pytest.approx(total),
        "bits_per_character": pytest.approx(-total / math.log(2) / len(text)),
        "perplexity": pytest.approx(math.exp(-total / len(pieces))),
        "note": "",
    }
    (detailed,) = ask(kind, text, score=True, tokens=True)
    assert detailed == answer | {"tokens": pieces, "log_probabilities": log_probabilities}
    nothing = {"log_probability": 0.0, "bits_per_character": 0.0, "perplexity": 1.0, "note": ""}
    assert ask(kind, "", score=True) == [nothing]


def test_the_probabilities_of_all_beginnings_add_up_to_one():
    answers = ask("char", *sorted(set(TEXT)), "я", score=True)
    assert sum(math.exp(answer["log_probability"]) for answer in answers) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "text", "note"),
    [
        ("char", "the 日本 日", "2 characters are not in the model's vocabulary: '日', '本'"),
        ("char", "я", "1 character is not in the model's vocabulary: 'я'"),
        ("char", "日白依山尽黄", "6 characters are not in the model's vocabulary: '日', '白', '依', '山', '尽', …"),
        ("word", "the panic <unk>", "1 word is not in the model's vocabulary: 'panic'"),
        ("bpe", "the 日本", ""),
    ],
)
def test_a_note_names_the_characters_or_words_that_the_vocabulary_lacks(kind, text, note):
    assert [ask(kind, text, **how)[0]["note"] for how in ({"score": True}, {"max_length": 1})] == [note, note]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [{}, {"score": True}])
def test_a_row_is_answered_as_if_it_were_alone(kind, how):
    texts = ["the Work", "", "the Work", "x" * 700, "Licensor shall\n"]
    together = ask(kind, *texts, **how)
    assert together == [ask(kind, text, **how)[0] for text in texts]
    assert together[0] == together[2]


def test_no_rows_have_no_answers():
    assert ask("char") == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_was_training_answers_as_in_evaluation_and_is_left_unchanged(kind):
    network = network_of(kind).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    predict = load_predict(network, manifest(kind), PARAMS)
    assert predict([{"text": "the "}], {}) == ask(kind, "the ")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("kind", ["char", "word"])
def test_what_the_vocabulary_lacks_is_read_as_unknown(kind):
    foreign, unknown = ("я", "ж") if kind == "char" else ("я жить", "don't panic")
    assert ask(kind, foreign)[0]["continuation"] == ask(kind, unknown)[0]["continuation"]
    (answer,) = ask(kind, "Work я жить", score=True, tokens=True)
    assert "<unk>" in answer["tokens"]
    assert all(math.isfinite(each) for each in answer["log_probabilities"])


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(st.characters(), max_size=40), scored=st.booleans())
@settings(max_examples=60)
def test_any_string_is_answered_in_numbers_and_text_that_json_can_carry(kind, text, scored):
    (answer,) = ask(kind, text, score=scored, tokens=True, max_length=3)
    parsed = json.loads(json.dumps(answer, ensure_ascii=False, allow_nan=False).encode())
    assert parsed == answer
    assert len(answer["tokens"]) == len(answer["log_probabilities"])


@pytest.mark.parametrize("kind", KINDS)
def test_half_a_character_is_read_as_the_replacement_character_and_two_halves_as_one(kind):
    assert ask(kind, "the \ud83d Work") == ask(kind, "the \ufffd Work")
    assert ask(kind, "the \ud83d\ude00 Work", score=True) == ask(kind, "the 😀 Work", score=True)


def test_a_text_that_only_stands_for_a_file_is_rejected_as_in_preparation():
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    (rejected,) = PREDICT["char"]([{"text": pointer}], {})
    assert rejected == Rejected(
        "the text cannot be used: a Git LFS pointer, not its file: run `git lfs pull`; send another"
    )


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"text": None}, "null"),
        ({"text": float("nan")}, "null"),
        ({"text": 7}, "int"),
        ({"text": b"the"}, "bytes"),
        ({"text": ["the"]}, "list"),
        ({"prompt": "the"}, "null"),
        ({}, "null"),
    ],
)
def test_what_is_no_text_is_rejected_and_the_rows_around_it_are_answered(row, found):
    before, rejected, after = PREDICT["char"]([{"text": "the"}, row, {"text": "Work"}], {})
    assert rejected == Rejected(
        f"the text cannot be used: expected a string in the column text and found {found}; send another"
    )
    assert [before, after] == ask("char", "the", "Work")


def test_a_text_that_is_too_large_is_rejected_by_its_bytes():
    one_byte_more, two_bytes_more, answer = ask(
        "word", "x" * (LARGEST + 1), "é" * (LARGEST // 2 + 1), "x" * LARGEST, max_length=1
    )
    assert one_byte_more == Rejected(
        "the text cannot be used: 1,048,577 bytes are over 1,048,576; send it in parts"
    )
    assert two_bytes_more == Rejected(
        "the text cannot be used: 1,048,578 bytes are over 1,048,576; send it in parts"
    )
    assert len(answer["tokens"]) == 1


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({"temperature": -0.1}, r"temperature = -0\.1: .*greater than or equal to 0"),
        ({"temperature": float("nan")}, "temperature = nan: .*finite"),
        ({"temperature": float("inf")}, "temperature = inf: .*finite"),
        ({"temperature": "warm"}, "temperature = 'warm': .*number"),
        ({"temperature": None}, "temperature = None: .*number"),
        ({"temperature": True}, "temperature = True: .*number"),
        ({"top_p": 0}, "top_p = 0: .*greater than 0"),
        ({"top_p": 1.01}, r"top_p = 1\.01: .*less than or equal to 1"),
        ({"top_k": -1}, "top_k = -1: .*greater than or equal to 0"),
        ({"top_k": 1.5}, r"top_k = 1\.5: .*integer"),
        ({"top_k": 10**30}, "top_k = 10+: .*less than"),
        ({"seed": -1}, "seed = -1: .*greater than or equal to 0"),
        ({"seed": 2**63}, "seed = 9223372036854775808: .*less than"),
        ({"max_length": 0}, "max_length = 0: .*greater than or equal to 1"),
        ({"max_length": 10_001}, "max_length = 10001: .*less than or equal to 10000"),
        ({"stop": 3}, "stop = 3: .*string"),
        ({"stop": "x" * 1001}, "stop = 'x+[.]{3}x+': .*at most 1000"),
        ({"score": "yes"}, "score = 'yes': .*boolean"),
        ({"tokens": 1}, "tokens = 1: .*boolean"),
        ({"temprature": 1.0}, r"'temprature' is unknown; did you mean temperature\?"),
        ({"beams": 4}, "'beams' is unknown: leave it out"),
        ({"\ud800": 4}, r"'\\ud800' is unknown: leave it out"),
        ({"stop": "\ud800"}, r"stop = '\\ud800': .*string"),
        ({"top_k": -1, "top_p": 2.0}, "top_k = -1: [^;]+; top_p = 2.0: .+"),
    ],
)
def test_a_bad_setting_is_rejected_with_what_it_may_be(bad, problem):
    with pytest.raises(PedigreeError, match=f"^the request's params: {problem}"):
        ask("char", "the", **bad)


good = st.fixed_dictionaries(
    {},
    optional={
        "score": st.booleans(),
        "tokens": st.booleans(),
        "temperature": st.floats(0, 1e308) | st.integers(0, 5),
        "top_k": st.integers(0, 2**31 - 1),
        "top_p": st.floats(0, 1, exclude_min=True),
        "seed": st.integers(0, 2**63 - 1),
        "stop": st.text(max_size=5),
        "max_length": st.integers(1, 12),
    },
)


@pytest.mark.parametrize("kind", KINDS)
@given(how=good)
@settings(max_examples=60)
def test_any_good_settings_are_obeyed(kind, how):
    (answer,) = ask(kind, "You may", **{"max_length": 12} | how)
    if how.get("score"):
        assert ("tokens" in answer) is how.get("tokens", False)
    else:
        assert len(answer["tokens"]) == len(answer["log_probabilities"])
        assert len(answer["tokens"]) <= how.get("max_length", 12)
        assert not how.get("stop") or how["stop"] not in answer["continuation"]
        assert "<unk>" not in answer["tokens"]


def test_the_log_probabilities_of_all_next_tokens_add_up_to_one():
    vocabulary = sorted(set(TEXT))
    answers = ask("char", *(f"the Wor{letter}" for letter in [*vocabulary, "я"]), score=True, tokens=True)
    assert sum(math.exp(answer["log_probabilities"][-1]) for answer in answers) == pytest.approx(1, abs=1e-5)
