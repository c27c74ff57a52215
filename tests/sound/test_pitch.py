"""The fundamental frequency is that of the tone, whatever its overtones; noise and silence have none."""

import numpy as np
import pytest

from components.sound import pitch

RATE, HOP = 16_000, 256


def tone(frequency: float, harmonics: int = 10, seconds: float = 0.5) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    wave = sum(np.sin(2 * np.pi * frequency * k * time) / k for k in range(1, harmonics + 1))
    return (4000 * wave).astype(np.int16)


@pytest.mark.parametrize("frequency", [80.0, 123.4, 220.0, 440.0])
@pytest.mark.parametrize("harmonics", [1, 10])
def test_a_tones_pitch_is_its_frequency_within_half_a_percent(frequency, harmonics):
    found = pitch.frequencies(tone(frequency, harmonics), RATE, HOP)
    assert found.dtype == np.float32
    assert len(found) == RATE // 2 // HOP + 1
    assert found[4:-4] == pytest.approx(frequency, rel=0.005)


def test_a_tone_without_its_fundamental_keeps_its_pitch():
    time = np.arange(RATE // 2) / RATE
    wave = sum(np.sin(2 * np.pi * 150 * k * time) for k in (2, 3, 4, 5))
    found = pitch.frequencies((4000 * wave).astype(np.int16), RATE, HOP)
    assert found[4:-4] == pytest.approx(150, rel=0.005)


def test_silence_and_nearly_all_of_white_noise_have_no_pitch():
    assert not pitch.frequencies(np.zeros(8000, np.int16), RATE, HOP).any()
    noise = (3000 * np.random.default_rng(0).standard_normal(RATE)).astype(np.int16)
    assert (pitch.frequencies(noise, RATE, HOP) > 0).mean() < 0.02


def test_a_recording_of_a_few_samples_has_a_frame():
    assert pitch.frequencies(np.array([5, -5, 3], np.int16), RATE, HOP).tolist() == [0]


def test_much_quieter_frames_are_not_voiced():
    wave = np.concatenate([tone(200), (tone(200) / 200).astype(np.int16)])
    found = pitch.frequencies(wave, RATE, HOP)
    assert found[10:20] == pytest.approx(200, rel=0.005)
    assert not found[45:55].any()
