import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from components.text import tokens
from components.text.generate import LOGITS, Continuation, generate, score
from components.text.language_model import LanguageModel
from components.text.params import DropoutParams, TokenizerParams

KINDS = ("char", "word", "bpe")
TEXT = (Path(__file__).parents[2] / "LICENSE").read_text() + "Naïve café, 20 °C.\n"


def tokenizer_of(kind, text=TEXT, vocabulary=400):
    return tokens.train(TokenizerParams(name=kind, vocabulary=vocabulary, min_count=1), [text])


TOKENIZERS = {kind: tokenizer_of(kind) for kind in KINDS}


def network_of(kind, cell="lstm"):
    """A network that has learnt nothing, with weights large enough that it has its likes."""
    torch.manual_seed(0)
    dropout = DropoutParams(embedding=0.5, input=0.5, hidden=0.5, output=0.5, weight=0.5)
    size = TOKENIZERS[kind].get_vocab_size()
    network = LanguageModel(cell, vocabulary=size, embedding=24, hidden=[32, 24], tie=False, dropout=dropout)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.7)
    return network.eval()


NETWORKS = {kind: network_of(kind) for kind in KINDS}


class Table(nn.Module):
    """The next token's logits are a row that the last token alone decides."""

    def __init__(self, rows):
        super().__init__()
        self.rows = nn.Parameter(rows)
        self.eval()

    def forward(self, tokens, state):
        return self.rows[tokens], {}


class Even(nn.Module):
    """Finds every token as likely, and keeps in mind how many logits it was asked for at once."""

    def __init__(self, vocabulary):
        super().__init__()
        self.row, self.most = nn.Parameter(torch.zeros(vocabulary)), 0
        self.eval()

    def forward(self, tokens, state):
        self.most = max(self.most, tokens.numel() * len(self.row))
        return self.row.expand(*tokens.shape, -1), {}


class Counter(nn.Module):
    """Expects the token whose id is the number of tokens read so far, round and round."""

    def __init__(self, vocabulary):
        super().__init__()
        self.hot = nn.Parameter(torch.eye(vocabulary))
        self.eval()

    def forward(self, tokens, state):
        before = state["read"] if state else torch.zeros(len(tokens), 1, dtype=torch.int64)
        read = before + torch.arange(1, tokens.shape[1] + 1)  # (B, T)
        return self.hot[read % len(self.hot)], {"read": read[:, -1:]}


LETTERS = tokenizer_of("char", "ddddcccbba")  # ids: <unk> 0, d 1, c 2, b 3, a 4


def always(**probabilities):
    """A network that gives letters these probabilities after whatever it has read, and `<unk>` the rest."""
    row = torch.full((5,), 0.0)
    for letter, probability in probabilities.items():
        row[LETTERS.token_to_id(letter)] = probability
    row[0] = 1 - row.sum() if row.sum() < 0.999 else 0
    return Table(row.log().expand(5, 5).clone())


def written(network, tokenizer=LETTERS, prompt="a", **given) -> Continuation:
    usual = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 0, "stop": "", "max_length": 20}
    return generate(network, tokenizer, prompt, **usual | given)


SKEWED = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_a_temperature_raises_probabilities_to_its_inverse(temperature):
    count = 4000
    text = written(always(**SKEWED), temperature=temperature, max_length=count).text
    powers = {letter: p ** (1 / temperature) for letter, p in SKEWED.items()}
    for letter, power in powers.items():
        share = power / sum(powers.values())
        assert abs(text.count(letter) / count - share) < 4 * math.sqrt(share * (1 - share) / count), letter


@pytest.mark.parametrize(
    ("top_k", "top_p", "drawn"),
    [
        (1, 1.0, "a"),
        (2, 1.0, "ab"),
        (3, 1.0, "abc"),
        (9, 1.0, "abcd"),
        (0, 1e-300, "a"),
        (1, 5e-324, "a"),
        (0, 0.49, "a"),
        (0, 0.51, "ab"),
        (0, 0.79, "ab"),
        (0, 0.81, "abc"),
        (0, 0.96, "abcd"),
        (2, 0.61, "a"),  # of the two, a has 0.625
        (2, 0.64, "ab"),
    ],
)
def test_top_k_and_then_top_p_leave_the_likeliest_and_their_proportions(top_k, top_p, drawn):
    count = 600
    text = written(always(**SKEWED), top_k=top_k, top_p=top_p, max_length=count).text
    assert set(text) == set(drawn)
    share = 0.5 / sum(SKEWED[letter] for letter in drawn)
    assert abs(text.count("a") / count - share) <= 4 * math.sqrt(share * (1 - share) / count)


def test_top_p_is_measured_after_the_temperature():
    assert set(written(always(**SKEWED), temperature=0.5, top_p=0.68).text) == {"a"}  # 0.25 of 0.365
    assert set(written(always(**SKEWED), temperature=1.0, top_p=0.68).text) == {"a", "b"}


def test_of_equal_tokens_top_k_and_temperature_zero_take_the_first():
    even = always(a=0.25, b=0.25, c=0.25, d=0.25)
    assert written(even, temperature=0.0, max_length=3).text == "ddd"
    assert set(written(even, top_k=2, max_length=100).text) == {"d", "c"}


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-9, 1e-3])
def test_at_a_very_low_temperature_the_likeliest_token_is_taken(temperature):
    assert written(always(**SKEWED), temperature=temperature).text == "a" * 20


def test_at_a_very_high_temperature_every_token_is_as_likely():
    text = written(always(**SKEWED), temperature=1e308, max_length=2000).text
    assert all(abs(text.count(letter) / 2000 - 0.25) < 0.04 for letter in "abcd")


@pytest.mark.parametrize("how", [{"temperature": 0.0}, {"temperature": 9.0}, {"top_k": 1}, {"top_p": 0.1}])
def test_the_unknown_token_is_never_written_however_likely(how):
    answer = written(always(a=0.06, b=0.04), max_length=200, **how)
    assert set(answer.text) <= {"a", "b"}
    probabilities = {round(math.exp(each), 4) for each in answer.log_probabilities}
    assert probabilities <= {0.06, 0.04}  # the network's own: what it gives <unk> goes to no other token


@pytest.mark.parametrize("length", [1, 2, 511, 512, 513, 514, 1025, 3000])
def test_the_network_reads_the_whole_prompt_once(length):
    answer = written(Counter(5), prompt="a" * length, temperature=0.0, max_length=1)
    assert answer.tokens == tokens.pieces(LETTERS, [length % 5 or 1])  # <unk> is not written: the first other is


def test_the_network_reads_each_token_that_it_writes_once():
    alphabet = tokenizer_of("char", "abcdefghijklmnopqrstuvwxyz")
    answer = written(Counter(27), alphabet, "a" * 10, temperature=0.0, max_length=17)
    assert answer.text == "jklmnopqrstuvwxyz"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_the_carried_state_gives_what_reading_everything_anew_gives(kind, cell):
    network, tokenizer = network_of(kind, cell), TOKENIZERS[kind]
    ids = tokens.encode(tokenizer, "You may reproduce")
    answer = written(network, tokenizer, "You may reproduce", temperature=0.0, max_length=12)
    likelihoods = []
    for _ in answer.tokens:
        with torch.inference_mode():
            after = network(torch.tensor([ids]), None)[0][0, -1].double()
        known = after.clone()
        if tokens.unknown_id(tokenizer) is not None:
            known[tokens.unknown_id(tokenizer)] = -torch.inf
        ids.append(int(known.argmax()))
        likelihoods.append(after.log_softmax(0)[ids[-1]].item())
    assert answer.tokens == tokens.pieces(tokenizer, ids[-len(answer.tokens) :])
    assert answer.log_probabilities == pytest.approx(likelihoods, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_writes_the_same_and_another_seed_something_else(kind):
    first, again, other = (written(NETWORKS[kind], TOKENIZERS[kind], seed=seed) for seed in (7, 7, 8))
    assert first == again
    assert first.text != other.text
    assert len(first.tokens) == len(first.log_probabilities) > 0


def test_writing_neither_heeds_nor_moves_the_default_random_numbers():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = written(NETWORKS["char"], TOKENIZERS["char"])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert written(NETWORKS["char"], TOKENIZERS["char"]) == first


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_dropped_by_not_drawing_from_fewer(kind):
    network, tokenizer = NETWORKS[kind], TOKENIZERS[kind]
    assert written(network, tokenizer, top_k=tokenizer.get_vocab_size()) == written(network, tokenizer)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_prompt_starts_as_a_new_line_does(kind):
    network, tokenizer = NETWORKS[kind], TOKENIZERS[kind]
    assert written(network, tokenizer, prompt="") == written(network, tokenizer, prompt="\n")


def test_an_empty_prompt_starts_a_text_that_has_no_lines_too():
    assert len(written(always(**SKEWED), prompt="", max_length=5).text) == 5


stops = st.one_of(
    st.sampled_from(["e", " ", "\n", "the", " of ", "a b", "\n\n", "zzzz", "é", "°"]),
    st.text(st.sampled_from("etaoin \n"), min_size=1, max_size=3),
)


@pytest.mark.parametrize("kind", KINDS)
@given(stop=stops, seed=st.integers(0, 2**40))
@settings(max_examples=12)
def test_a_stop_string_cuts_the_continuation_before_its_first_occurrence(kind, stop, seed):
    network, tokenizer = NETWORKS[kind], TOKENIZERS[kind]
    free = written(network, tokenizer, "the ", seed=seed, max_length=40)
    cut = written(network, tokenizer, "the ", seed=seed, max_length=40, stop=stop)
    assert cut.text == free.text.partition(stop)[0]
    assert cut.tokens == free.tokens[: len(cut.tokens)]
    assert cut.log_probabilities == free.log_probabilities[: len(cut.tokens)]


def test_only_the_tokens_that_write_the_continuation_are_reported():
    answer = written(Counter(5), temperature=0.0, stop="ad")  # of dcbad…
    assert (answer.text, answer.tokens) == ("dcb", ["d", "c", "b"])
    assert len(answer.log_probabilities) == 3
    assert written(Counter(5), temperature=0.0, stop="dc") == Continuation("", [], [], "")


def test_the_prompt_does_not_help_to_complete_a_stop_string():
    assert written(always(a=0.99, b=0.0099), prompt="a", temperature=0.0, stop="aa", max_length=9).text == ""
    assert written(always(b=0.99, a=0.0099), prompt="a", temperature=0.0, stop="ab", max_length=9).text == "b" * 9


def test_a_generation_ends_at_the_stop_string_and_not_at_the_longest_length():
    network = Table(torch.zeros(5, 5))
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    text = written(network, stop="a", max_length=10_000).text
    assert len(calls) < 200
    assert "a" not in text


def euros():
    """A network that writes the three bytes of the euro sign again and again, and its tokenizer."""
    tokenizer = tokenizer_of("bpe", "a b c", 256)
    ids = tokens.encode(tokenizer, "€")
    rows = torch.zeros(256, 256)
    for now, then in zip(ids, ids[1:] + ids[:1], strict=True):
        rows[now, then] = 9
    return Table(rows), tokenizer


@pytest.mark.parametrize("length", range(1, 8))
def test_bytes_of_a_character_that_is_not_whole_are_left_off_at_the_end(length):
    answer = written(*euros(), "€", temperature=0.0, max_length=length)
    assert answer.text == "€" * (length // 3)
    assert len(answer.tokens) == len(answer.log_probabilities) == length // 3 * 3


def test_a_stop_string_of_several_bytes_is_found_when_its_last_byte_is_there():
    assert written(*euros(), "€", temperature=0.0, stop="€", max_length=9).text == ""
    assert written(*euros(), "€", temperature=0.0, stop="\ufffd", max_length=9).text == "€€€"


@pytest.mark.parametrize("kind", KINDS)
@given(prompt=st.text(max_size=30))
@settings(max_examples=40)
def test_any_prompt_is_continued_and_any_text_is_scored(kind, prompt):
    network, tokenizer = NETWORKS[kind], TOKENIZERS[kind]
    answer = written(network, tokenizer, prompt, max_length=4)
    assert len(answer.tokens) == len(answer.log_probabilities) <= 4
    assert tokens.UNKNOWN not in answer.text
    pieces, log_probabilities = score(network, tokenizer, prompt)
    assert len(pieces) == len(log_probabilities) == len(tokens.encode(tokenizer, prompt))
    assert all(each <= 0 and math.isfinite(each) for each in [*answer.log_probabilities, *log_probabilities])


def test_a_text_is_scored_by_what_the_network_expects_of_each_token_and_of_a_line_s_first():
    torch.manual_seed(0)
    network = Table(torch.randn(5, 5))
    pieces, log_probabilities = score(network, LETTERS, "abcé")
    rows = network.rows.detach().double()
    steps = [(tokens.start_id(LETTERS), 4), (4, 3), (3, 2), (2, 0)]
    assert pieces == ["a", "b", "c", tokens.UNKNOWN]
    expected = [(rows[now].exp()[then] / rows[now].exp().sum()).log().item() for now, then in steps]
    assert log_probabilities == pytest.approx(expected, abs=1e-6)


def test_an_empty_text_has_no_scores():
    assert score(always(**SKEWED), LETTERS, "") == ([], [])


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_text_has_the_scores_of_one_pass_over_all_of_it(kind):
    network, tokenizer = NETWORKS[kind], TOKENIZERS[kind]
    text = TEXT[:6000]
    ids = torch.tensor([tokens.encode(tokenizer, text)])
    with torch.inference_mode():
        logits = network(ids[:, :-1], None)[0].double().log_softmax(2)
    whole = logits.gather(2, ids[:, 1:, None])[0, :, 0]
    pieces, log_probabilities = score(network, tokenizer, text)
    assert len(pieces) == len(log_probabilities) == ids.shape[1] > 900
    assert torch.tensor(log_probabilities[1:], dtype=torch.float64).allclose(whole, atol=1e-4)


def test_a_continuation_has_the_log_probabilities_that_scoring_it_gives():
    network, tokenizer = NETWORKS["char"], TOKENIZERS["char"]
    how = {"temperature": 0.8, "top_k": 9, "top_p": 0.9, "max_length": 50}
    answer = written(network, tokenizer, "Licensor", **how)
    pieces, log_probabilities = score(network, tokenizer, "Licensor" + answer.text)
    assert pieces[-50:] == answer.tokens
    assert log_probabilities[-50:] == pytest.approx(answer.log_probabilities, abs=1e-4)


@pytest.mark.parametrize("vocabulary", [5, 20_000])
def test_no_more_logits_are_held_at_once_than_memory_is_given(vocabulary):
    words = tokenizer_of("word", " ".join(f"w{i}" for i in range(vocabulary)), vocabulary)
    network, text = Even(words.get_vocab_size()), "w1 " * 1500
    _, log_probabilities = score(network, words, text)
    assert log_probabilities == pytest.approx([-math.log(words.get_vocab_size())] * 1500)
    written(network, words, text, max_length=1)
    assert 0 < network.most <= LOGITS


def test_a_network_that_is_still_training_is_not_asked():
    with pytest.raises(AssertionError, match="training"):
        written(always(**SKEWED).train())
