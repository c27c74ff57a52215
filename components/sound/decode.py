"""A sound file's bytes -> 16-bit mono samples at a fixed rate, or the reason why the file is unusable.

Preparation and served models call the same functions, so that they see the same samples.
"""

import io
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from math import gcd

import numpy as np
import soundfile  # type: ignore[import-untyped]
from numpy.typing import NDArray

from components.datasets.ingest import Unusable
from components.sound import wav
from components.sound.formats import unread

FORMATS = ("WAV", "WAVEX", "RF64", "FLAC")
SPEECH_FORMATS = (*FORMATS, "MP3", "OGG", "NIST")
"""Formats of recordings of speech: Common Voice has MP3, and corpora of the 1990s NIST's SPHERE."""
SLOWEST, FASTEST = 1000, 192_000
"""Limits of a file's samples per second; the resampler's filter grows with the rate."""
FULL_SCALE = 127 / 128
"""Share of full scale from which a sample counts as clipped; 8-bit files have no finer step."""
SILENT = 0.001
"""Largest deviation from the mean, as a share of full scale, at which a clip counts as silent: -60 dB."""
LOUDEST = 2.0
"""Larger samples are rejected as being on another scale; those between full scale and this are clipped."""
CANCELLED = 0.1
"""Least share of the loudest channel's range, by the number of channels, that their mean has unless they cancel."""
BLOCK = 2**16
"""Number of values decoded at once."""
STREAMED = 0x7FFF_0000
"""Length in a header from which it is a placeholder by a program that could not correct it after streaming."""

Samples = NDArray[np.int16]
Wave = NDArray[np.float32]


def decode(data: bytes, rate: int, seconds: float, max_seconds: float, max_clipped: float) -> Samples:
    """Decode a wav or flac file's bytes into int16 (samples,), mono, of length `rate` times `seconds`.

    Channels are averaged. Decoding takes memory for one channel of `max_seconds`, whatever the header says.

    Raises:
        Unusable: the file has another format, or is damaged, empty, silent, clipped or too long, or its
            channels cancel each other.
    """
    wave, source, clipped = _opened(data, FORMATS, max_seconds)
    clip = convert(wave, source, rate, seconds)
    _check_clipped(clipped, max_clipped)
    return clip


def decode_whole(data: bytes, rate: int, max_seconds: float, max_clipped: float) -> Samples:
    """Decode a recording's bytes into int16 (samples,), mono, with `rate` samples per second and its own length.

    Takes the `SPEECH_FORMATS`, and otherwise works as `decode`.

    Raises:
        Unusable: as `decode` does.
    """
    wave, source, clipped = _opened(data, SPEECH_FORMATS, max_seconds)
    sound = convert(wave, source, rate, len(wave) / source)
    _check_clipped(clipped, max_clipped)
    return sound


def _opened(data: bytes, formats: Sequence[str], max_seconds: float) -> tuple[Wave, int, float]:
    """Return a file's samples, mono, its samples per second, and the share of samples at full scale."""
    if not data:
        raise Unusable("zero bytes")
    try:
        with soundfile.SoundFile(io.BytesIO(wav.repaired(data))) as file:
            _check_header(file, formats, max_seconds)
            wave, clipped = _mono(file)
            if file.format == "OGG" and not _is_ended(data):
                raise Unusable("truncated")
            return wave, file.samplerate, clipped
    except soundfile.LibsndfileError as error:
        reason = wav.fault(data) or error.error_string.strip().rstrip(".")
        raise Unusable(unread(data) if reason == "Format not recognised" else f"unreadable: {reason}") from None


def _is_ended(data: bytes) -> bool:
    """Return whether the last page of an Ogg file is whole and marked as that of its stream (RFC 3533, 6).

    libsndfile reads a truncated one without an error, up to where it ends.
    """
    page = data[data.rfind(b"OggS") :]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    return bool(segments) and bool(page[5] & 4) and len(page) >= 27 + len(segments) + sum(segments)


def _check_clipped(clipped: float, most: float) -> None:
    if clipped > most:
        raise Unusable(f"clipped: {clipped:.0%} of its samples are at full scale, over max_clipped {most:g}")


def seconds_of(data: bytes) -> float:
    """Return the length of a file that `decode` accepts."""
    with soundfile.SoundFile(io.BytesIO(wav.repaired(data))) as file:
        return float(file.frames / file.samplerate)


def convert(wave: Wave, source: int, rate: int, seconds: float) -> Samples:
    """Convert float samples on the scale -1..1 from rate `source` to int16 at `rate`, padded or cut at the end.

    Raises:
        Unusable: there are no samples, one is not finite, they are on another scale, those that are used are
            silent, or the rate is out of range.
    """
    if not SLOWEST <= source <= FASTEST:
        raise Unusable(f"unreadable: {source} samples a second is outside {SLOWEST:,} to {FASTEST:,}")
    if not len(wave):
        raise Unusable("empty: it has no samples")
    if not np.isfinite(wave).all():
        raise Unusable("unreadable: some samples are not finite numbers")
    if (loudest := float(np.abs(wave).max())) > LOUDEST:
        raise Unusable(f"its samples go up to {loudest:g} and belong between -1 and 1")
    if _is_silent(wave):
        raise Unusable("silent")
    if _is_silent(wave[: math.ceil(source * seconds)]):
        raise Unusable(f"silent in its first {seconds:g} seconds")
    length = round(rate * seconds)
    sound = resample(wave.clip(-1, 1), source, rate)[:length]
    fixed = np.zeros(length, np.int16)
    fixed[: len(sound)] = np.clip(np.rint(sound * 32768), -32768, 32767)
    if int(np.abs(fixed.astype(np.int32)).max()) < SILENT * 32768:
        raise Unusable(f"silent in its first {seconds:g} seconds")
    return fixed


def _is_silent(wave: Wave) -> bool:
    return float(np.abs(wave - wave.mean(dtype=np.float64)).max()) < SILENT


def resample(wave: Wave, source: int, rate: int) -> Wave:
    """Resample from `source` to `rate` samples per second; the first sample keeps its time.

    This uses a polyphase filter, a sinc with a Kaiser window. Unlike torchaudio's table of filters, it stays small
    if the rates have no large common divisor (44,101 and 16,000 Hz).
    """
    from scipy.signal import resample_poly

    if source == rate:
        return wave
    divisor = gcd(source, rate)
    up, down = rate // divisor, source // divisor
    # The type stubs lack a filter's taps as the window.
    resampled: Wave = resample_poly(wave, up, down, window=_lowpass(up, down))  # type: ignore[call-overload]
    return resampled


@lru_cache(maxsize=8)
def _lowpass(up: int, down: int) -> Wave:
    """Return SciPy's own filter for `resample_poly`, cached, as SciPy would compute it again for each file."""
    from scipy.signal import firwin

    taps: Wave = firwin(20 * max(up, down) + 1, 1 / max(up, down), window=("kaiser", 5.0)).astype(np.float32)
    return taps


def _check_header(file: soundfile.SoundFile, formats: Sequence[str], max_seconds: float) -> None:
    if file.format not in formats:
        known = "neither wav nor flac" if formats == FORMATS else "none of wav, flac, mp3, ogg and SPHERE"
        raise Unusable(f"{file.format} is {known}")
    if not SLOWEST <= file.samplerate <= FASTEST:
        raise Unusable(f"unreadable: {file.samplerate} samples a second is outside {SLOWEST:,} to {FASTEST:,}")
    if file.frames >= 2**62:  # which soundfile cannot read, as it seeks
        raise Unusable("unreadable: its header does not say how long it is; write it to a file, not into a pipe")
    if file.frames > max_seconds * file.samplerate:
        seconds = file.frames / file.samplerate
        raise Unusable(f"too long: {seconds:.1f} seconds is over max_seconds {max_seconds:g}")
    # libsndfile reads a truncated wav file without an error, and mentions it only in its log.
    length = re.search(r"^ *data : (\d+) \(should be \d+\)", file.extra_info, re.MULTILINE)
    if length and int(length[1]) < STREAMED:
        raise Unusable("truncated")


def _mono(file: soundfile.SoundFile) -> tuple[Wave, float]:
    """Return the mean of all channels, and the share of samples at full scale.

    Raises:
        Unusable: fewer samples are there than the header says, or the channels cancel each other.
    """
    waves, clipped, remaining = [np.zeros(0, np.float32)], 0, file.frames
    low, high = np.full(file.channels, np.inf), np.full(file.channels, -np.inf)
    # SoundFile.blocks does not reveal a short block, and does not support GSM, which cannot be rewound.
    size = max(1, BLOCK // file.channels)
    while remaining and len(block := file.read(min(remaining, size), "float32", always_2d=True)):
        with np.errstate(over="ignore", invalid="ignore"):  # non-finite values are rejected later
            waves.append(block.mean(1))  # (n,) of (n, channels)
            low, high = np.minimum(low, block.min(0)), np.maximum(high, block.max(0))
        clipped += int((np.abs(block) >= FULL_SCALE).sum())
        remaining -= len(block)
    if remaining:
        raise Unusable("truncated")
    wave = np.concatenate(waves)
    if len(wave) and np.isfinite([low, high]).all():
        _check_channels(wave, float((high - low).max()), file.channels)
    return wave, clipped / max(len(wave) * file.channels, 1)


def _check_channels(wave: Wave, loudest: float, channels: int) -> None:
    """Check that the mean of the channels, `wave`, is not much quieter than they are.

    A channel beside silent ones has its share, 1 / channels, of its range in the mean; less is left only if another
    one has the opposite sign, as of a microphone with its wires exchanged.
    """
    left = (float(wave.max()) - float(wave.min())) * channels
    if loudest >= 2 * SILENT and left < CANCELLED * loudest:
        raise Unusable("its channels cancel each other: invert one of them, or keep one alone")
