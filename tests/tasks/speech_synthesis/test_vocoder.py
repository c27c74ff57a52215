"""Vocoders invert the spectrogram: its magnitudes by Griffin-Lim, and magnitudes and phases by the transform."""

import pytest
import torch

from components.sound.params import FeatureParams
from components.tasks.speech_synthesis.spectra import FULL_SCALE, Spectra, logarithm
from components.tasks.speech_synthesis.vocoder import inverted
from tests.tasks.speech_synthesis import tiny
from tests.tasks.speech_synthesis.values import network


@pytest.fixture(scope="module", params=[0.032, 0.02])
def spectra(request) -> Spectra:
    """The transform with a window as long as it, and with a shorter one."""
    return Spectra(8000, FeatureParams(mels=16, window=request.param, hop=0.008))


def test_the_inverse_transform_is_that_of_torch(spectra):
    torch.manual_seed(0)
    wave = torch.randn(2, 2000)
    spectrum = torch.stft(
        wave, spectra.points, spectra.hop, spectra.window_length, spectra.window, return_complex=True
    )
    expected = torch.istft(spectrum, spectra.points, spectra.hop, spectra.window_length, spectra.window)
    torch.testing.assert_close(inverted(spectrum.transpose(1, 2), spectra), expected)
    torch.testing.assert_close(expected, wave[:, : expected.shape[1]], atol=1e-5, rtol=0)


def test_logarithms_of_power_give_the_magnitudes_of_the_transform(spectra):
    sound = torch.from_numpy(tiny.spoken("aeiou") * FULL_SCALE).float()[None]
    expected = torch.stft(
        sound / FULL_SCALE, spectra.points, spectra.hop, spectra.window_length, spectra.window,
        pad_mode="constant", return_complex=True,
    ).abs().transpose(1, 2)  # fmt: skip
    found = spectra.magnitudes(logarithm(spectra.power(sound)))
    loud = expected > 0.01 * expected.max()
    torch.testing.assert_close(found[loud], expected[loud], rtol=1e-3, atol=1e-4)


def test_white_noise_at_full_scale_has_power_one_in_each_band(spectra):
    torch.manual_seed(0)
    bands = spectra.bands(spectra.power(FULL_SCALE * torch.randn(1, 80_000)))
    assert (2 * bands).exp().mean((0, 1)).tolist() == pytest.approx([1] * 16, rel=0.15)


def test_griffin_lim_finds_a_sound_with_the_magnitudes_that_the_network_says():
    built = network()
    sound = torch.from_numpy(tiny.spoken("aeiou", seed=1) * FULL_SCALE).float()[None]
    power = built.spectra.power(sound)
    built.vocoder.iterations = 60
    built.vocoder.forward = lambda x: logarithm(power)
    with torch.inference_mode():
        found = built.vocoder.sound(built.spectra, built.normalised(power), 0)
    again = built.spectra.bands(built.spectra.power(found[None] * FULL_SCALE))
    difference = (again - built.spectra.bands(power)[:, : again.shape[1]])[:, 3:-3].abs().mean()
    assert difference < 0.25  # nepers: 2 dB
