"""Conversion between text and token ids: characters, words or byte pairs, by the `tokenizers` library."""

import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import wait
from functools import partial
from itertools import chain

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from components.runtime.background import in_thread
from components.runtime.progress import QUIET_SECONDS
from components.text.params import TokenizerParams

log = logging.getLogger("pedigree.prepare")

UNKNOWN, END = "<unk>", "<eos>"
"""The tokens for rare words or characters, and for the end of a line of words."""
LONGEST = 1000
"""Largest number of characters of a word from which byte pairs are learnt; a longer one is several words.

A word is a run of letters, of digits, of other characters or of spaces. The time to learn grows with the square of
its length: a text of 3 MB without a space would take minutes.
"""
_LONG = re.compile(rf"[^ \t\r\n]{{{LONGEST},}}|\s{{{LONGEST},}}")
"""Where a word may be longer."""
JOINER = "\uffed"
"""Stands at a side of a punctuation mark's token where the text has no space, so that text can be joined again.

The reversible notation of OpenNMT's tokenizer (https://github.com/OpenNMT/Tokenizer/blob/master/docs/options.md).
"""
_BEFORE_MARK = (
    r"(?<=\w)(?=[^\w\s])(?![-'\u2019.]\w)(?!(?<=\d)[,:]\d)(?!(?<=<unk)>)(?!<unk>)"  # after a word
    r"|(?<=[^\w\s])(?=[^\w\s])(?!<unk>)"  # after another mark
)
_AFTER_MARK = r"(?<=[^\w\s])(?<!\w[-'\u2019.])(?!(?<=\d[,:])\d)(?!(?<=<)unk>)(?<!<unk>)(?=\w|<unk>)"
"""Where a punctuation mark and what is before or after it are two tokens.

Hyphens, apostrophes and points within a word belong to it, as in don't or torch.nn, and so do the commas and colons
within a number. `<unk>` counts as a word.
"""
_ALONE, _ATTACHED = re.compile(r"(?<!\S)[,;:!?](?!\S)"), re.compile(r"(?<=\w)[,;:!?](?!\S)")
"""A mark between spaces, and one at a word's end; not the point, which belongs to abbreviations."""


def train(
    params: TokenizerParams, blocks: Iterable[str], specials: Sequence[str] = (), lowercase: bool = False
) -> Tokenizer:
    """Learn a tokenizer from blocks of the training text.

    Ids start with `<unk>` and, for words, `<eos>`; characters and words follow by descending frequency, then by
    their text. Words are separated by white space, and punctuation marks from words, unless most marks in the first
    block stand between spaces already, as in WikiText. The end of a line is the word `<eos>`, as is the convention
    for WikiText, and `<unk>` in the text is the unknown word. Byte pairs (Sennrich et al. 2016, arXiv:1508.07909)
    are learnt on bytes, so that nothing is unknown (Radford et al. 2019, GPT-2), from words of at most `LONGEST`
    characters.

    Args:
        params: The kind of tokens and their number.
        blocks: The text.
        specials: Further tokens, such as one between two texts. They follow `<unk>` and `<eos>`, or are the first
            byte pairs.
        lowercase: Whether capital letters are read as small ones.
    """
    small: list[normalizers.Normalizer] = [normalizers.Lowercase()] if lowercase else []
    if params.name == "bpe":
        return _byte_pairs(params.vocabulary, blocks, specials, small)
    tokenizer = Tokenizer(models.WordLevel())
    if params.name == "char":
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
        parts = small
    else:
        blocks = iter(blocks)
        first = next(blocks, "")
        blocks = chain([first], blocks)
        ends = normalizers.Replace("\n", f" {END} ")
        apart = [] if _stand_apart(first) else _apart()
        parts = [*small, *apart, ends]
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if parts:
        tokenizer.normalizer = normalizers.Sequence(parts) if len(parts) > 1 else parts[0]
    limit = 2**31 - 1 if params.name == "char" else params.vocabulary
    trainer = trainers.WordLevelTrainer(
        vocab_size=limit, min_frequency=params.min_count, show_progress=False, special_tokens=[]
    )
    tokenizer.train_from_iterator(blocks, trainer)
    counted = tokenizer.get_vocab()
    fixed = [UNKNOWN, *([] if params.name == "char" else [END]), *specials]
    known = [token for token in sorted(counted, key=counted.__getitem__) if token not in fixed]
    numbered = enumerate([*fixed, *known[: max(limit - len(fixed), 0)]])
    tokenizer.model = models.WordLevel({token: i for i, token in numbered}, UNKNOWN)
    return tokenizer


def _stand_apart(text: str) -> bool:
    """Return whether most punctuation marks at the end of words are separated from them by a space."""
    return len(_ALONE.findall(text)) > len(_ATTACHED.findall(text))


def _apart() -> list[normalizers.Normalizer]:
    """Return what separates punctuation marks from words and from each other by spaces."""
    before = normalizers.Replace(Regex(_BEFORE_MARK), f" {JOINER}")
    return [before, normalizers.Replace(Regex(_AFTER_MARK), f"{JOINER} ")]


def _byte_pairs(
    vocabulary: int, blocks: Iterable[str], specials: Sequence[str], normalizer: Sequence[normalizers.Normalizer]
) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        (tokenizer.normalizer,) = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocabulary, 256 + len(specials)),
        special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    fit(tokenizer, blocks, trainer, "byte pairs")
    # Without `specials` as added tokens, which would be found in texts that have their characters.
    bare = Tokenizer(tokenizer.model)
    bare.pre_tokenizer, bare.decoder = tokenizer.pre_tokenizer, tokenizer.decoder
    if normalizer:
        bare.normalizer = tokenizer.normalizer
    return bare


def fit(tokenizer: Tokenizer, blocks: Iterable[str], trainer: trainers.Trainer, what: str) -> None:
    """Learn pieces of the words of texts, the longest of which are cut, and log how long it has taken.

    Args:
        tokenizer: Gets the pieces; it has what separates words.
        blocks: The texts.
        trainer: Learns the pieces.
        what: What they are called in the log.
    """
    words = _bounded(tokenizer.pre_tokenizer, blocks)
    # In a thread, as the library learns for minutes without a look at signals; Ctrl-C ends this process and it.
    learnt = in_thread(partial(tokenizer.train_from_iterator, words, trainer), what)
    started = time.monotonic()
    while wait([learnt], QUIET_SECONDS).not_done:
        log.info("learning %s: %.0f s so far", what, time.monotonic() - started)
    learnt.result()


def _bounded(words: pre_tokenizers.PreTokenizer, blocks: Iterable[str]) -> Iterator[str]:
    """Yield the blocks, cut inside each word that is longer than `LONGEST`."""
    for block in blocks:
        start = 0
        for run in _LONG.finditer(block):
            for _, (first, last) in words.pre_tokenize_str(run[0]):
                for cut in range(run.start() + first + LONGEST, run.start() + last, LONGEST):
                    yield block[start:cut]
                    start = cut
        yield block[start:]


def load(text: str) -> Tokenizer:
    """Return the tokenizer of the content of a tokenizer.json."""
    return Tokenizer.from_str(text)


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of a text's tokens."""
    return list(tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids)


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Return the text of ids, with one space between words and none beside the marks that have none there."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=False)
    if tokenizer.token_to_id(END) is None:
        return text
    return re.sub(f" ?{END} ?", "\n", re.sub(f" ?{JOINER} ?", "", text))


def gap(tokenizer: Tokenizer, before: int, after: int) -> str:
    """Return what is between two successive tokens in a text: a space between words, or nothing."""
    both, first, second = (decode(tokenizer, ids) for ids in ([before, after], [before], [after]))
    return both[len(first) : len(both) - len(second)]


def written(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Return a text that becomes `ids` again, except perhaps its first and last tokens."""
    if tokenizer.token_to_id(END) is None and (unknown := unknown_id(tokenizer)) is not None:
        # The characters of `<unk>` would each be known. U+FFFD stands for a character that is not.
        return "".join("\ufffd" if i == unknown else decode(tokenizer, [i]) for i in ids)
    return decode(tokenizer, ids)


def pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Return each token as a readable string; an incomplete character of a byte pair becomes U+FFFD."""
    return [decode(tokenizer, [i]) for i in ids]


def unknown_id(tokenizer: Tokenizer) -> int | None:
    """Return the id of `<unk>`; byte pairs have none."""
    return None if isinstance(tokenizer.model, models.BPE) else 0


def unknown(tokenizer: Tokenizer, text: str) -> list[str]:
    """Return the distinct words or characters of a text that the vocabulary lacks, in their order."""
    if unknown_id(tokenizer) is None:
        return []
    normalizer = tokenizer.normalizer
    # Not by an encoding's offsets: those of what the normalizer inserts reach into the word before.
    parts = tokenizer.pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text) if normalizer else text)
    found = (part.strip(JOINER) for part, _ in parts if tokenizer.token_to_id(part) is None)
    return list(dict.fromkeys(found))


def start_id(tokenizer: Tokenizer) -> int:
    """Return the id of the token before an empty prompt: a line's end, or else the most frequent token."""
    for token in (END, "\n", "Ċ"):  # Ċ is a line's end in byte-level BPE
        if (token_id := tokenizer.token_to_id(token)) is not None:
            return int(token_id)
    return 1 if unknown_id(tokenizer) == 0 else 0
