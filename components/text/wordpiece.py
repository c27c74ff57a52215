"""The tokenizer of a BERT (Devlin et al. 2019, arXiv:1810.04805), from its tokenizer.json or vocab.txt."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from components.datasets.ingest import Unusable
from components.errors import PedigreeError
from components.text import tokens
from components.text.lines import decoded, expect_text

UNKNOWN, CLS, SEP, PAD = "[UNK]", "[CLS]", "[SEP]", "[PAD]"
"""Tokens for unknown words, before a text, after each of a sample's texts, and after a sample in a batch."""
JSON, VOCABULARY = "tokenizer.json", "vocab.txt"
LARGEST = 2**26
"""Largest file in bytes; that of the largest multilingual BERT has 2 million."""
LETTERS = 1_000
"""Most different characters that a learnt tokenizer knows, as BERT's."""


def load(file: Path) -> Tokenizer:
    """Return the tokenizer, which neither cuts nor pads samples.

    A vocab.txt is for small letters without accents if no word of it has a capital letter. A sample becomes
    `[CLS] text [SEP]`, or of two texts `[CLS] first [SEP] second [SEP]`.

    Raises:
        PedigreeError: the file is missing, or is no tokenizer of a BERT.
    """
    try:
        text = _text(file)
    except Unusable as reason:
        raise PedigreeError(f"{file} cannot be used as a BERT's tokenizer: {reason}") from None
    tokenizer = _from_json(file, text) if file.suffix == ".json" else _from_vocabulary(text)
    if not isinstance(tokenizer.model, models.WordPiece):
        kind = type(tokenizer.model).__name__
        raise PedigreeError(f"{file} is a tokenizer of the kind {kind}, not WordPiece: name that of a BERT")
    if lacking := [token for token in (PAD, UNKNOWN, CLS, SEP) if tokenizer.token_to_id(token) is None]:
        raise PedigreeError(f"{file} has no token {' and no '.join(lacking)}: name the tokenizer of a BERT")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _text(file: Path) -> str:
    if not file.is_file():
        raise Unusable(f"there is no such file; name the {JSON} or {VOCABULARY} in a BERT's folder")
    if file.stat().st_size > LARGEST:
        raise Unusable(f"it has over {LARGEST:,} bytes")
    data = file.read_bytes()
    expect_text(data[:1000])
    return decoded(data)


def _from_json(file: Path, text: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises Exception itself
        raise PedigreeError(f"{file} is no {JSON} of the tokenizers library ({error}): get another copy") from None


def _from_vocabulary(text: str) -> Tokenizer:
    return _of_words([line.rstrip("\r") for line in text.removesuffix("\n").split("\n")])


def _of_words(words: Sequence[str]) -> Tokenizer:
    vocabulary = {word: index for index, word in enumerate(words)}
    special = {token: vocabulary[token] for token in (CLS, SEP) if token in vocabulary}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
    uncased = all(word == word.lower() for word in words if not (word.startswith("[") and word.endswith("]")))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=uncased)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    if len(special) == 2:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{CLS}:0 $A:0 {SEP}:0",
            pair=f"{CLS}:0 $A:0 {SEP}:0 $B:1 {SEP}:1",
            special_tokens=list(special.items()),
        )
    return tokenizer


def of_folder(folder: Path) -> Path:
    """Return the file of the tokenizer in a BERT's folder.

    Raises:
        PedigreeError: there is none.
    """
    for name in (JSON, VOCABULARY):
        if (folder / name).is_file():
            return folder / name
    raise PedigreeError(f"{folder} has neither {JSON} nor {VOCABULARY}: add the one of these weights")


def learn(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """Learn a tokenizer of a BERT's form, for small letters without accents, from the training texts.

    Args:
        texts: The texts.
        vocabulary: Most tokens; the most frequent characters have one in any case.
    """
    learning = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    learning.normalizer, learning.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    counted = Counter(chain.from_iterable(map(learning.normalizer.normalize_str, texts)))
    letters = sorted(counted, key=lambda letter: (-counted[letter], letter))
    alphabet = sorted(letter for letter in letters[:LETTERS] if not letter.isspace())
    special = [PAD, UNKNOWN, CLS, SEP]
    # With all pieces of one letter given, as the library would number them in another order each time.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        special_tokens=[*special, *(f"##{letter}" for letter in alphabet)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokens.fit(learning, texts, trainer, "word pieces")
    known = learning.get_vocab()
    return _of_words(sorted(known, key=known.__getitem__))
