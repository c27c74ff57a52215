"""Questions and contexts -> windows of tokens, the answers' positions, and the test questions as they were read."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from components.contracts import Manifest, Part, RejectedFile
from components.datasets import arrays, groups, ingest, ragged, raw_files
from components.datasets.splits import Columns
from components.errors import PedigreeError
from components.runtime.progress import Progress
from components.tasks.question_answering import questions
from components.tasks.question_answering.params import QuestionParams, QuestionPrepareParams
from components.tasks.question_answering.questions import Answer, Question
from components.tasks.question_answering.windows import Cut, Windows
from components.text import repeats, tokens, wordpiece

log = logging.getLogger("pedigree.prepare")

TOKENS, FIRST, START, END, QUESTION = "token", "first", "start", "end", "question"
"""Names of the tensors: ids, the number of a question's tokens, the answer's ends, and whose window it is."""


class QuestionFacts(BaseModel):
    """Facts about the questions that the network and its callers need."""

    model_config = ConfigDict(frozen=True)

    tokenizer: str = Field(description="Content of tokenizer.json")
    vocabulary: int = Field(description="Number of tokens")
    cut: Cut = Field(description="How contexts are divided")
    counts: dict[str, int] = Field(description="Questions by split")
    unanswerable: dict[str, int] = Field(description="Questions without an answer in their context, by split")

    @property
    def abstains(self) -> bool:
        """Whether a network learns to say that there is no answer."""
        return self.unanswerable["train"] > 0

    @property
    def windows(self) -> Windows:
        """What makes windows of a question and its context."""
        return Windows(tokens.load(self.tokenizer), self.cut)


def prepare(raw: Path, out: Path, params: QuestionParams) -> Manifest:
    """Write each split's windows and where the answers are in them, and the test questions, into the empty `out`.

    Contexts that are nearly equal are in one split. The tokenizer is learnt from the training texts, or read from a
    file. Memory holds all questions.

    Raises:
        PedigreeError: there are too few questions, they cannot be read or divided, or too many are rejected.
    """
    options = params.prepare
    found = questions.read(raw, options)
    key = lru_cache(maxsize=None)(repeats.key)
    if not any(found.splits.values()):
        ingest.expect_few(raw, out, _sorted(found.rejected), found.total, 0)
        raise PedigreeError(f"{raw} has no question: add some")
    parts, drawn = _divided(raw, found.splits, options, key)
    parts, repeated = repeats.without(parts, lambda each: key(each.context))
    rejected = _sorted([*found.rejected, *repeated])
    ingest.expect_few(raw, out, rejected, found.total, options.max_rejected)
    for split, own in parts.items():
        if not any(each.answers for each in own):
            raise PedigreeError(f"{raw} has no question with an answer for {split}: add some, or remove its file")
    if options.tokenizer.from_:
        tokenizer = wordpiece.load(Path(options.tokenizer.from_))
    else:
        contexts = dict.fromkeys(each.context for each in parts["train"])
        tokenizer = wordpiece.learn(
            [*contexts, *(each.question for each in parts["train"])], options.tokenizer.vocabulary
        )
    cut = Cut(options.longest, options.longest_question, options.overlap)
    written, notes = {}, [raw_files.composed(raw, "questions")]
    for split in raw_files.SPLITS:
        written[split], long, divided = _write(out, split, parts[split], Windows(tokenizer, cut))
        of_split = f"of {len(parts[split]):,} questions of {split} have"
        if long:
            notes.append(
                f"{long:,} {of_split} more than prepare.longest_question ({options.longest_question}) tokens, and "
                "are cut at the end"
            )
        if divided:
            notes.append(
                f"{divided:,} {of_split} an answer that no window of prepare.longest ({options.longest}) tokens "
                "holds whole, and count as questions without an answer"
            )
    _write_test(out, parts["test"])
    facts = QuestionFacts(
        tokenizer=tokenizer.to_str(),
        vocabulary=tokenizer.get_vocab_size(),
        cut=cut,
        counts={split: len(own) for split, own in parts.items()},
        unanswerable={split: sum(not each.answers for each in own) for split, own in parts.items()},
    )
    return Manifest(
        task="question_answering",
        splits=written,
        rejected=rejected,
        ignored=found.ignored,
        facts=facts.model_dump(mode="json"),
        drawn=drawn,
        note="; ".join(filter(None, notes)),
    )


def _sorted(rejected: Sequence[RejectedFile]) -> list[RejectedFile]:
    return sorted(rejected, key=lambda each: each.file)


def _divided(
    raw: Path,
    given: Mapping[str, Sequence[Question]],
    options: QuestionPrepareParams,
    key: Callable[[str], str],
) -> tuple[dict[str, list[Question]], str]:
    """Draw the splits that are missing from train, or, with `resplit`, test and val from all questions.

    Whole articles are drawn if there are enough of them, and else whole contexts. Returns the splits, and what was
    drawn for testing.
    """
    parts = groups.given(raw, given, "questions")
    if options.resplit:
        parts = {"train": [each for own in parts.values() for each in own]}
    missing = [split for split in ("test", "val") if split not in parts]
    pool, drawn = len(parts.get("train", [])), ""
    for number, split in enumerate(missing):
        keep, share = len(missing) - number, options.test_share if split == "test" else options.val_share
        own = parts.get("train", [])
        names = {"": [each.at for each in own]}
        article = {each.at: each.title for each in own if each.title}
        context = {each.at: key(each.context) for each in own}
        draw = (share, keep, options.seed, options.resplit)
        chosen = None
        if len(own) > keep:
            chosen = article and groups.draw(names, article, *draw)
            chosen = chosen or groups.draw(names, context, *draw)
        if not chosen:
            raise PedigreeError(
                f"{raw}: the contexts of {pool:,} questions for training are too few or too unequal to draw "
                f"{split} from them: add contexts, or a file {split}.json"
            )
        parts[split] = [each for each in own if each.at in chosen]
        parts["train"] = [each for each in own if each.at not in chosen]
        if split == "test":
            drawn = f"{len(chosen):,} of {pool:,} questions, with all of their contexts"
    return parts, drawn


def _write(out: Path, split: str, own: Sequence[Question], windows: Windows) -> tuple[Part, int, int]:
    """Write a split; return its record in the manifest, and how many questions are cut and how many answers are.

    An answer that no window has whole counts as none in each.
    """
    names = "".join(f"{each.at}\n" for each in own)
    (out / f"{split}.files.txt").write_text(names, encoding="utf-8", newline="\n")
    cut, divided, progress = 0, 0, Progress(log)
    dense = {name: arrays.Writer(out / f"{split}.{name}.npy", np.int64) for name in (FIRST, START, END, QUESTION)}
    with (
        ragged.Writer(out / f"{split}.{TOKENS}", np.int32) as ids,
        dense[FIRST],
        dense[START],
        dense[END],
        dense[QUESTION],
    ):
        for number, each in enumerate(own):
            asked = windows.of(each.question, each.context)
            cut += asked.cut
            whole = not each.answers
            for window in asked.windows:
                ids.append(np.array(window.ids, np.int32))
                start, end = window.span(_place(each.commonest)) if each.answers else (0, 0)
                whole |= start > 0
                for name, value in ((FIRST, window.first), (START, start), (END, end), (QUESTION, number)):
                    dense[name].append(np.array([value]))
            divided += not whole
            progress.say(f"{split}: {number + 1:,} of {len(own):,} questions became tokens")
    return Part(samples=ids.rows, sha256=arrays.joint_sha256(ids, *dense.values())), cut, divided


def _place(answer: Answer) -> tuple[int, int]:
    return answer.start, answer.start + len(answer.text)


def _write_test(out: Path, own: Sequence[Question]) -> None:
    with (out / "test.questions.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for each in own:
            file.write(f"{json.dumps([each.title, each.question, each.context, each.answers])}\n")


def load_split(prepared: Path, split: str) -> Columns:
    """Return the windows: token, int32 with rows of T tokens each, and int64 (N,) tensors, on memory-mapped files.

    `first` is the number of the question's tokens with the special ones around it, `start` and `end` the positions
    of the answer's first and last token, both 0 if the window has no answer, and `question` the question's place in
    the split, from 0.

    Raises:
        PedigreeError: a file is missing or damaged.
    """
    token = ragged.load(prepared / f"{split}.{TOKENS}")
    dense = {name: arrays.load(prepared / f"{split}.{name}.npy") for name in (FIRST, START, END, QUESTION)}
    return Columns(dense, {TOKENS: token}, token.shapes[:, 0])


def questions_of_test(prepared: Path) -> list[Question]:
    """Return the test questions as they were read.

    Raises:
        PedigreeError: their file is missing.
    """
    path = prepared / "test.questions.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        raise PedigreeError(f"{path} is missing: run prepare again") from None
    found = []
    for at, line in zip(ingest.file_names(prepared, "test"), lines, strict=True):
        title, question, context, answers = json.loads(line)
        found.append(Question(at, title, question, context, tuple(Answer(*each) for each in answers)))
    return found
