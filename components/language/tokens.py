"""Text to token ids and back: characters, words, or byte pairs, by the `tokenizers` library."""

import re
from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from components.language.params import TokenizerParams

UNKNOWN, END = "<unk>", "<eos>"
"""What stands for a rare word or character, and for the end of a line of words."""


def train(params: TokenizerParams, blocks: Iterable[str]) -> Tokenizer:
    """Learn a tokenizer from blocks of the training text.

    Characters and words are numbered from the most frequent on, equally frequent ones in the order of their
    text, after `<unk>` and, for words, `<eos>`. Words stand between white space; a line's end is the word `<eos>`,
    as is the convention for WikiText, and the text's own `<unk>` is the unknown word. Byte pairs (Sennrich et al.
    2016, arXiv:1508.07909) are learnt on bytes, so that nothing is unknown (Radford et al. 2019, GPT-2).
    """
    if params.name == "bpe":
        return _byte_pairs(params.vocabulary, blocks)
    tokenizer = Tokenizer(models.WordLevel())
    if params.name == "char":
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
    else:
        tokenizer.normalizer = normalizers.Replace("\n", f" {END} ")
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    most = 2**31 - 1 if params.name == "char" else params.vocabulary
    trainer = trainers.WordLevelTrainer(
        vocab_size=most, min_frequency=params.min_count, show_progress=False, special_tokens=[]
    )
    tokenizer.train_from_iterator(blocks, trainer)
    counted, fixed = tokenizer.get_vocab(), [UNKNOWN] if params.name == "char" else [UNKNOWN, END]
    known = [token for token in sorted(counted, key=counted.__getitem__) if token not in fixed]
    numbered = enumerate([*fixed, *known[: most - len(fixed)]])
    tokenizer.model = models.WordLevel({token: i for i, token in numbered}, UNKNOWN)
    return tokenizer


def _byte_pairs(vocabulary: int, blocks: Iterable[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocabulary, 256),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(blocks, trainer)
    return tokenizer


def load(text: str) -> Tokenizer:
    """Return the tokenizer that a tokenizer.json describes."""
    return Tokenizer.from_str(text)


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of a text's tokens."""
    return list(tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids)


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Return the text of ids; between words stands one space, whatever stood there."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=False)
    return text if tokenizer.token_to_id(END) is None else re.sub(f" ?{END} ?", "\n", text)


def pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Return each token as people read it; a byte pair that is part of a character shows as U+FFFD."""
    return [decode(tokenizer, [i]) for i in ids]


def unknown_id(tokenizer: Tokenizer) -> int | None:
    """Return the id of `<unk>`; byte pairs have none."""
    return None if isinstance(tokenizer.model, models.BPE) else 0


def start_id(tokenizer: Tokenizer) -> int:
    """Return what a text without a beginning starts after: a line's end, or else the most frequent token."""
    for token in (END, "\n", "Ċ"):  # the last is byte-level BPE's letter for a line's end
        if (found := tokenizer.token_to_id(token)) is not None:
            return int(found)
    return 1 if unknown_id(tokenizer) == 0 else 0
