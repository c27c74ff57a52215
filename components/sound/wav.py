"""Wav files that players play although their frame is wrong -> wav files that libsndfile reads whole.

The layout is that of Microsoft and IBM, "Multimedia Programming Interface and Data Specifications 1.0" (1991):
`RIFF`, a size, `WAVE`, and then chunks: an identifier of four bytes, a size, and content padded to an even length.
In `RF64` the chunk `ds64` has the size of the sound (EBU Tech 3306, 2009).
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

KNOWN = frozenset(
    (
        *(
            b"data",
            b"fmt ",
            b"fact",
            b"LIST",
            b"id3 ",
            b"ID3 ",
            b"bext",
            b"iXML",
            b"cue ",
            b"smpl",
            b"inst",
            b"PEAK",
        ),
        *(b"JUNK", b"junk", b"FLLR", b"PAD ", b"cart", b"plst", b"_PMX", b"axml", b"chna", b"DISP", b"acid"),
    )
)
"""Identifiers of chunks that programs write; other identifiers count where none of these can be meant."""

_NOT_ZERO = re.compile(rb"[^\0]")


class _Chunk(NamedTuple):
    name: bytes
    begin: int
    """Position of its content."""
    size: int
    """Number of bytes of its content, as its header says."""
    regular: bool
    """Whether it begins where the one before it says."""

    @property
    def end(self) -> int:
        return self.begin + self.size


def repaired(data: bytes) -> bytes:
    """Return the bytes of a sound file without what keeps libsndfile from its sound; most stay as they are.

    It removes ID3 tags before the file or between its chunks (https://id3.org/id3v2.3.0, section 3.1), pads odd
    chunks, and corrects a size of zero or of a first part, which a recorder leaves that ends too early.
    """
    start = _after_tags(data, 0)
    if data[start : start + 4] == b"fLaC":
        return data[start:]
    needed, odd = dict[bytes, bytes](), start > 0
    for chunk in _chunks(data, start + 12) if _is_wav(data, start) else ():
        odd = odd or not chunk.regular
        if chunk.name == b"data":
            size = chunk.size
            if b"ds64" in needed and size == 2**32 - 1:
                size = int.from_bytes(needed.pop(b"ds64")[16:24], "little")
            unfinished = _goes_on(data, chunk.begin, size)
            if b"fmt " not in needed or not (odd or unfinished):
                return data
            if unfinished:
                needed.pop(b"fact", None)  # it counts no more than the size does
                size = len(data) - chunk.begin
            return _wav(needed, data[chunk.begin : chunk.begin + size], size)
        if chunk.name in (b"fmt ", b"fact", b"ds64"):
            needed[chunk.name] = data[chunk.begin - 8 : chunk.end]
    return data


def fault(data: bytes) -> str:
    """Return which chunk of a wav file hides its sound, or an empty string if that is not what is wrong."""
    last = None
    start = _after_tags(data, 0)
    for last in _chunks(data, start + 12) if _is_wav(data, start) else ():
        if last.name == b"data":
            return ""
        if last.end > len(data):
            there = len(data) - last.begin
            return f"its chunk {_printed(last)} says that it has {last.size:,} bytes, and {there:,} are there"
    return f"no chunk with the sound follows its chunk {_printed(last)}" if last else ""


def _printed(chunk: _Chunk) -> str:
    return f"{chunk.name.decode('latin-1')!r} at byte {chunk.begin - 8:,}"


def _is_wav(data: bytes, at: int) -> bool:
    return data[at : at + 4] in (b"RIFF", b"RF64") and data[at + 8 : at + 12] == b"WAVE"


def _after_tags(data: bytes, at: int) -> int:
    """Return the position after the ID3v2 tags that begin at `at`, if there are any."""
    while header := re.compile(rb"ID3[\x02-\x04].(.)([\x00-\x7f]{4})", re.DOTALL).match(data, at):
        size = 0
        for seven_bits in header[2]:
            size = size << 7 | seven_bits
        footer = 10 if header[1][0] & 0x10 else 0
        at = header.end() + size + footer
    return at


def _chunks(data: bytes, at: int) -> Iterator[_Chunk]:
    """Yield the chunks from position `at`; the last one may end after the file does."""
    regular = True
    while True:
        tag = _after_tags(data, at)
        if data[tag : tag + 8] == bytes(8):  # room that a recorder reserved, perhaps megabytes of it
            sound = _NOT_ZERO.search(data, tag)
            tag = sound.start() if sound else len(data)
        if len(data) < tag + 8:
            return
        size = struct.unpack_from("<I", data, tag + 4)[0]
        yield (chunk := _Chunk(data[tag : tag + 4], tag + 8, size, regular and tag == at))
        regular = not size % 2 or not _lacks_padding(data, chunk.end)
        at = chunk.end + (size % 2 if regular else 0)


def _lacks_padding(data: bytes, end: int) -> bool:
    """Return whether the next chunk begins right after the end of an odd chunk."""
    next_one, one_later = data[end : end + 4], data[end + 1 : end + 5]
    return next_one in KNOWN or (one_later not in KNOWN and _printable(next_one) and not _printable(one_later))


def _printable(name: bytes) -> bool:
    return bool(re.fullmatch(rb"[ -~]{4}", name))


def _goes_on(data: bytes, begin: int, size: int) -> bool:
    """Return whether at least as much sound as the header counts follows where the sound ends by the header.

    Less may be what programs append that are unaware of chunks, such as a tag of 128 bytes.
    """
    end = begin + size
    end += bool(size % 2) and not _lacks_padding(data, end)
    if len(data) - end < max(size, 1):
        return False
    first = next(_chunks(data, end), None)
    is_chunk = first is not None and _printable(first.name) and first.end <= len(data)
    return not is_chunk and bool(data[end:].lstrip(b"\0"))


def _wav(chunks: dict[bytes, bytes], sound: bytes, size: int) -> bytes:
    """Return a wav file of some whole chunks and the sound, of which `size` bytes are said to be there."""
    body = b"WAVE" + b"".join(each + b"\0" * (len(each) % 2) for each in chunks.values())
    size = min(size, 2**32 - 1)
    total = min(len(body) + 8 + size, 2**32 - 1)
    return b"RIFF" + struct.pack("<I", total) + body + b"data" + struct.pack("<I", size) + sound
