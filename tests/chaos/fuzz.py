"""Valid raw files, mutated from a seed and read by the product's code in watched processes."""

import io
import random
import re
import struct
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from components import models, params, tasks
from components.contracts import Manifest, Predict, Rejected, Row
from components.datasets import ingest
from components.datasets.ingest import Unusable
from components.errors import PedigreeError
from components.images.decoding import decode as images
from components.sound import decode as sounds
from components.tasks.language_model.prepare import prepare as prepare_text
from tests.chaos.results import Result
from tests.chaos.watched import Watched, watched
from tests.conftest import MODEL_OF, PARAMS

LIMIT = 10.0
"""Seconds that a file may take."""
MEMORY = 2**30
"""Bytes by which a file may raise memory: four copies of 64 megapixels of RGBA, one each for decoding, rotation,
composition onto white and conversion to grey."""
KINDS = ("image", "image", "image", "audio", "audio", "text", "yaml")
"""Kinds of the files, in turn."""
MEGAPIXELS, SECONDS = 64.0, 30.0
"""As in params.yaml."""
CLIP = 0.1
"""Length of a prepared clip in seconds."""


@lru_cache
def genuine(kind: str) -> list[bytes]:
    """Return small valid files of a kind, at least one of each supported format."""
    return {"image": _images, "audio": _sounds, "text": _texts, "yaml": _yaml}[kind]()


def _images() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 4), np.uint8)
    pixels[4:12] = pixels[4:5]  # something to compress
    colours = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    wide = Image.fromarray((np.arange(480).reshape(24, 20) * 130).astype(np.uint16))
    more: dict[str, Any] = {"save_all": True, "append_images": [colours.convert("P").rotate(90)]}
    variants: list[tuple[Image.Image, str, dict[str, Any]]] = [
        *((colours.convert(mode), "PNG", {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
        (colours, "PNG", more),
        (wide, "PNG", {}),
        *((colours.convert(mode), "JPEG", {"exif": exif}) for mode in ("L", "RGB", "CMYK")),
        (colours.convert("RGB"), "JPEG", {"progressive": True}),
        *((colours.convert(mode), "BMP", {}) for mode in ("1", "L", "P", "RGB", "RGBA")),
        (colours.convert("P"), "GIF", {"transparency": 3}),
        (colours.convert("P"), "GIF", more),
        *((colours, "TIFF", {"compression": how}) for how in ("raw", "tiff_lzw", "tiff_deflate", "packbits")),
        (colours.convert("RGB"), "TIFF", {"compression": "jpeg"}),
        (colours.convert("1"), "TIFF", {"compression": "group4"}),
        (colours.convert("CMYK"), "TIFF", more),
        (wide, "TIFF", {}),
        (colours, "WEBP", {"lossless": True}),
        (colours.convert("RGB"), "WEBP", {"exif": exif}),
        (colours, "WEBP", more),
        *((colours.convert(mode), "PPM", {}) for mode in ("1", "L", "RGB")),
        (wide, "PPM", {}),
    ]
    return [_saved(*each) for each in variants]


def _saved(image: Image.Image, name: str, options: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def _sounds() -> list[bytes]:
    wave = 0.4 * np.sin(np.arange(3000) / 7)
    formats = [
        *(("WAV", how) for how in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")),
        *(("WAV", how) for how in ("IMA_ADPCM", "MS_ADPCM", "GSM610")),
        *(("WAVEX", "PCM_16"), ("RF64", "PCM_16"), ("FLAC", "PCM_S8"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24")),
    ]
    variants = []
    for name, how in formats:
        for channels in (1,) if how == "GSM610" else (1, 2):
            file = io.BytesIO()
            soundfile.write(file, np.stack([wave] * channels, 1), 8000, format=name, subtype=how)
            variants.append(file.getvalue())
    return variants


def _texts() -> list[bytes]:
    lines = "The river runs on, and the field is quiet.\n" * 40
    foreign = "Über die Brücke, šest žlutých koní; 川は流れる。 🙂 ̈a\n" * 40
    return [text.encode() for text in (lines, foreign, lines.replace("\n", "\r\n"), "\ufeff" + lines + foreign)]


def _yaml() -> list[bytes]:
    valid = PARAMS.read_bytes()
    # Anchors that double with each line, a section inside itself, and brackets nested too deeply.
    doubled = "".join(f"a{i + 1}: &a{i + 1} {{b: *a{i}, c: *a{i}}}\n" for i in range(40))
    bombs = (
        "a0: &a0 {b: 1}\n" + doubled,
        "models: &a\n  b: *a\n",
        f"models: {'[' * 1000}",
        f"models: {'{a: ' * 1000}",
    )
    return [*[valid] * 20, *(bomb.encode() for bomb in bombs)]


Mutation = Callable[[bytearray, random.Random, bytes], bytearray]


def _flip(data: bytearray, rng: random.Random, other: bytes) -> bytearray:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _cut(data: bytearray, rng: random.Random, other: bytes) -> bytearray:
    return data[: rng.randrange(len(data))]


def _remove(data: bytearray, rng: random.Random, other: bytes) -> bytearray:
    first, last = _stretch(data, rng)
    return data[:first] + data[last:]


def _repeat(data: bytearray, rng: random.Random, other: bytes) -> bytearray:
    first, last = _stretch(data, rng)
    return data[:last] + data[first:last] * rng.choice((1, 2, 50)) + data[last:]


def _swap(data: bytearray, rng: random.Random, other: bytes) -> bytearray:
    a, b, c = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _number(data: bytearray, rng: random.Random, other: bytes) -> bytearray:
    """Set a possible length or size, mostly in the header, to a huge, zero or negative one."""
    width = rng.choice(("H", "I", "Q"))
    size = struct.calcsize(width)
    value = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 2 ** (8 * size - 1), 2 ** (8 * size - 1) - 1, 2 ** (8 * size) - 1))
    reach = rng.choice((64, 256, len(data)))
    offset = rng.randrange(max(1, min(reach, len(data) - size)))
    data[offset : offset + size] = struct.pack(rng.choice("<>") + width, value)
    return data


def _splice(data: bytearray, rng: random.Random, other: bytes) -> bytearray:
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def _noise(data: bytearray, rng: random.Random, other: bytes) -> bytearray:
    first, last = _stretch(data, rng)
    data[first:last] = rng.randbytes(rng.randrange(64))
    return data


def _word(data: bytearray, rng: random.Random, other: bytes) -> bytearray:
    """Replace a number or a word by another value."""
    places = [match.span() for match in re.finditer(rb"(?<= )[\w.-]+", data)]
    first, last = rng.choice(places or [(0, 0)])
    data[first:last] = rng.choice(
        (b"0", b"1", b"7", b"0.5", b"-1", b"1e999", b".nan", b"~", b"*a", b"2001-99-99", b"0o9")
    )
    return data


def _stretch(data: bytearray, rng: random.Random) -> tuple[int, int]:
    first = rng.randrange(len(data))
    return first, min(len(data), first + rng.choice((1, 4, 16, 200)))


MUTATIONS: tuple[Mutation, ...] = (_flip, _flip, _cut, _remove, _repeat, _swap, _number, _number, _splice, _noise)


def mutated(kind: str, seed: int, number: int) -> bytes:
    """Return the file with a number: a valid one of its kind after one to four mutations."""
    rng = random.Random(f"{seed} {number}")
    data, other = bytearray(rng.choice(genuine(kind))), rng.choice(genuine(kind))
    known = (*MUTATIONS, *[_word] * len(MUTATIONS)) if kind == "yaml" else MUTATIONS
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = rng.choice(known)(data, rng, other) if data else data
    return _checked(data) if kind == "image" and rng.random() < 0.5 else bytes(data)


def _checked(data: bytearray) -> bytes:
    """Correct a PNG's checksums, as readers stop at a wrong one."""
    offset = 8
    while data.startswith(b"\x89PNG") and offset + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        end = offset + 8 + length
        if end + 4 > len(data):
            break
        struct.pack_into(">I", data, end, zlib.crc32(data[offset + 4 : end]))
        offset = end + 4
    return bytes(data)


def _image(folder: Path, data: bytes, rng: random.Random) -> None:
    (folder / "file").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as preparation does
        images.peek(folder / "file", MEGAPIXELS)
        content = ingest.contents(folder, "file", "an image")
        images.decode(content, rng.choice((28, 224)), rng.choice((1, 3)), MEGAPIXELS)
        _ask("image_classification", {"image": content})


def _sound(folder: Path, data: bytes, rng: random.Random) -> None:
    (folder / "file").write_bytes(data)
    content = ingest.contents(folder, "file", "audio")
    sounds.decode(content, rng.choice((8000, 16000)), CLIP, SECONDS, max_clipped=1)
    _ask("spoken_words", {"audio": content})


FACTS: dict[str, dict[str, Any]] = {
    "image_classification": {
        "classes": ["a", "b"],
        "channels": 3,
        "size": 28,
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
        "counts": {},
    },
    "spoken_words": {
        "classes": ["a", "b"],
        "rate": 8000,
        "seconds": CLIP,
        "speaker": "",
        "counts": {},
        "speakers": {},
    },
}


def _ask(name: str, row: Row) -> None:
    """Send a row to a registered model of a task.

    Raises:
        Unusable: the row is rejected.
    """
    (answer,) = _served(name)([row], {})
    if isinstance(answer, Rejected):
        raise Unusable(answer.reason)


@lru_cache
def _served(name: str) -> Predict:
    """Return the predict function of a served model of a task, with random weights."""
    task, values = tasks.load(name), _values(name, "train.augment.time_mask=0" if name == "spoken_words" else "")
    manifest = Manifest(task=name, splits={}, rejected=[], facts=FACTS[name])
    return task.load_predict(task.build_model(values, manifest), manifest, values)


def _values(name: str, *settings: str) -> Any:
    """Return a task's parameters."""
    return models.load(PARAMS.parent, MODEL_OF[name], settings=filter(None, settings)).params


def _text(folder: Path, data: bytes, rng: random.Random) -> None:
    (folder / "text.txt").write_bytes(data)
    (folder / "out").mkdir()
    tokenizer = f"prepare.tokenizer.name={rng.choice(('char', 'word', 'bpe'))}"
    prepare_text(folder, folder / "out", _values("language_model", tokenizer, "prepare.tokenizer.vocabulary=300"))


def _parameters(folder: Path, data: bytes, rng: random.Random) -> None:
    (folder / params.FILE).write_bytes(data)
    for name in models.names(folder):
        models.load(folder, name)


def _folder(kind: str, name: str, splits: tuple[str, ...], folder: Path, seed: int) -> None:
    """Prepare a folder of mostly corrupt files, and check that each becomes a row or a rejection."""
    rng, raw, out = random.Random(seed), folder / "raw", folder / "out"
    out.mkdir()
    for part in [f"{split}{label}" for split in splits for label in ("a", "b")]:
        (raw / part).mkdir(parents=True)
        for number in range(12):
            intact, valid = number < 4, genuine(kind)
            content = rng.choice(valid) if intact else mutated(kind, seed, rng.randrange(10**9))
            (raw / part / f"{rng.randrange(10**9)}_{number}.bin").write_bytes(content)
    values = _values(name, "prepare.max_rejected=0.99", *SETTINGS.get(name, ()))
    manifest = tasks.load(name).prepare(raw, out, values)
    rows = sum(split.samples for split in manifest.splits.values())
    assert rows + len(manifest.rejected) == sum(path.is_file() for path in raw.rglob("*")), "a file was lost"


SETTINGS = {"spoken_words": ("prepare.seconds=0.1", "train.augment.time_mask=0")}


def _images_folder(folder: Path, data: bytes, rng: random.Random) -> None:
    _folder("image", "image_classification", ("train/", "test/"), folder, rng.randrange(10**9))


def _sounds_folder(folder: Path, data: bytes, rng: random.Random) -> None:
    _folder("audio", "spoken_words", ("",), folder, rng.randrange(10**9))


READERS = {
    "image": _image,
    "audio": _sound,
    "text": _text,
    "yaml": _parameters,
    "folder of images": _images_folder,
    "folder of sounds": _sounds_folder,
}
FOLDERS = [kind for kind in READERS if kind.startswith("folder")]


def read(item: tuple[str, int, int]) -> str:
    """Read the file of (kind, seed, number) as the product does; return `read` or the reason of its rejection."""
    kind, seed, number = item
    return read_content(kind, b"" if kind in FOLDERS else mutated(kind, seed, number), f"{seed} {number}")


def read_content(kind: str, data: bytes, seed: str = "") -> str:
    """Read a file's bytes as the product does; return `read` or the reason of their rejection."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            READERS[kind](Path(folder), data, random.Random(seed))
        except (Unusable, PedigreeError) as reason:
            return str(reason)
    return "read"


def bombs() -> dict[str, tuple[str, bytes]]:
    """Return, by name, the kind and bytes of small files that claim to be larger than memory."""
    white = Image.new("L", (1, 1))
    bmp, gif, tiff = (bytearray(_saved(white, name, {})) for name in ("BMP", "GIF", "TIFF"))
    struct.pack_into("<ii", bmp, 18, 100_000, 100_000)
    struct.pack_into("<HH", gif, 6, 65_535, 65_535)
    (entries,) = struct.unpack_from("<I", tiff, 4)
    for offset in range(entries + 2, len(tiff) - 12, 12):
        if struct.unpack_from("<H", tiff, offset)[0] in (256, 257):  # ImageWidth and ImageLength
            struct.pack_into("<HII", tiff, offset + 2, 4, 1, 100_000)
    size = 2 * 8000 * 3600 * 5
    wav = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", size + 36, b"WAVE", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16, b"data", size
    )
    flac = bytearray(genuine("audio")[-1])
    flac[21:26] = bytes([flac[21] & 0xF0 | 15, 255, 255, 255, 254])  # the 36 bits of STREAMINFO that count samples
    return {
        "a png of 8,100 x 8,100, which Pillow itself would take": (
            "image",
            _png(8_100, zlib.compress(bytes(2**24))),
        ),
        "a png of 100,000 x 100,000": ("image", _png(100_000, zlib.compress(bytes(2**24)))),
        "a bmp of 100,000 x 100,000": ("image", bytes(bmp)),
        "a gif of 65,535 x 65,535": ("image", bytes(gif)),
        "a tiff of 100,000 x 100,000": ("image", bytes(tiff)),
        "a ppm of 100,000 x 100,000": ("image", b"P6 100000 100000 255\n" + bytes(100)),
        "a wav of five hours": ("audio", wav + bytes(4000)),
        "a flac of months": ("audio", bytes(flac)),
    }


def _png(side: int, content: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", content), (b"IEND", b""))
    chunks = (struct.pack(">I", len(data)) + name + data + bytes(4) for name, data in parts)
    return _checked(bytearray(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)))


def prepare_bomb(name: str) -> str:
    """Read a bomb as preparation does; return the reason of its rejection."""
    kind, data = bombs()[name]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (Path(folder) / "file").write_bytes(data)
        content = ingest.contents(Path(folder), "file", kind)
        with suppress(Unusable):
            if kind == "image":
                images.peek(Path(folder) / "file", MEGAPIXELS)
        try:
            images.decode(content, 28, 3, MEGAPIXELS) if kind == "image" else sounds.decode(
                content, 8000, 1, SECONDS, 1
            )
        except Unusable as reason:
            return str(reason)
    return "read"


def ask_with_bomb(name: str) -> str:
    """Send a bomb to a served model; return the reason of its rejection."""
    kind, data = bombs()[name]
    try:
        _ask({"image": "image_classification", "audio": "spoken_words"}[kind], {kind: data})
    except Unusable as reason:
        return str(reason)
    return "read"


def inject_files(times: int, seed: int) -> Result:
    """Read a number of corrupt files."""
    items = [(KINDS[number % len(KINDS)], seed, number) for number in range(times)]
    items += [(kind, seed, number) for kind in FOLDERS for number in range(0, times, 250)]
    found: Counter[tuple[str, bool]] = Counter()
    failures: list[str] = []
    slowest, most = 0.0, 0
    for done, each in enumerate(watched(read, items, processes=2, limit=LIMIT), start=1):
        found[each.item[0], each.returned == "read"] += 1
        slowest, most = max(slowest, each.seconds), max(most, each.grown)
        failures += _failures(each)
        if done % 1000 == 0:
            print(f"  {done:,} of {len(items):,}, {len(failures)} failures", flush=True)
    counts = ", ".join(f"{kind} {found[kind, True]:,} read and {found[kind, False]:,} rejected" for kind in READERS)
    summary = (
        f"{counts}; the slowest took {slowest:.1f} s (limit {LIMIT:g}), and the "
        f"largest increase in memory was {most / 2**20:,.0f} MiB (limit {MEMORY / 2**20:,.0f})"
    )
    return Result(times, summary, failures)


def _failures(each: Watched) -> list[str]:
    if each.problem:
        return [f"{each.item}: {each.problem.strip().splitlines()[-1]}"]
    if each.grown > MEMORY or "MemoryError" in each.returned:
        return [f"{each.item}: {each.grown / 2**20:,.0f} MiB of memory, {each.returned}"]
    if not each.returned.strip():
        return [f"{each.item}: rejected without a reason"]
    return []
