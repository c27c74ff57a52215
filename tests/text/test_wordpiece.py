"""Pieces of words that are learnt from the training texts."""

from tokenizers import Tokenizer

from components.text import wordpiece


def test_a_learnt_tokenizer_is_the_same_each_time_and_finds_names_whatever_stands_before_them():
    texts = ["What is n_samples?", "n_samples : int\n    The number of samples, é and ##a."] * 3
    learnt = [wordpiece.learn(texts, 120).to_str() for _ in range(3)]
    assert learnt[0] == learnt[1] == learnt[2]
    tokenizer = Tokenizer.from_str(learnt[0])
    assert tokenizer.get_vocab_size() <= 120
    alone, after = (tokenizer.encode(text, add_special_tokens=False) for text in ("n_samples", "is\nn_samples"))
    assert after.ids[-len(alone.ids) :] == alone.ids
    assert [tokenizer.id_to_token(number) for number in range(4)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def test_a_learnt_tokenizer_has_no_token_for_rare_characters_among_very_many():
    many = "".join(map(chr, range(0x4E00, 0x4E00 + 2 * wordpiece.LETTERS)))
    tokenizer = wordpiece.learn([f"aa {many}"], 5_000)
    assert tokenizer.encode(chr(0x4E00 + 2 * wordpiece.LETTERS - 1)).tokens == ["[CLS]", "[UNK]", "[SEP]"]
