"""Text files -> token ids, tokenizer.json, and how often training has each token."""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer

from components import arrays, files
from components.contracts import Batch, Manifest, Refusal, Split
from components.errors import PedigreeError
from components.language import texts, tokens
from components.language.params import LanguageParams
from components.language.texts import Text

TOKENIZER, COUNTS = "tokenizer.json", "counts.npy"


class LanguageFacts(BaseModel):
    """What the network and its callers need to know of the text."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["char", "word", "bpe"]
    tokenizer: str = Field(description="tokenizer.json's text")
    vocabulary: int = Field(description="Tokens, `<unk>` included")
    characters: dict[str, int] = Field(description="By split")
    tokens: dict[str, int]
    unknown: dict[str, int] = Field(description="Tokens that are `<unk>`")


def prepare(raw: Path, out: Path, params: LanguageParams) -> Manifest:
    """Write each split's token ids (N,), uint16 or uint32, tokenizer.json and counts.npy into the empty `out`.

    The tokenizer is learnt from the training part alone. Memory holds a block of the text, and for words and
    byte pairs the counts of the training part's different words.

    Raises:
        PedigreeError: the text is missing, broken, or of fewer than two different tokens.
    """
    parts = texts.splits(raw, params.prepare)
    tokenizer = tokens.train(params.prepare.tokenizer, parts["train"].blocks())
    files.write_text(out / TOKENIZER, tokenizer.to_str())
    size = tokenizer.get_vocab_size()
    splits, counts = {}, {}
    for name, text in parts.items():
        splits[name], counts[name] = _write(out / f"{name}.tokens.npy", tokenizer, size, text)
        if splits[name].samples < 2:
            raise PedigreeError(f"{text.file}: the part for {name} has fewer than two tokens: add text")
    if np.count_nonzero(counts["train"]) < 2:
        raise PedigreeError(
            f"{parts['train'].file}: the training part has one token again and again: add text, or lower min_count"
        )
    with arrays.Writer(out / COUNTS, np.int64) as writer:
        writer.append(counts["train"])
    unknown = tokens.unknown_id(tokenizer)
    facts = LanguageFacts(
        kind=params.prepare.tokenizer.name,
        tokenizer=tokenizer.to_str(),
        vocabulary=size,
        characters={name: text.stop - text.start for name, text in parts.items()},
        tokens={name: split.samples for name, split in splits.items()},
        unknown={name: 0 if unknown is None else int(count[unknown]) for name, count in counts.items()},
    )
    refused = [Refusal(file=name, reason="not one of the texts") for name in texts.strays(raw, parts)]
    note = "tested on the validation part: there is no other" if parts["test"] == parts["val"] else ""
    return Manifest(task="language", splits=splits, refused=refused, facts=facts.model_dump(), note=note)


def _write(path: Path, tokenizer: Tokenizer, size: int, text: Text) -> tuple[Split, NDArray[np.int64]]:
    """Write a split's ids; return what the manifest says of it, and each token's count (vocabulary,)."""
    dtype = np.uint16 if size <= 2**16 else np.uint32
    counts = np.zeros(size, np.int64)
    with arrays.Writer(path, dtype) as writer:
        for block in text.blocks():
            ids = np.array(tokens.encode(tokenizer, block), dtype)
            counts += np.bincount(ids, minlength=size)
            writer.append(ids)
    return Split(samples=writer.rows, sha256=writer.sha256), counts


def load_split(prepared: Path, split: str) -> Batch:
    """Return tokens, uint16 or uint32 (N,), on a memory-mapped file.

    Raises:
        PedigreeError: the file is missing or damaged.
    """
    return {"tokens": arrays.load(prepared / f"{split}.tokens.npy")}
