"""Folders of image files -> uint8 arrays, labels and file names, and the facts the network needs of them."""

import hashlib
import re
import statistics
import warnings
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from components import arrays
from components.contracts import Batch, Manifest, Refusal, Split
from components.errors import PedigreeError
from components.files import write_json
from components.vision import folders
from components.vision.decode import Unusable, decode, peek
from components.vision.params import VisionParams, VisionPrepareParams
from components.vision.rows import Part, file_names, filler, writing

__all__ = ["Unusable", "VisionFacts", "decode", "file_names", "load_split", "prepare"]

ORDER = ("test", "val", "train")
"""Of writing. What an earlier split holds is refused in a later one, so that test never loses an image."""
PEEKED = 1000
"""Training files that decide `auto`, at most."""
SMALLEST, LARGEST = 28, 224
"""Sides in pixels between which `size: auto` chooses."""


class VisionFacts(BaseModel):
    """What the network and its callers need to know of the images."""

    model_config = ConfigDict(frozen=True)

    classes: list[str] = Field(description="Sorted; a label is a place in this list")
    channels: int
    size: int = Field(description="Side in pixels")
    mean: list[float] = Field(description="Of each channel over the training part, pixels scaled to 0..1")
    std: list[float] = Field(description="Likewise; at least one grey level, so that it can be divided by")
    counts: dict[str, dict[str, int]] = Field(description="Images by split and class")


def prepare(raw: Path, out: Path, params: VisionParams) -> Manifest:
    """Write each split's images (N, C, H, W), labels (N,) and file names into the empty folder `out`.

    Without raw/val a part of each class of train becomes val. Memory holds a few images, the names of one
    class, and some 150 bytes for each test and val file.

    Raises:
        PedigreeError: the folders do not fit together, or too many files cannot be used.
    """
    survey = folders.survey(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's name no file; what matters of them becomes a refusal
        channels, size = _form(raw, survey, params.prepare)
        parts, refused = _write(raw, out, survey, (channels, size, size), params.prepare)
    _check_refused(raw, refused, survey.total, params.prepare.max_refused, out.parent / "refused.json")
    _check_classes(raw, survey, parts)
    splits = {
        name: Split(samples=part.images.rows, sha256=arrays.joint_sha256(part.images, part.labels))
        for name, part in parts.items()
    }
    facts = _facts(parts, survey.classes, channels, size)
    return Manifest(task="vision", splits=splits, refused=refused, facts=facts.model_dump())


def load_split(prepared: Path, split: str) -> Batch:
    """Return image, uint8 (N, C, H, W), and label, int64 (N,), on memory-mapped files.

    Raises:
        PedigreeError: a file is missing or damaged.
    """
    return {
        "image": arrays.load(prepared / f"{split}.images.npy"),
        "label": arrays.load(prepared / f"{split}.labels.npy"),
    }


def _form(raw: Path, survey: folders.Survey, options: VisionPrepareParams) -> tuple[int, int]:
    """Return channels and size; where they are auto, from training files spread evenly over all classes."""
    if options.channels != "auto" and options.size != "auto":
        return options.channels, options.size
    greys, sides = [], []
    files = chain.from_iterable(folders.files(raw, "train", name) for name in survey.classes)
    for file in islice(files, 0, None, -(-sum(survey.counts["train"].values()) // PEEKED)):
        with suppress(Unusable, OSError):  # the refusals will tell
            grey, side = peek(raw / file, options.max_megapixels)
            greys.append(grey)
            sides.append(side)
    side = statistics.median_low(sides or [SMALLEST])
    size = min(max(side, SMALLEST), LARGEST) if options.size == "auto" else options.size
    if options.channels == "auto":
        return 1 if all(greys) else 3, size
    return options.channels, size


def _write(
    raw: Path, out: Path, survey: folders.Survey, shape: tuple[int, int, int], options: VisionPrepareParams
) -> tuple[dict[str, Part], list[Refusal]]:
    """Write all splits; return them by name, and the refusals sorted by file."""
    parts: dict[str, Part] = {}
    spent: dict[str, int] = {}  # of each class of train, the files that went to val
    with filler(raw, out, shape, options.max_megapixels, survey.total) as rows:
        for split in ORDER:
            with writing(out, split, shape) as part:
                for label, name in enumerate(survey.classes):
                    files, wanted = _candidates(raw, split, name, options, spent)
                    spent[name] = rows.fill(part, label, files, wanted)
            parts[split] = part
    for file in survey.strays:
        rows.refuse(file, "outside the class folders")
    return parts, sorted(rows.refused, key=lambda refusal: refusal.file)


def _candidates(
    raw: Path, split: str, name: str, options: VisionPrepareParams, spent: dict[str, int]
) -> tuple[list[str], int]:
    """Return the files that a class has for a split, and how many of them the split wants."""
    if split == "test" or (raw / "val").is_dir():
        files = folders.files(raw, split, name)
        return files, len(files)
    # In the order of a hash, so that files added later hardly move others between train and val.
    files = sorted(folders.files(raw, "train", name), key=lambda file: _hash(f"{options.seed} {file}"))
    if split == "val":
        return files, max(1, round(options.val_share * len(files)))
    rest = sorted(files[spent[name] :])
    return rest, len(rest)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def _check_refused(raw: Path, refused: list[Refusal], total: int, limit: float, path: Path) -> None:
    if len(refused) <= limit * total:
        path.unlink(missing_ok=True)  # of an earlier attempt
        return
    write_json(path, [refusal.model_dump() for refusal in refused])
    kinds: dict[str, list[Refusal]] = {}
    for refusal in refused:  # "unreadable: …" and "duplicate of the test image …" are one kind each
        kinds.setdefault(re.split(": | image ", refusal.reason)[0], []).append(refusal)
    common = sorted(kinds.values(), key=len, reverse=True)[:5]
    lines = [f"  {len(kind):,} like {kind[0].file}: {kind[0].reason}" for kind in common]
    raise PedigreeError(
        f"{raw}: {len(refused):,} of {total:,} files cannot be used, more than prepare.max_refused {limit:g}:\n"
        + "\n".join(lines)
        + f"\nmend or remove them (the whole list is in {path}), or raise prepare.max_refused"
    )


def _check_classes(raw: Path, survey: folders.Survey, parts: dict[str, Part]) -> None:
    for split, part in parts.items():
        given = survey.counts.get(split, survey.counts["train"])
        lost = [name for label, name in enumerate(survey.classes) if name in given and not part.counts[label]]
        if lost:
            raise PedigreeError(
                f"{raw}: {split} has no image left of {folders.listed(lost)}: all were refused or went to "
                "another split: add images, or remove the class"
            )


def _facts(parts: dict[str, Part], classes: list[str], channels: int, size: int) -> VisionFacts:
    train = parts["train"]
    pixels = train.images.rows * size * size
    mean, std = [], []
    for total, squares in train.moments.T.tolist():  # Python's integers: exact, however many there are
        mean.append(total / pixels / 255)
        variance = (pixels * squares - total * total) / pixels**2
        std.append(max(variance**0.5, 1.0) / 255)
    counts = {
        split: {name: part.counts[label] for label, name in enumerate(classes)} for split, part in parts.items()
    }
    return VisionFacts(classes=classes, channels=channels, size=size, mean=mean, std=std, counts=counts)
