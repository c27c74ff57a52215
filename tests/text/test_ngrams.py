"""N-grams add up to one, are read from and written to the ARPA format, and score as KenLM does."""

import math

import pytest

from components.errors import PedigreeError
from components.text import ngrams

SENTENCES = [text.split() for text in ("turn on the light", "turn off the light", "turn on the radio", "stop")]
ARPA = """\
made by hand
\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-99\t<s>\t-0.3
-1.0\t</s>
-0.5\tyes\t-0.2
-0.7\tno\t-0.1
-2.0\t<unk>

\\2-grams:
-0.2\t<s> yes
-0.4\tyes no
-0.1\tno </s>

\\end\\
"""


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_probabilities_of_the_words_after_any_others_add_up_to_one(order):
    model = ngrams.counted(SENTENCES, order)
    for history in ((ngrams.START,), (ngrams.START, "turn"), ("turn", "on"), ("light",), ("nothing", "the")):
        words = [*model.words, ngrams.END, ngrams.UNKNOWN]
        total = sum(math.exp(model.log_probability(history, word)) for word in words)
        assert total == pytest.approx(1, abs=1e-9)


def test_what_was_counted_more_often_is_likelier():
    model = ngrams.counted(SENTENCES, 2)
    assert model.log_probability((ngrams.START,), "turn") > model.log_probability((ngrams.START,), "stop")
    assert model.log_probability(("the",), "light") > model.log_probability(("the",), "radio")
    assert model.log_probability(("the",), "never") < model.log_probability(("the",), "stop")


def test_a_model_that_is_written_is_read_again():
    model = ngrams.counted(SENTENCES, 3)
    again = ngrams.parsed(model.arpa())
    assert again.order == 3
    assert again.entries.keys() == model.entries.keys()
    for history, word in ((("turn", "on"), "the"), ((ngrams.START,), "stop"), (("a",), "b")):
        assert again.log_probability(history, word) == pytest.approx(model.log_probability(history, word), abs=1e-5)


def test_a_word_that_no_longer_sequence_has_backs_off():
    model = ngrams.parsed(ARPA)
    assert model.log_probability((ngrams.START,), "yes") == pytest.approx(-0.2 * math.log(10))
    assert model.log_probability(("yes",), "yes") == pytest.approx((-0.2 - 0.5) * math.log(10))
    assert model.log_probability(("yes",), "perhaps") == pytest.approx((-0.2 - 2.0) * math.log(10))


def test_without_an_unknown_word_others_are_impossible():
    model = ngrams.parsed(ARPA.replace("-2.0\t<unk>\n", ""))
    assert model.is_closed
    assert model.log_probability(("yes",), "perhaps") == -math.inf


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("yes no\n", r"it has no line \\data\\"),
        (ARPA.replace("-0.5\tyes", "yes"), "model:9: not the logarithms and 1 words of an n-gram"),
        (ARPA.replace("-0.4\tyes no", "-0.4\tyes"), "model:15: not the logarithms and 2 words"),
        (ARPA.replace("</s>", "end"), "none for the end of a sentence"),
    ],
)
def test_a_file_that_is_no_model_is_named_with_its_line(text, problem):
    with pytest.raises(PedigreeError, match=problem):
        ngrams.parsed(text, "model")


def test_a_file_has_the_order_of_the_parameter(tmp_path):
    (tmp_path / "a.arpa").write_text(ARPA)
    assert ngrams.parsed(ngrams.read(tmp_path / "a.arpa", 2)).entries == ngrams.parsed(ARPA).entries
    with pytest.raises(PedigreeError, match=r"up to 2 words: set prepare\.ngrams\.order"):
        ngrams.read(tmp_path / "a.arpa", 3)
    with pytest.raises(PedigreeError, match="is not there: name an ARPA file"):
        ngrams.read(tmp_path / "b.arpa", 3)


def test_sentences_have_the_probability_that_kenlm_gives_them(tmp_path):
    kenlm = pytest.importorskip("flashlight.lib.text.decoder.kenlm", reason="flashlight-text is not installed")
    dictionary = pytest.importorskip("flashlight.lib.text.dictionary")
    model = ngrams.counted(SENTENCES, 3)
    (tmp_path / "a.arpa").write_text(model.arpa())
    words = dictionary.Dictionary([*sorted(model.words), ngrams.UNKNOWN])
    theirs = kenlm.KenLM(str(tmp_path / "a.arpa"), words)
    for text in ("turn on the light", "stop the radio", "light light"):
        state, total = theirs.start(False), 0.0
        history: tuple[str, ...] = (ngrams.START,)
        for word in text.split():
            state, log = theirs.score(state, words.get_index(word))
            total += log
            assert log * math.log(10) == pytest.approx(model.log_probability(history, word), abs=1e-4)
            history = (*history, word)
        _, log = theirs.finish(state)
        assert log * math.log(10) == pytest.approx(model.log_probability(history, ngrams.END), abs=1e-4)
