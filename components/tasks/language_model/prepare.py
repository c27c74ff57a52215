"""Text files -> token ids, tokenizer.json, and each token's number of occurrences in training."""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer

from components.contracts import Manifest, Part, RejectedFile
from components.datasets import arrays
from components.datasets.splits import Columns
from components.errors import PedigreeError
from components.runtime import files
from components.tasks.language_model.params import LanguageParams
from components.text import corpus, overlap, tokens
from components.text.corpus import Text

TOKENIZER, COUNTS = "tokenizer.json", "counts.npy"


class LanguageFacts(BaseModel):
    """Facts about the text that the network and its callers need."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["char", "word", "bpe"]
    tokenizer: str = Field(description="Content of tokenizer.json")
    vocabulary: int = Field(description="Number of tokens, including `<unk>`")
    characters: dict[str, int] = Field(description="Number of characters by split")
    tokens: dict[str, int] = Field(description="Number of tokens by split")
    unknown: dict[str, int] = Field(description="Number of `<unk>` tokens by split")


def prepare(raw: Path, out: Path, params: LanguageParams) -> Manifest:
    """Write each split's token ids (N,), uint16 or uint32, tokenizer.json and counts.npy into the empty `out`.

    The tokenizer is learnt from the training text only. Memory holds a block of the text, and for words and byte
    pairs the counts of the training text's distinct words.

    Raises:
        PedigreeError: the text is missing or invalid, is the same in two files, or has fewer than two distinct
            tokens.
    """
    parts = corpus.splits(raw, params.prepare)
    notes = overlap.report(parts)
    tokenizer = tokens.train(params.prepare.tokenizer, parts["train"].blocks())
    files.write_text(out / TOKENIZER, tokenizer.to_str())
    size = tokenizer.get_vocab_size()
    splits, counts = {}, {}
    for name, text in parts.items():
        splits[name], counts[name] = _write(out / f"{name}.tokens.npy", tokenizer, size, text)
        if splits[name].samples < 2:
            raise PedigreeError(f"{text.names}: the part for {name} has fewer than two tokens: add text")
    if np.count_nonzero(counts["train"]) < 2:
        raise PedigreeError(
            f"{parts['train'].names}: the training text repeats a single token: add text, or lower min_count"
        )
    with arrays.Writer(out / COUNTS, np.int64) as writer:
        writer.append(counts["train"])
    unknown = tokens.unknown_id(tokenizer)
    facts = LanguageFacts(
        kind=params.prepare.tokenizer.name,
        tokenizer=tokenizer.to_str(),
        vocabulary=size,
        characters={name: text.characters for name, text in parts.items()},
        tokens={name: split.samples for name, split in splits.items()},
        unknown={name: 0 if unknown is None else int(count[unknown]) for name, count in counts.items()},
    )
    rejected = [RejectedFile(file=name, reason="not one of the texts") for name in corpus.strays(raw, parts)]
    test_is_val = parts["test"] == parts["val"]
    if test_is_val:
        notes.insert(0, "tested on validation data: there is no separate test text")
    given = corpus.has_own(raw, "val" if test_is_val else "test") and not params.prepare.resplit
    return Manifest(
        task="language_model",
        splits=splits,
        rejected=rejected,
        facts=facts.model_dump(),
        drawn="" if given else parts["test"].ranges,
        tested="; ".join(f"{each.file.name} {each.start}-{each.stop}" for each in parts["test"].pieces),
        note="; ".join(notes),
    )


def _write(path: Path, tokenizer: Tokenizer, size: int, text: Text) -> tuple[Part, NDArray[np.int64]]:
    """Write a split's ids; return its record in the manifest, and each token's count (vocabulary,)."""
    dtype = np.uint16 if size <= 2**16 else np.uint32
    counts = np.zeros(size, np.int64)
    with arrays.Writer(path, dtype) as writer:
        for block in text.blocks():
            ids = np.array(tokens.encode(tokenizer, block), dtype)
            counts += np.bincount(ids, minlength=size)
            writer.append(ids)
    return Part(samples=writer.rows, sha256=writer.sha256), counts


def load_split(prepared: Path, split: str) -> Columns:
    """Return tokens, uint16 or uint32 (N,), on a memory-mapped file.

    Raises:
        PedigreeError: the file is missing or damaged.
    """
    return Columns({"tokens": arrays.load(prepared / f"{split}.tokens.npy")})
