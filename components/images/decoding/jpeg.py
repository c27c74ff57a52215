"""Finds damage inside JPEG data: libjpeg only warns of it, and Pillow does not pass its warnings on.

The codes of JPEG have various lengths, so that after damage the decoder usually ends before or after the data do.
Of a single baseline scan both are seen by what the decoder reads, without a second decoding. Of several scans, as
in progressive JPEG, libjpeg decodes the codes once more, without making pixels of them.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from PIL import Image

END_MARKER = re.compile(rb"\xff\xd9")  # found faster than by bytes.find, as there are many 255
MARKER = re.compile(rb"(?<!\xff)\xff++[^\x00\xff]")  # from the first of a run of 255, or each would be tried anew
START, END, SCAN, TEMPORARY, COMMENT = 0xD8, 0xD9, 0xDA, 0x01, 0xFE
APPLICATION, RESTARTS = range(0xE0, 0xF0), range(0xD0, 0xD8)
BASELINE = (0xC0, 0xC1)
PROGRESSIVE = 0xC2
OTHER_FRAMES = (PROGRESSIVE, 0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
ONES = b"\xff\x00"
PADDING = ONES * 8
"""libjpeg reads up to 8 bytes ahead. Ones are no code, and the decoder takes 34 of them to get over a block."""
SPARE = 16
"""Bytes after the picture that are accepted: some cameras write a few too many."""
MOST_INTERVALS = 10_000
"""Intervals of a file that are checked, which takes about 0.1 s.

A marker after each row of blocks makes as many in 64 megapixels; a marker after each block makes more in one.
"""
UNITS = re.compile(rb"\xff\x00|[^\xff]")
"""Bytes of compressed data, of which 255 has a zero after it."""


class SingleScan(io.BytesIO):
    """A JPEG of one baseline scan without its end marker.

    Reading pauses shortly before the end, so that whoever never reads on has not needed all data. A decoder that
    needs more data than there are finds the file truncated; at an end marker, libjpeg would fill the rest of the
    picture with grey.
    """

    def __init__(self, data: bytes, start: int, end: int) -> None:
        """Keep the bytes up to `end`, where the compressed data that begin at `start` end."""
        body = data[:end].rstrip(b"\xff")  # fill bytes may precede a marker
        super().__init__(body + PADDING)
        self._pause = max(start, len(body) - SPARE)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as a file does, but not across the pause."""
        left = self._pause - self.tell()
        if left > 0:
            size = left if size is None or size < 0 else min(size, left)
        return super().read(size)

    @property
    def needed(self) -> bool:
        """Whether something was read after the pause."""
        return self.tell() > self._pause


def single_scan(data: bytes) -> SingleScan | None:
    """Return a JPEG file's bytes as a `SingleScan`, or None if they are no baseline JPEG of one scan with an end.

    Arithmetic coding may leave out zeros at the end. A damaged header is left to the decoder.
    """
    bands = 0
    for marker, body, position in _segments(data, 2):
        if marker == END or marker in OTHER_FRAMES:
            return None
        if marker in BASELINE:
            bands = data[body + 5] if body + 5 < len(data) else 0
        elif marker == SCAN:
            # In the compressed data a zero follows each 255 (ITU-T T.81, B.1.1.5), so this marker is the end.
            end = END_MARKER.search(data, position) if data[body] == bands else None
            return SingleScan(data, position, end.start()) if end else None
    return None


def _segments(data: bytes, position: int) -> Iterator[tuple[int, int, int]]:
    """Yield each marker from a position on, where what follows its length begins, and where that ends."""
    while data[position : position + 1] == b"\xff" and position + 4 < len(data):
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in (START, TEMPORARY):  # these have no length
            position += 2
        else:
            body = position + 4
            position += 2 + int.from_bytes(data[position + 2 : body], "big")
            yield marker, body, position


@dataclass(frozen=True)
class _Interval:
    """Compressed data that end with a marker: a scan, or the part of one up to a restart marker."""

    start: int
    end: int
    following: int
    """Where the next compressed data begin; the markers and segments before them belong to those."""


def several_scans_fit(data: bytes) -> bool:
    """Return whether each scan of a JPEG file of several scans needs its data, and no more.

    Restart markers divide scans into intervals, of which the first 10,000 (`MOST_INTERVALS`) are checked.
    True also for files that have one baseline scan, are coded arithmetically, or have a damaged header or no end.
    """
    head = _head(data)
    if head is None:
        return True
    start, tables = head
    try:
        decoder = _Decoder(tables)
        return all(_fits(decoder, data, interval) for interval in islice(_intervals(data, start), MOST_INTERVALS))
    except Exception:  # damaged files cause all kinds of exceptions, which decoding the pixels will cause again
        return True


def _head(data: bytes) -> tuple[int, bytes] | None:
    """Return where the compressed data begin and what is before, or None if the file is of no concern.

    It is without metadata, in which Pillow would look for a second picture.
    """
    frame: tuple[int, int] | None = None
    parts = [data[:2]]
    for marker, body, end in _segments(data, 2):
        if marker == END or (marker in OTHER_FRAMES and marker != PROGRESSIVE):
            return None
        if marker in BASELINE or marker == PROGRESSIVE:
            frame = (marker, data[body + 5] if body + 5 < len(data) else 0)
        if marker not in (*APPLICATION, COMMENT):
            parts.append(data[body - 4 : end])
        if marker == SCAN:
            several = frame is not None and (frame[0] == PROGRESSIVE or data[body] != frame[1])
            return (end, b"".join(parts)) if several else None
    return None


def _intervals(data: bytes, start: int) -> Iterator[_Interval]:
    """Yield the intervals of compressed data, of which the first begins at `start`."""
    while marker := MARKER.search(data, start):
        start_of_this, start = start, marker.end()
        if data[start - 1] not in RESTARTS:
            segments = ((kind, end) for kind, _, end in _segments(data, marker.start()) if kind in (SCAN, END))
            kind, start = next(segments, (END, 0))
            if kind == END:
                yield _Interval(start_of_this, marker.start(), marker.start())
                return
        yield _Interval(start_of_this, marker.start(), start)


def _fits(decoder: "_Decoder", data: bytes, interval: _Interval) -> bool:
    """Give the decoder an interval; return whether it was decoding shortly before the end, and not after it."""
    short = interval.end - interval.start <= SPARE + 2
    near = interval.start if short else interval.end - SPARE - 2
    near -= not short and data[near - 1] == 0xFF  # the zero after it belongs to it
    first, second, *rest = [*UNITS.findall(data, near, interval.end), b"", b""]
    needed = decoder.wants(data[interval.start : near], first, second) or short
    decoder.wants(b"".join(rest), PADDING)
    enough = not decoder.wants(ONES, ONES)
    decoder.wants(data[interval.end : interval.following])
    return needed and enough


class _Decoder:
    """libjpeg's decoder, without its last step, as the picture never ends.

    It reads ahead up to 8 bytes, and leaves them as long as there are fewer. While it looks for a marker, it leaves
    nothing, as it skips whatever comes before. At a marker inside a picture it would go on with zeros.
    """

    def __init__(self, head: bytes) -> None:
        """Give it all that is before the compressed data."""
        with Image.open(io.BytesIO(head), formats=["JPEG"]) as image:
            image.draft(None, (1, 1))  # small pixels, which are never filled
            image.load_prepare()
            ((kind, extents, _, arguments),) = image.tile
            # As PIL.ImageFile.Parser does, which gives up on JPEG.
            self._decoder: Any = Image._getdecoder(image.mode, kind, arguments, image.decoderconfig)
            self._decoder.setimage(image.im, extents)
        self._left = b""
        self.wants(head)

    def wants(self, *pieces: bytes) -> bool:
        """Give it data piece by piece; return whether it left bytes after one of them, as it wants more."""
        left = False
        for piece in pieces:
            data = self._left + piece
            consumed, error = self._decoder.decode(data)
            if consumed < 0:
                raise ValueError(f"libjpeg's error {error}")
            self._left = data[consumed:]
            left |= bool(self._left)
        return left
