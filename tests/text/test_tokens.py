"""Words are split off punctuation; byte pairs are learnt from words of a bounded length, and can be waited for."""

import logging
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from components.text import tokens
from components.text.params import TokenizerParams
from tests.conftest import ROOT

LONGEST = tokens.LONGEST


def unbounded(vocabulary: int, text: str) -> str:
    """What the library itself learns from a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer.to_str()


def learnt(text: str, vocabulary: int = 400) -> Tokenizer:
    return tokens.train(TokenizerParams(name="bpe", vocabulary=vocabulary, min_count=1), [text])


LICENCE = (ROOT / "LICENSE").read_text()
CHINESE = "白日依山尽。黄河入海流。欲穷千里目。更上一层楼。" * 100
"""A long line without a space, in short words."""


@pytest.mark.parametrize(
    "text",
    [
        LICENCE,
        CHINESE,
        "".join(LICENCE.split()),
        f"{'x' * LONGEST} {'7' * (LONGEST - 1)}{'=' * LONGEST}{' ' * (LONGEST - 1)}\n the end",
    ],
    ids=["English", "Chinese", "no spaces", "words as long as may be"],
)
def test_from_words_that_are_no_longer_than_the_bound_the_same_is_learnt_as_ever(text):
    assert learnt(text).to_str() == unbounded(400, text)


@pytest.mark.parametrize(
    "kind", ["abcdefgh", "01234567", "+-*/=<>|", " \t\n\r", "\u3000\u2003", "漢字仮名交文章語"]
)
def test_a_text_that_is_one_word_is_learnt_from_its_parts_and_read_back(kind):
    text = "".join(np.random.default_rng(0).choice([*kind], 20 * LONGEST + 7))
    tokenizer = learnt(text)
    assert tokens.decode(tokenizer, tokens.encode(tokenizer, text)) == text
    parts = [text[start : start + LONGEST] for start in range(0, len(text), LONGEST)]
    assert (
        tokenizer.to_str() == tokens.train(TokenizerParams(name="bpe", vocabulary=400, min_count=1), parts).to_str()
    )


def test_learning_byte_pairs_is_logged_with_the_seconds_so_far(monkeypatch, caplog):
    monkeypatch.setattr(tokens, "QUIET_SECONDS", 0.01)
    caplog.set_level(logging.INFO, "pedigree.prepare")
    learnt("".join(np.random.default_rng(0).choice([*"abcdefgh"], 50_000)), 1000)
    assert caplog.messages[0] == "learning byte pairs: 0 s so far"


def test_a_text_that_cannot_be_read_to_its_end_is_reported_as_ever():
    def blocks():
        yield "some text"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        tokens.train(TokenizerParams(name="bpe", vocabulary=400, min_count=1), blocks())


SLOW = """
import numpy as np
from components.runtime.interrupts import interruptible
from components.text import tokens
from components.text.params import TokenizerParams
def blocks():
    yield from ("".join(np.random.default_rng(seed).choice([*"abcdefgh"], 2**20)) for seed in range(3))
    print("read", flush=True)
try:
    with interruptible():
        tokens.train(TokenizerParams(name="bpe", vocabulary=2**16, min_count=1), blocks())
except KeyboardInterrupt:
    raise SystemExit(130)
"""


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_learning_byte_pairs_ends_when_it_is_asked_to(number):
    with subprocess.Popen([sys.executable, "-c", SLOW], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "read\n"
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(3) == 130


SENTENCE = (
    "The library (torch.nn) isn't self-made, \"he\" said: 3.14, 1,000 a,b at 3:15...\n'Files'! http://a.b/c\n"
    "(<unk>) <unk>, -<unk>- \u2603-a U.S.; e.g. x=[1]"
)
TOKENS = (
    "The library ( torch.nn ) isn't self-made , \" he \" said : 3.14 , 1,000 a , b at 3:15 . . . \n ' Files ' ! "
    "http : / / a.b / c \n ( <unk> ) <unk> , - <unk> - \u2603 - a U.S . ; e.g . x = [ 1 ]"
)


def of_words(text: str) -> Tokenizer:
    return tokens.train(TokenizerParams(name="word", vocabulary=50_000, min_count=1), [text])


def test_punctuation_is_split_off_words_and_joined_again():
    tokenizer = of_words(SENTENCE)
    ids = tokens.encode(tokenizer, SENTENCE)
    assert tokens.pieces(tokenizer, ids) == TOKENS.split(" ")
    assert tokens.decode(tokenizer, ids) == SENTENCE


def test_a_word_is_the_same_whatever_punctuation_is_beside_it():
    tokenizer = of_words('the files, (files) files. "files" files: files\n')
    assert tokenizer.token_to_id("files") is not None
    assert sum("files" in token for token in tokenizer.get_vocab()) == 1


def test_any_part_of_a_text_of_words_becomes_the_same_tokens_again():
    tokenizer = tokens.train(TokenizerParams(name="word", vocabulary=400, min_count=1), [LICENCE])
    ids = tokens.encode(tokenizer, LICENCE)
    assert tokens.unknown_id(tokenizer) in ids
    for start in range(0, len(ids) - 30, 7):
        part = ids[start : start + 30]
        again = tokens.encode(tokenizer, tokens.written(tokenizer, part))
        assert (len(again), again[1:-1]) == (30, part[1:-1])


def test_words_of_a_text_that_is_split_already_are_what_stands_between_spaces():
    text = " the U.S. army , 1 @,@ 000 men ( @-@ ) of St. Mary 's \n did n't <unk> . \n "
    tokenizer = of_words(text)
    ids = tokens.encode(tokenizer, text)
    assert tokens.pieces(tokenizer, ids) == [word for word in text.split(" ") if word]
    assert tokens.decode(tokenizer, ids) == text[1:].replace(" \n ", "\n")


def test_what_a_vocabulary_of_words_lacks_is_named_without_the_words_beside_it():
    tokenizer = of_words("the dogs saw a man, the end\n" * 2)
    assert tokens.unknown(tokenizer, "the dogs' man\u2603 saw; the men; <unk>") == ["'", "\u2603", ";", "men"]
    assert tokens.unknown(
        tokens.train(TokenizerParams(name="char", vocabulary=99, min_count=1), ["abc"]), "abx"
    ) == ["x"]
