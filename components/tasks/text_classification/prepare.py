"""Labelled texts -> token ids and labels, the tokenizer, and the texts of the test split as they were read."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer

from components.classification.probabilities import Problem
from components.contracts import Manifest, Part, RejectedFile
from components.datasets import arrays, groups, ingest, ragged, raw_files
from components.datasets.splits import Columns
from components.display import brief
from components.errors import PedigreeError
from components.tasks.text_classification import texts
from components.tasks.text_classification.params import TextParams, TextPrepareParams
from components.tasks.text_classification.texts import Text
from components.text import repeats, samples

log = logging.getLogger("pedigree.prepare")

TOKENS, FIRST, LABEL = "token", "first", "label"
"""Names of the tensors: ids, of a pair the number of tokens of its first text, and what the text is."""
OUT_OF_SCOPE = -1
"""The label of a test text that belongs to no class."""
MOST = 1_000
"""Most classes: a column with more different values hardly holds classes."""


class TextFacts(BaseModel):
    """Facts about the texts that the network and its callers need."""

    model_config = ConfigDict(frozen=True)

    classes: list[str] = Field(description="Sorted; a label is an index into this list")
    several: bool = Field(description="Whether a text can have several labels, or none")
    pair: bool = Field(description="Whether a sample has two texts")
    out_of_scope: str = Field(description="The label of texts that belong to no class; empty if there is none")
    tokenizer: str = Field(description="Content of tokenizer.json")
    vocabulary: int = Field(description="Number of tokens")
    longest: int = Field(description="Most tokens of a sample")
    counts: dict[str, dict[str, int]] = Field(description="Texts by split and class")
    foreign: dict[str, int] = Field(description="Texts out of scope by split, of which only those of test are used")

    @property
    def problem(self) -> Problem:
        """The labels to tell apart, if a text can have several."""
        return Problem(self.classes, several=True)


def prepare(raw: Path, out: Path, params: TextParams) -> Manifest:
    """Write each split's token ids, labels and where its texts are, and the test texts, into the empty `out`.

    Labels are int64 (N,), with -1 for test texts out of scope; where a text can have several, uint8 (N, classes) of
    0 and 1. The tokenizer is learnt from the training texts, or read from a file. Memory holds all texts.

    Raises:
        PedigreeError: there are too few texts or classes, they cannot be read or divided, or too many are rejected.
    """
    options = params.prepare
    found = texts.read(raw, options)
    rejected = found.rejected
    labels = Counter(label for own in found.splits.values() for text in own for label in text.labels)
    _check_labels(raw, out, labels, found, options)
    alike = _alike(raw, labels)
    parts, drawn = _divided(raw, found.splits, options, rejected)
    parts, repeated = repeats.without(parts, lambda text: text.key)
    rejected += repeated
    foreign = {split: sum(_is_foreign(text, options) for text in own) for split, own in parts.items()}
    for split in ("train", "val"):
        parts[split] = [text for text in parts[split] if not _is_foreign(text, options)]
    classes = sorted({label for text in parts["train"] for label in text.labels})
    for split in ("val", "test"):
        parts[split] = _of_known_labels(parts[split], classes, options, rejected)
    ingest.expect_few(raw, out, _sorted(rejected), found.total, options.max_rejected)
    for split, own in parts.items():
        if not own:
            raise PedigreeError(f"{raw} has no texts for {split}: add some, or remove the files of that split")
    _expect_classes(raw, classes, parts["train"], several=bool(options.separator))
    tokenizer = samples.learn(options.tokenizer, (each for text in parts["train"] for each in text.texts))
    written = {split: _write(out, split, parts[split], classes, tokenizer, options) for split in raw_files.SPLITS}
    cut = sum(count for _, count in written.values())
    note = _cut(raw, cut, sum(map(len, parts.values())), options.longest) if cut else ""
    (out / "test.texts.jsonl").write_text(
        "".join(f"{json.dumps(text.texts)}\n" for text in parts["test"]), encoding="utf-8", newline="\n"
    )
    facts = TextFacts(
        classes=classes,
        several=bool(options.separator),
        pair=bool(options.pair),
        out_of_scope=options.out_of_scope,
        tokenizer=tokenizer.to_str(),
        vocabulary=tokenizer.get_vocab_size(),
        longest=options.longest,
        counts={split: _counts(own, classes) for split, own in parts.items()},
        foreign=foreign,
    )
    return Manifest(
        task="text_classification",
        splits={split: part for split, (part, _) in written.items()},
        rejected=_sorted(rejected),
        ignored=found.ignored,
        facts=facts.model_dump(),
        drawn=drawn,
        note="; ".join(filter(None, [raw_files.composed(raw, "texts"), alike, note])),
    )


def _cut(raw: Path, cut: int, total: int, longest: int) -> str:
    """Return a note that texts are cut, and warn of it."""
    note = f"{cut:,} of {total:,} texts have more than prepare.longest ({longest:,}) tokens, and are cut at the end"
    log.warning(f"{raw}: {note}")
    return note


def _alike(raw: Path, labels: Mapping[str, int]) -> str:
    """Return a note that classes hardly differ in their names, as 0 and 0.0, and warn of it."""
    spellings: dict[Decimal | str, list[str]] = {}
    for label in sorted(labels):
        spellings.setdefault(_value(label), []).append(label)
    several = [
        " and ".join(f"{brief(label)} ({labels[label]:,} texts)" for label in own)
        for own in spellings.values()
        if len(own) > 1
    ]
    if not several:
        return ""
    note = (
        "labels that differ only in case or in how a number is written are classes of their own: "
        f"{raw_files.listed(several)}"
    )
    log.warning(f"{raw}: {note}: write them alike if they mean the same")
    return note


def _value(label: str) -> Decimal | str:
    """Return the number that a label is, or else the label without case."""
    try:
        number = Decimal(label)  # and no float, in which long numbers that differ are the same
    except ArithmeticError:
        return label.casefold()
    return number if number.is_finite() else label.casefold()


def _sorted(rejected: Sequence[RejectedFile]) -> list[RejectedFile]:
    return sorted(rejected, key=lambda each: each.file)


def _is_foreign(text: Text, options: TextPrepareParams) -> bool:
    """Return whether a text belongs to no class."""
    return bool(options.out_of_scope) and text.labels == (options.out_of_scope,)


def _counts(own: Sequence[Text], classes: Sequence[str]) -> dict[str, int]:
    counts = Counter(label for text in own for label in text.labels)
    return {name: counts[name] for name in classes}


def _check_labels(
    raw: Path, out: Path, labels: Mapping[str, int], found: texts.Texts, options: TextPrepareParams
) -> None:
    """Check that there are labels, and not as many as in a column of something else."""
    if not labels:
        ingest.expect_few(raw, out, _sorted(found.rejected), found.total, 0)
        raise PedigreeError(f"{raw} has no text with a label: add some")
    if len(labels) > MOST:
        raise PedigreeError(
            f"{raw} has {len(labels):,} different labels, such as {brief(next(iter(labels)))}, more than {MOST:,}: "
            f"set prepare.label, now {options.label!r}, to the column of the classes"
        )
    if options.out_of_scope and options.out_of_scope not in labels:
        raise PedigreeError(
            f"{raw} has no text with the label {brief(options.out_of_scope)} of prepare.out_of_scope: set it to '' "
            "or to the label of texts that belong to no class"
        )


def _expect_classes(raw: Path, classes: Sequence[str], train: Sequence[Text], several: bool) -> None:
    """Check that there is something to tell apart."""
    if several:
        counts = _counts(train, classes)
        if same := [name for name, count in counts.items() if count == len(train)]:
            raise PedigreeError(
                f"{raw}: all training texts have the label {raw_files.listed(same)}: add others, or remove it"
            )
    elif len(classes) < 2:
        raise PedigreeError(f"{raw}: all training texts have the label {brief(classes[0])}: add texts of another")


def _divided(
    raw: Path, given: Mapping[str, Sequence[Text]], options: TextPrepareParams, rejected: list[RejectedFile]
) -> tuple[dict[str, list[Text]], str]:
    """Draw the splits that are missing from train, or, with `resplit`, test and val from all texts.

    The same share of each class is drawn; texts that are nearly equal are drawn together where that is possible.
    Texts whose class has too few for that are rejected. Returns the splits, and what was drawn for testing.
    """
    parts = groups.given(raw, given, "texts")
    if options.resplit:
        parts = {"train": [text for own in parts.values() for text in own]}
    missing = [split for split in ("test", "val") if split not in parts]
    if missing and not options.separator:
        parts["train"] = _of_frequent_labels(parts.get("train", []), missing, rejected)
    pool, drawn = len(parts.get("train", [])), ""
    for number, split in enumerate(missing):
        keep, share = len(missing) - number, options.test_share if split == "test" else options.val_share
        classes: dict[str, list[str]] = {}
        for text in parts["train"]:
            classes.setdefault("" if options.separator else text.labels[0], []).append(text.at)
        if not classes or any(len(own) <= keep for own in classes.values()):
            raise PedigreeError(
                f"{raw}: {pool:,} texts for training are too few to draw {split} from them: add some"
            )
        group_of = {text.at: text.key for text in parts["train"]}
        draw = (share, keep, options.seed, options.resplit)
        chosen = groups.draw(classes, group_of, *draw) or groups.draw_each(classes, *draw)
        parts[split] = [text for text in parts["train"] if text.at in chosen]
        parts["train"] = [text for text in parts["train"] if text.at not in chosen]
        if split == "test":
            share_of = "" if options.separator else ", the same share of each class"
            drawn = f"{len(chosen):,} of {pool:,} texts{share_of}"
    return parts, drawn


def _of_frequent_labels(own: Sequence[Text], missing: Sequence[str], rejected: list[RejectedFile]) -> list[Text]:
    """Return the texts whose label has one for each split that is drawn and for train, and reject the others."""
    least, counts = 1 + len(missing), Counter(text.labels[0] for text in own)
    for text in own:
        if counts[text.labels[0]] < least:
            reason = f"too few texts of its label to draw {' and '.join(missing)} from: {brief(text.labels[0])}"
            rejected.append(RejectedFile(file=text.at, reason=reason))
    return [text for text in own if counts[text.labels[0]] >= least]


def _of_known_labels(
    own: Sequence[Text], classes: Sequence[str], options: TextPrepareParams, rejected: list[RejectedFile]
) -> list[Text]:
    """Return the texts whose labels training has, or that belong to no class, and reject the others."""
    known, left = set(classes), []
    for text in own:
        if unknown := [] if _is_foreign(text, options) else [name for name in text.labels if name not in known]:
            reason = f"no training text has its label: {brief(unknown[0])}"
            rejected.append(RejectedFile(file=text.at, reason=reason))
        else:
            left.append(text)
    return left


def _write(
    out: Path,
    split: str,
    own: Sequence[Text],
    classes: Sequence[str],
    tokenizer: Tokenizer,
    options: TextPrepareParams,
) -> tuple[Part, int]:
    """Write a split; return its record in the manifest, and how many texts are cut."""
    names = "".join(f"{text.at}\n" for text in own)
    (out / f"{split}.files.txt").write_text(names, encoding="utf-8", newline="\n")
    index = {name: number for number, name in enumerate(classes)}
    shape, dtype = ((len(classes),), np.uint8) if options.separator else ((), np.int64)
    cut = 0
    with (
        ragged.Writer(out / f"{split}.{TOKENS}", np.int32) as ids,
        arrays.Writer(out / f"{split}.{FIRST}.npy", np.int64) as first,
        arrays.Writer(out / f"{split}.{LABEL}.npy", dtype, shape) as label,
    ):
        encoded = samples.encoded(tokenizer, (text.texts for text in own), options.longest)
        for text, each in zip(own, encoded, strict=True):
            ids.append(np.array(each.ids, np.int32))
            first.append(np.array([each.first]))
            cut += each.cut
            if options.separator:
                label.append(np.array([[name in text.labels for name in classes]], np.uint8))
            else:
                label.append(np.array([index.get(text.labels[0], OUT_OF_SCOPE)]))
    return Part(samples=label.rows, sha256=arrays.joint_sha256(ids, first, label)), cut


def load_split(prepared: Path, split: str) -> Columns:
    """Return token, int32 with rows of T tokens each, first and label on memory-mapped files.

    `first`, int64 (N,), is the number of tokens of a sample's first text. Labels are as `prepare` says.

    Raises:
        PedigreeError: a file is missing or damaged.
    """
    token = ragged.load(prepared / f"{split}.{TOKENS}")
    dense = {name: arrays.load(prepared / f"{split}.{name}.npy") for name in (FIRST, LABEL)}
    return Columns(dense, {TOKENS: token}, token.shapes[:, 0])


def texts_of_test(prepared: Path) -> list[list[str]]:
    """Return the one or two texts of each test sample, as they were read.

    Raises:
        PedigreeError: their file is missing.
    """
    path = prepared / "test.texts.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        raise PedigreeError(f"{path} is missing: run prepare again") from None
    return [json.loads(line) for line in lines]
