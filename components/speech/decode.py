"""A sound file's bytes -> one channel at one rate, 16 bits, or the reason why not.

The served model calls the same functions as preparation, so that it hears what training heard.
"""

import io
import re
from functools import lru_cache
from math import gcd

import numpy as np
import soundfile  # type: ignore[import-untyped]
from numpy.typing import NDArray

from components.intake import Unusable

FORMATS = ("WAV", "WAVEX", "RF64", "FLAC")
SLOWEST, FASTEST = 1000, 192_000
"""Samples a second between which a file's rate may lie; the resampler's filter grows with the rate."""
FULL_SCALE = 127 / 128
"""Of the largest sample, from where on one counts as clipped: 8-bit files know no finer step."""
SILENT = 0.001
"""Greatest distance from the mean, as a share of full scale, up to which a clip is silent: -60 dB."""
BLOCK = 2**16
"""Values that are decoded at once."""
STREAMED = 0x7FFF_0000
"""Bytes from which on a header's length is what programs write that cannot go back to put it right."""

Samples = NDArray[np.int16]
Wave = NDArray[np.float32]


def decode(data: bytes, rate: int, seconds: float, max_seconds: float, max_clipped: float) -> Samples:
    """Return the sound in a wav or flac file's bytes as int16 (samples,), mono, `rate` times `seconds` long.

    Channels are averaged. Reading takes memory for one channel of `max_seconds`, whatever the file says.

    Raises:
        Unusable: the bytes are no such file, are damaged, empty, silent, clipped or too long.
    """
    if not data:
        raise Unusable("zero bytes")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_header(file, max_seconds)
            wave, clipped = _mono(file)
            source = file.samplerate
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".")
        raise Unusable("not audio" if reason == "Format not recognised" else f"unreadable: {reason}") from None
    if clipped > max_clipped:
        raise Unusable(f"clipped: {clipped:.0%} of its samples are at full scale, over max_clipped {max_clipped:g}")
    return convert(wave, source, rate, seconds)


def convert(wave: Wave, source: int, rate: int, seconds: float) -> Samples:
    """Return float samples on the scale -1..1, `source` a second, as int16 at `rate`, padded or cut at the end.

    Raises:
        Unusable: there is no sample, one is not a number, all are silent, or the rate is impossible.
    """
    if not SLOWEST <= source <= FASTEST:
        raise Unusable(f"unreadable: {source} samples a second is outside {SLOWEST:,} to {FASTEST:,}")
    if not len(wave):
        raise Unusable("empty: it has no samples")
    if not np.isfinite(wave).all():
        raise Unusable("unreadable: some samples are not finite numbers")
    if float(np.abs(wave - wave.mean(dtype=np.float64)).max()) < SILENT:
        raise Unusable("silent")
    wanted = round(rate * seconds)
    sound = resample(wave.clip(-1, 1), source, rate)[:wanted]
    fixed = np.zeros(wanted, np.int16)
    fixed[: len(sound)] = np.clip(np.rint(sound * 32768), -32768, 32767)
    if int(np.abs(fixed.astype(np.int32)).max()) < SILENT * 32768:
        raise Unusable(f"silent in its first {seconds:g} seconds")
    return fixed


def resample(wave: Wave, source: int, rate: int) -> Wave:
    """Return samples taken `source` times a second as if taken `rate` times, the first at the same moment.

    A polyphase filter, a sinc under a Kaiser window: unlike a table of filters, as torchaudio makes it, it stays
    small where the rates have no large common divisor (44,101 and 16,000 Hz).
    """
    from scipy.signal import resample_poly

    if source == rate:
        return wave
    divisor = gcd(source, rate)
    up, down = rate // divisor, source // divisor
    # The stubs do not know that a window may be a filter's taps.
    resampled: Wave = resample_poly(wave, up, down, window=_lowpass(up, down))  # type: ignore[call-overload]
    return resampled


@lru_cache(maxsize=8)
def _lowpass(up: int, down: int) -> Wave:
    """Return scipy's own filter for `resample_poly`, which it would make anew for each file."""
    from scipy.signal import firwin

    taps: Wave = firwin(20 * max(up, down) + 1, 1 / max(up, down), window=("kaiser", 5.0)).astype(np.float32)
    return taps


def _check_header(file: soundfile.SoundFile, max_seconds: float) -> None:
    if file.format not in FORMATS:
        raise Unusable(f"{file.format} is neither wav nor flac")
    if not SLOWEST <= file.samplerate <= FASTEST:
        raise Unusable(f"unreadable: {file.samplerate} samples a second is outside {SLOWEST:,} to {FASTEST:,}")
    if file.frames >= 2**62:
        raise Unusable("unreadable: its header does not say how long it is")
    if file.frames > max_seconds * file.samplerate:
        seconds = file.frames / file.samplerate
        raise Unusable(f"too long: {seconds:.1f} seconds is over max_seconds {max_seconds:g}")
    # libsndfile reads a wav file that breaks off as if it were whole, and tells of it in its log alone.
    said = re.search(r"^ *data : (\d+) \(should be \d+\)", file.extra_info, re.MULTILINE)
    if said and int(said[1]) < STREAMED:
        raise Unusable("truncated")


def _mono(file: soundfile.SoundFile) -> tuple[Wave, float]:
    """Return the mean of all channels, and the share of all samples that are at full scale."""
    waves, clipped, left = [np.zeros(0, np.float32)], 0, file.frames
    # SoundFile.blocks gives a block that comes short as if it were whole, and takes no GSM, which has no way back.
    while left and len(block := file.read(min(left, max(1, BLOCK // file.channels)), "float32", always_2d=True)):
        with np.errstate(over="ignore", invalid="ignore"):  # what is no finite number is refused later
            waves.append(block.mean(1))  # (n,) of (n, channels)
        clipped += int((np.abs(block) >= FULL_SCALE).sum())
        left -= len(block)
    if left:
        raise Unusable("truncated")
    wave = np.concatenate(waves)
    return wave, clipped / max(len(wave) * file.channels, 1)
