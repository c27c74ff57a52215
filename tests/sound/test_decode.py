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

from components.datasets.ingest import Unusable
from components.sound.decode import convert, decode, decode_whole, resample

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


@settings(max_examples=25)
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
def test_a_file_that_cannot_be_used_is_rejected_with_the_reason(data, what):
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


def test_a_flac_file_that_does_not_say_how_long_it_is_is_rejected():
    data = bytearray(encoded(sine(), kind="FLAC"))
    data[21] &= 0xF0  # the 36 bits of STREAMINFO's number of samples
    data[22:26] = bytes(4)
    said = "unreadable: its header does not say how long it is; write it to a file, not into a pipe"
    assert reason(bytes(data)) == said


def test_an_hour_of_sound_is_rejected_from_its_header_alone():
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


def chunk(name: bytes, content: bytes, padding: bytes | None = None) -> bytes:
    padding = b"\0" * (len(content) % 2) if padding is None else padding
    return name + struct.pack("<I", len(content)) + content + padding


FMT = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16))
SAMPLES = np.random.default_rng(0).integers(-9000, 9000, RATE, np.int16)
DATA = chunk(b"data", SAMPLES.tobytes())
ID3 = b"ID3\x03\0\0\0\0\0\x0a" + bytes(10)
LONG_ID3 = b"ID3\x04\0\x10\0\0\x02\x01" + b"x" * 257 + b"3DI\x04\0\x10\0\0\x02\x01"  # 7 bits a byte; footer
ODD = b"INFOISFT" + struct.pack("<I", 13) + b"Lavf58.29.10\0"


def riff(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    "data",
    [
        ID3 + riff(FMT, DATA),
        ID3 + LONG_ID3 + riff(FMT, DATA),
        ID3 + encoded(SAMPLES, kind="FLAC"),
        ID3 + encoded(SAMPLES, kind="RF64"),
        ID3 + encoded(SAMPLES, kind="WAVEX"),
        riff(FMT, ID3, DATA),
        riff(FMT, chunk(b"id3 ", ID3 + b"x"), DATA),
        riff(FMT, DATA, chunk(b"id3 ", ID3)),
        riff(FMT, DATA) + b"TAG" + bytes(125),
    ],
    ids=["before", "two", "flac", "rf64", "wavex", "bare", "chunk", "after", "at the end"],
)
def test_a_sound_with_an_id3_tag_before_it_or_in_it_is_read_whole(data):
    assert np.array_equal(read(data), SAMPLES)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_an_ogg_file_that_lacks_its_end_is_truncated(share):
    data = encoded(sine(seconds=10), kind="OGG", subtype="VORBIS")
    assert len(decode_whole(data, RATE, 30, 1)) == 10 * RATE
    with pytest.raises(Unusable, match=r"^truncated$"):
        decode_whole(data[: round(share * len(data))], RATE, 30, 1)


def test_a_tag_before_a_sound_does_not_hide_that_the_sound_is_truncated():
    assert reason((ID3 + riff(FMT, DATA))[:-1000]) == "truncated"
    assert reason(ID3 + b"This is a text, not a sound. " * 9) == "not audio"


@pytest.mark.parametrize(
    "before", [b"", chunk(b"JUNK", bytes(28)), chunk(b"fact", bytes(4))], ids=["plain", "junk", "fact"]
)
@pytest.mark.parametrize("size", [0, 36])
def test_a_wav_file_whose_recorder_ended_before_it_wrote_the_size_is_read_to_the_end(before, size):
    data = riff(FMT, before, b"data" + bytes(4), SAMPLES.tobytes())
    assert np.array_equal(read(patched(data, 4, struct.pack("<I", size))), SAMPLES)


@pytest.mark.parametrize("size", [2, 200, 16_000])
def test_a_wav_file_whose_header_counts_only_a_first_part_of_the_sound_is_read_to_the_end(size):
    data = riff(FMT, b"data" + struct.pack("<I", size), SAMPLES.tobytes())
    assert np.array_equal(read(data), SAMPLES)
    short = chunk(b"data", np.full(51, 200, np.uint8).tobytes(), b"")
    eight_bits = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, RATE, 1, 8))
    for after in (bytes(9), chunk(b"LIST", ODD * 9), bytes(3000)):
        assert np.count_nonzero(read(riff(eight_bits, patched(short, 8, b"\x10" * 25), after))) == 51


@pytest.mark.timeout(20)
def test_room_that_a_recorder_reserved_is_passed_over_at_once():
    assert np.array_equal(read(riff(FMT, bytes(4_000_000), DATA)), SAMPLES)
    said = "unreadable: no chunk with the sound follows its chunk 'fmt ' at byte 12"
    assert reason(riff(FMT, bytes(30_000_000))) == said


def test_samples_on_another_scale_are_rejected_as_such_even_where_clipping_is_allowed():
    said = "its samples go up to 16383.5 and belong between -1 and 1"
    assert reason(encoded(sine() * 32767, subtype="FLOAT"), max_clipped=1) == said


def test_an_offset_does_not_hide_that_the_kept_part_is_silent():
    late = np.r_[np.full(RATE, 0.2), sine(peak=0.3) + 0.2]
    assert reason(encoded(late)) == "silent in its first 1 seconds"
    assert read(encoded(late), seconds=1.5).any()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\0\0\0\x20ftypM4A " + bytes(99), "MP4 (m4a, AAC)"),
        (b"\x1aE\xdf\xa3" + bytes(99), "WebM or Matroska"),
        (b"#!AMR\n" + bytes(99), "AMR"),
        (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "Windows Media (wma)"),
    ],
)
def test_a_format_of_sound_that_is_not_read_is_named(data, what):
    assert reason(data) == f"{what}, a format that is not read: convert it to wav or flac"


def test_what_is_no_sound_is_named_where_it_is_common():
    assert reason(b"<!DOCTYPE html>\n<title>404</title>") == "not audio: a web page"


def test_an_unfinished_file_that_ends_inside_a_sample_or_begins_in_silence_is_read_up_to_there():
    late = np.r_[np.zeros(RATE // 2, np.int16), SAMPLES[: RATE // 2]]
    assert np.array_equal(read(riff(FMT, b"data" + bytes(4), late.tobytes())), late)
    assert np.array_equal(read(riff(FMT, b"data" + bytes(4), SAMPLES.tobytes()[:-1])), [*SAMPLES[:-1], 0])


def test_an_unfinished_rf64_file_is_read_to_the_end():
    data = patched(encoded(SAMPLES, kind="RF64"), 20, bytes(24))  # the three sizes in ds64
    assert np.array_equal(read(data), SAMPLES)


def test_a_finished_file_without_sound_is_empty_whatever_follows():
    for after in (b"", chunk(b"LIST", ODD), chunk(b"tags", b"of an unknown kind")):
        assert reason(riff(FMT, b"data" + bytes(4), after)) == "empty: it has no samples"


@pytest.mark.parametrize("name", [b"LIST", b"id3 ", b"odd1"])
def test_an_odd_chunk_without_its_padding_byte_does_not_hide_the_sound(name):
    assert np.array_equal(read(riff(FMT, chunk(name, ODD, b""), DATA)), SAMPLES)
    assert np.array_equal(read(riff(FMT, chunk(name, ODD, b""), chunk(name, ODD), DATA)), SAMPLES)
    assert np.array_equal(read(riff(FMT, chunk(b"LIST", ODD, b""), chunk(b"Note", b"an even one."), DATA)), SAMPLES)


@pytest.mark.parametrize("padding", [b"\0", b" ", b"x"])
def test_an_odd_chunk_with_any_padding_byte_is_passed_over(padding):
    assert np.array_equal(read(riff(FMT, chunk(b"LIST", ODD, padding), DATA)), SAMPLES)


def test_a_chunk_that_hides_the_sound_is_named_with_its_place():
    too_long = b"LIST" + struct.pack("<I", 10**6) + ODD
    assert reason(riff(FMT, too_long, DATA)) == (
        "unreadable: its chunk 'LIST' at byte 36 says that it has 1,000,000 bytes, and 32,033 are there"
    )
    assert reason(riff(FMT, chunk(b"LIST", ODD))) == (
        "unreadable: no chunk with the sound follows its chunk 'LIST' at byte 36"
    )


@pytest.mark.parametrize(
    "gains", [(1, -1), (1, -0.95), (1, -0.5, -0.5), (1, 1, -1, -1)], ids=["2", "nearly", "3", "4"]
)
def test_channels_that_cancel_each_other_are_named_as_such_and_not_as_silent(gains):
    data = encoded(sine()[:, None] * np.array(gains))
    assert reason(data) == "its channels cancel each other: invert one of them, or keep one alone"


def test_channels_that_cancel_but_for_an_offset_are_named_too():
    assert reason(encoded(np.stack([sine() + 0.2, -sine()], 1))).startswith("its channels cancel each other")


def test_a_quiet_channel_of_the_opposite_sign_or_silent_channels_take_nothing_away():
    assert np.abs(read(encoded(np.stack([sine(), -0.5 * sine()], 1))) / 32768 - sine() / 4).max() < 2 / 32768
    assert np.abs(read(encoded(np.stack([sine(), *[0 * sine()] * 39], 1))) / 32768 - sine() / 40).max() < 2 / 32768
    assert reason(encoded(np.stack([sine(peak=0.0009), -sine(peak=0.0009)], 1))) == "silent"


@settings(max_examples=150)
@given(st.data())
def test_damage_to_chunks_ends_in_a_clip_or_in_a_reason_and_in_nothing_else(data):
    parts = st.sampled_from(
        [FMT, DATA[:3000], ID3, LONG_ID3, chunk(b"LIST", ODD, b""), b"data" + bytes(4), b"RF64"]
    )
    sound = bytearray(riff(*data.draw(st.lists(parts, max_size=6))))
    for index in data.draw(st.lists(st.integers(0, len(sound) - 1), max_size=3)):
        sound[index] = data.draw(st.integers(0, 255))
    with suppress(Unusable):
        read(bytes(sound))


@settings(max_examples=150)
@given(st.data())
def test_damage_ends_in_a_clip_or_in_a_reason_and_in_nothing_else(data):
    kind = data.draw(st.sampled_from(["WAV", "FLAC"]))
    sound = bytearray(encoded(sine(seconds=0.05), kind=kind))
    for index in data.draw(st.lists(st.integers(0, len(sound) - 1), max_size=6)):
        sound[index] = data.draw(st.integers(0, 255))
    with suppress(Unusable):
        read(bytes(sound[: data.draw(st.integers(0, len(sound)))]))


@settings(max_examples=100)
@given(st.lists(st.floats(width=32), max_size=50), st.integers(-10, 300_000))
def test_any_numbers_end_in_a_clip_or_in_a_reason(numbers, rate):
    with suppress(Unusable):
        assert convert(np.array(numbers, np.float32), rate, 8000, 0.1).any()
