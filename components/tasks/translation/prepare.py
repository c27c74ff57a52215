"""Pairs of texts -> token ids of both languages, and the tokenizer that they share."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer

from components.contracts import Manifest, Part, RejectedFile
from components.datasets import arrays, groups, ingest, ragged, raw_files
from components.datasets.splits import Columns
from components.errors import PedigreeError
from components.runtime.progress import Progress
from components.tasks.translation import pairs
from components.tasks.translation.pairs import Pair
from components.tasks.translation.params import BleuParams, TranslationParams, TranslationPrepareParams
from components.text import repeats, tokens
from components.text.measures.bleu import Convention
from components.text.params import TokenizerParams

log = logging.getLogger("pedigree.prepare")

START, END = "<start of text>", "<end of text>"
"""Two tokens that no text becomes: byte pairs have no space."""
SOURCE, TARGET = "source", "target"
TOGETHER = 1000
"""Pairs that are encoded at once."""
APART = 0.1
"""Share of texts that end with " ." from which on they are taken for tokenised ones, as sacrebleu does."""


class TranslationFacts(BaseModel):
    """Facts about the pairs that the network and its callers need."""

    model_config = ConfigDict(frozen=True)

    source: str
    target: str
    tokenizer: str = Field(description="Content of tokenizer.json")
    vocabulary: int = Field(description="Number of tokens")
    start: int = Field(description="Id of the token before the first one of a translation")
    end: int = Field(description="Id of the token after the last one of a text")
    longest: int = Field(description="Most characters of a text")
    bleu: BleuParams
    identical: int = Field(description="Number of pairs that were left out because both sides are the same")
    characters: dict[str, int] = Field(description="Number of characters of the translations by split")

    @property
    def convention(self) -> Convention:
        """How BLEU divides a text."""
        return Convention(self.bleu.case, self.bleu.tokenizer)


def prepare(raw: Path, out: Path, params: TranslationParams) -> Manifest:
    """Write each split's token ids of both languages, int32, and where its pairs are, into the empty `out`.

    Both texts of a pair end with the token `END`. The tokenizer is learnt from the training pairs only. Memory
    holds all texts.

    Raises:
        PedigreeError: there are no pairs, they cannot be read or divided, or too many are rejected.
    """
    options = params.prepare
    found = pairs.read(raw, options)
    if not any(found.splits.values()):
        ingest.expect_few(raw, out, found.rejected, found.total, 0)
        raise PedigreeError(
            f"{raw} has no pair of different texts in {options.source} and {options.target}: add some"
        )
    parts, drawn = _divided(raw, found.splits, options)
    parts, repeated = repeats.without(parts, lambda pair: repeats.key(pair.source))
    rejected = sorted([*found.rejected, *repeated], key=lambda each: each.file)
    ingest.expect_few(raw, out, rejected, found.total, options.max_rejected)
    for split, own in parts.items():
        if not own:
            raise PedigreeError(f"{raw} has no pairs for {split}: add some, or remove the files of that split")
    if found.identical:
        log.info(f"{raw}: {found.identical:,} pairs left out, as both sides are the same text")
    tokenizer = _learnt(parts["train"], options)
    facts = TranslationFacts(
        source=options.source,
        target=options.target,
        tokenizer=tokenizer.to_str(),
        vocabulary=tokenizer.get_vocab_size(),
        start=tokenizer.token_to_id(START),
        end=tokenizer.token_to_id(END),
        longest=options.longest,
        bleu=options.bleu,
        identical=found.identical,
        characters={split: sum(len(pair.target) for pair in own) for split, own in parts.items()},
    )
    unread = pairs.strays(raw, pairs.survey(raw, options))
    rejected += [RejectedFile(file=name, reason="not one of the files of pairs") for name in unread]
    return Manifest(
        task="translation",
        splits={split: _write(out, split, parts[split], tokenizer, facts.end) for split in raw_files.SPLITS},
        rejected=rejected,
        ignored=raw_files.about(raw),
        facts=facts.model_dump(),
        drawn=drawn,
        note="; ".join(filter(None, [raw_files.composed(raw, "pairs"), _tokenised(raw, parts["test"], options)])),
    )


def _divided(
    raw: Path, given: Mapping[str, Sequence[Pair]], options: TranslationPrepareParams
) -> tuple[dict[str, list[Pair]], str]:
    """Draw the splits that are missing from train, or, with `resplit`, test and val from all pairs.

    Pairs of equal or nearly equal sources are drawn together. Returns the splits, and what was drawn for testing.
    """
    parts = groups.given(raw, given, "pairs")
    if options.resplit:
        parts = {"train": [pair for own in parts.values() for pair in own]}
    pool = parts.get("train", [])
    drawn = ""
    for split, share in (("test", options.test_share), ("val", options.val_share)):
        if split in parts:
            continue
        by_name = {pair.at: pair for pair in parts.get("train", [])}
        group_of = {name: repeats.key(pair.source) for name, pair in by_name.items()}
        keep = 2 if split == "test" else 1
        chosen = groups.draw({"": [*by_name]}, group_of, share, keep, options.seed, options.resplit)
        if len(set(group_of.values())) <= keep or not chosen:
            raise PedigreeError(
                f"{raw}: {len(set(group_of.values())):,} different texts for training are too few to draw {split} "
                "from them: add some"
            )
        parts[split] = [pair for name, pair in by_name.items() if name in chosen]
        parts["train"] = [pair for name, pair in by_name.items() if name not in chosen]
        if split == "test":
            drawn = f"{len(chosen):,} of {len(pool):,} pairs, with all translations of a text"
    return parts, drawn


def _learnt(train: Sequence[Pair], options: TranslationPrepareParams) -> Tokenizer:
    """Learn byte pairs from both sides of the training pairs."""
    blocks = (
        "".join(f"{pair.source}\n{pair.target}\n" for pair in train[first : first + TOGETHER])
        for first in range(0, len(train), TOGETHER)
    )
    return tokens.train(
        TokenizerParams(name="bpe", vocabulary=options.vocabulary, min_count=1), blocks, [START, END]
    )


def _write(out: Path, split: str, own: Sequence[Pair], tokenizer: Tokenizer, end: int) -> Part:
    """Write a split's ids and where its pairs are; return its record in the manifest."""
    names = "".join(f"{pair.at}\n" for pair in own)
    (out / f"{split}.files.txt").write_text(names, encoding="utf-8", newline="\n")
    with (
        ragged.Writer(out / f"{split}.{SOURCE}", np.int32) as source,
        ragged.Writer(out / f"{split}.{TARGET}", np.int32) as target,
    ):
        for one, other in _encoded(split, own, tokenizer):
            source.append(np.array([*one, end], np.int32))
            target.append(np.array([*other, end], np.int32))
    return Part(samples=source.rows, sha256=arrays.joint_sha256(source, target))


def _encoded(split: str, own: Sequence[Pair], tokenizer: Tokenizer) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the ids of each pair's two texts."""
    progress = Progress(log)
    for first in range(0, len(own), TOGETHER):
        texts = [text for pair in own[first : first + TOGETHER] for text in (pair.source, pair.target)]
        ids = [each.ids for each in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        yield from zip(ids[::2], ids[1::2], strict=True)
        progress.say(f"{split}: {first + len(texts) // 2:,} of {len(own):,} pairs became tokens")


def _tokenised(raw: Path, test: Sequence[Pair], options: TranslationPrepareParams) -> str:
    """Return a note if the test translations look tokenised, and BLEU tokenises them again; warn of it."""
    apart = sum(pair.target.endswith(" .") for pair in test)
    if options.bleu.tokenizer == "none" or apart <= APART * len(test):
        return ""
    note = f"{apart / len(test):.0%} of the test translations end with ' .', as tokenised texts do"
    log.warning(f"{raw}: {note}: set prepare.bleu.tokenizer to none, or put the original texts there")
    return note


def load_split(prepared: Path, split: str) -> Columns:
    """Return source and target, int32 with rows of N tokens each, on memory-mapped files, with `END` at their ends.

    Raises:
        PedigreeError: a file is missing or damaged.
    """
    source, target = (ragged.load(prepared / f"{split}.{name}") for name in (SOURCE, TARGET))
    return Columns({}, {SOURCE: source, TARGET: target}, source.shapes[:, 0] + target.shapes[:, 0])


def texts(prepared: Path, split: str, side: str, facts: TranslationFacts) -> list[str]:
    """Return one side of a split as it was read, since byte pairs lose nothing.

    Args:
        prepared: The prepared folder.
        split: The split.
        side: `SOURCE` or `TARGET`.
        facts: Those of the manifest.
    """
    tokenizer, rows = tokens.load(facts.tokenizer), load_split(prepared, split).ragged[side]
    return [tokens.decode(tokenizer, rows[index][:-1].tolist()) for index in range(len(rows))]
