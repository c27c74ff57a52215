import io
import re
import struct
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from components.intake import Unusable
from components.speech.decode import convert, decode, resample

RATE = 16000


def sine(frequency: float = 440, seconds: float = 1, rate: int = RATE, peak: float = 0.5) -> np.ndarray:
    return peak * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


def encoded(wave, rate: int = RATE, kind: str = "WAV", subtype: str | None = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=kind, subtype=subtype)
    return file.getvalue()


def read(data: bytes, rate: int = RATE, seconds: float = 1, max_seconds: float = 30, max_clipped: float = 0.1):
    clip = decode(data, rate, seconds, max_seconds, max_clipped)
    assert clip.dtype == np.int16
    assert clip.shape == (round(rate * seconds),)
    return clip


def reason(data: bytes, **options) -> str:
    with pytest.raises(Unusable) as error:
        read(data, **options)
    return str(error.value)


def patched(data: bytes, at: int, content: bytes) -> bytes:
    return data[:at] + content + data[at + len(content) :]


def test_16_bit_samples_at_the_wanted_rate_are_kept_as_they_are():
    samples = np.random.default_rng(0).integers(-9000, 9000, RATE, np.int16)
    for kind in ("WAV", "FLAC", "WAVEX", "RF64"):
        assert np.array_equal(read(encoded(samples, kind=kind)), samples)


@pytest.mark.parametrize(
    ("subtype", "step"),
    [
        ("PCM_U8", 1 / 128),
        ("PCM_24", 0),
        ("PCM_32", 0),
        ("FLOAT", 0),
        ("DOUBLE", 0),
        ("ULAW", 1 / 64),
    ],
)
def test_every_width_gives_the_same_sound_within_its_own_step(subtype, step):
    clip = read(encoded(sine(), subtype=subtype)) / 32768
    assert np.abs(clip - sine()).max() <= step + 1 / 32768


@pytest.mark.parametrize("channels", [2, 5, 40])
def test_channels_are_averaged(channels):
    gains = np.linspace(0, 1, channels)
    clip = read(encoded(sine()[:, None] * gains))
    assert np.abs(clip / 32768 - sine() / 2).max() < 2 / 32768


@settings(max_examples=25, deadline=None)
@given(source=st.integers(4000, 96_000), rate=st.sampled_from([8000, 16000, 22050]))
@example(source=44_101, rate=16_000)
def test_a_tone_keeps_its_pitch_its_loudness_and_its_moment_at_any_rate(source, rate):
    clip = read(encoded(sine(440, 1, source), source), rate) / 32768
    middle = slice(rate // 10, rate // 2)  # the resampler's filter reaches over the ends
    assert np.abs(clip - sine(440, 1, rate))[middle].max() < 0.01


def test_what_the_wanted_rate_cannot_hold_is_filtered_out_and_not_folded_back():
    resampled = resample(sine(7000, 1, 44_100).astype(np.float32), 44_100, 8000)
    assert np.abs(resampled[100:-100]).max() < 0.01


def test_rates_without_a_common_divisor_need_little_memory():
    data = encoded(sine(440, 1, 191_999), 191_999)
    tracemalloc.start()
    read(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6  # a table of filters would take 16,000 x 1.2 million values


def test_short_sounds_are_padded_and_long_ones_cut_at_the_end():
    samples = np.random.default_rng(0).integers(1000, 9000, 2 * RATE, np.int16)
    short, long = read(encoded(samples[:1000])), read(encoded(samples))
    assert np.array_equal(short[:1000], samples[:1000])
    assert not short[1000:].any()
    assert np.array_equal(long, samples[:RATE])


def test_a_sound_is_cut_after_it_is_resampled():
    assert read(encoded(sine(440, 2, 44_100), 44_100), seconds=1.5)[-100:].any()


def test_float_samples_beyond_full_scale_are_clipped_and_do_not_wrap_round():
    wave = sine()
    wave[100] = 1.5
    assert read(encoded(wave, subtype="FLOAT"))[100] == 32767


def test_what_a_program_wrote_that_could_not_go_back_to_the_header_is_read():
    data = encoded(sine())
    for size in (b"\xff\xff\xff\xff", b"\xf0\xff\xff\x7f"):
        streamed = patched(patched(data, 4, size), 40, size)
        assert np.array_equal(read(streamed), read(data))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "zero bytes"),
        (b"This is a text, not a sound. " * 40, "not audio"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "not audio"),
        (b"fLaC" + bytes(200), "unreadable: .+"),
        (encoded(sine())[:30], "unreadable: .+"),
        (encoded(sine())[:44], "truncated"),
        (encoded(sine())[:9000], "truncated"),
        (encoded(sine())[:-1], "truncated"),
        (encoded(sine(), kind="FLAC")[:9000], "unreadable: .*lost sync"),
        (encoded(sine()[:0]), "empty: it has no samples"),
        (encoded(np.zeros(RATE)), "silent"),
        (encoded(np.full(RATE, 0.3)), "silent"),
        (encoded(sine(peak=0.0009)), "silent"),
        (encoded(np.r_[np.zeros(RATE), sine()]), "silent in its first 1 seconds"),
        (encoded(sine(peak=1.3)), r"clipped: 4\d% of its samples are at full scale, over max_clipped 0\.1"),
        (encoded(sine(peak=1.3), subtype="FLOAT"), r"clipped: 4\d% .*"),
        (encoded(sine(peak=1.3), subtype="PCM_U8"), r"clipped: 4\d% .*"),
        (encoded(sine(seconds=31)), r"too long: 31\.0 seconds is over max_seconds 30"),
        (encoded([[0.1], [float("nan")]], subtype="FLOAT"), "unreadable: some samples are not finite numbers"),
        (encoded(sine(), kind="OGG", subtype="VORBIS"), "OGG is neither wav nor flac"),
        (encoded(sine(), kind="AIFF"), "AIFF is neither wav nor flac"),
        (patched(encoded(sine()), 24, struct.pack("<I", 3)), "unreadable: 3 samples a second is outside .*"),
        (patched(encoded(sine()), 24, struct.pack("<I", 10**9)), "unreadable: 1000000000 samples a second .*"),
    ],
    # libsndfile writes the time into a file of floats, and the two processes of a test run must agree on the names.
    ids=lambda value: value if isinstance(value, str) else "file",
)
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(data, what):
    assert re.fullmatch(what, reason(data))


def test_the_share_of_clipped_samples_decides():
    wave = sine()
    wave[:1600] = 1
    data = encoded(wave)
    assert read(data, max_clipped=0.11).any()
    assert reason(data, max_clipped=0.09).startswith("clipped: 10%")


def test_one_silent_channel_does_not_hide_that_the_other_is_clipped():
    data = encoded(np.stack([sine(peak=1.5), np.zeros(RATE)], 1))
    assert reason(data).startswith("clipped: 2")


def test_a_telephones_wav_file_which_libsndfile_cannot_wind_back_is_read_whole():
    whole = read(encoded(sine(), 8000, subtype="PCM_16"), 8000).astype(float)
    gsm = read(encoded(sine(), 8000, subtype="GSM610"), 8000).astype(float)
    assert np.corrcoef(gsm[1000:7000], whole[1000:7000])[0, 1] > 0.95


def test_a_flac_file_that_does_not_say_how_long_it_is_is_refused():
    data = bytearray(encoded(sine(), kind="FLAC"))
    data[21] &= 0xF0  # the 36 bits of STREAMINFO's number of samples
    data[22:26] = bytes(4)
    assert reason(bytes(data)) == "unreadable: its header does not say how long it is"


def test_an_hour_of_sound_is_refused_from_its_header_alone():
    data = encoded(np.zeros(8000 * 3600, np.int16), 8000, "FLAC")
    tracemalloc.start()
    assert reason(data) == "too long: 3600.0 seconds is over max_seconds 30"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


def test_reading_many_channels_takes_memory_for_one():
    data = encoded(np.zeros((16_000, 500), np.int16))
    tracemalloc.start()
    assert reason(data) == "silent"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6  # 500 channels of float32 would be 32 MB


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_ends_in_a_clip_or_in_a_reason_and_in_nothing_else(data):
    kind = data.draw(st.sampled_from(["WAV", "FLAC"]))
    sound = bytearray(encoded(sine(seconds=0.05), kind=kind))
    for place in data.draw(st.lists(st.integers(0, len(sound) - 1), max_size=6)):
        sound[place] = data.draw(st.integers(0, 255))
    with suppress(Unusable):
        read(bytes(sound[: data.draw(st.integers(0, len(sound)))]))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(width=32), max_size=50), st.integers(-10, 300_000))
def test_any_numbers_end_in_a_clip_or_in_a_reason(numbers, rate):
    with suppress(Unusable):
        assert convert(np.array(numbers, np.float32), rate, 8000, 0.1).any()
