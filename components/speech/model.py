"""A CNN-LSTM for spoken words: convolutions over a log-mel spectrogram, then a bidirectional LSTM over time.

Sainath et al. 2015, "Convolutional, Long Short-Term Memory, fully connected Deep Neural Networks" (ICASSP).
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torchaudio.transforms import FrequencyMasking, MelSpectrogram, TimeMasking  # type: ignore[import-untyped]

from components.contracts import Batch, Manifest
from components.speech.params import FeatureParams, ModelParams, SpeechParams
from components.speech.prepare import SpeechFacts

CHANNELS = (32, 64)
FLOOR = 1e-4
"""Power of a band that counts as silence, 40 dB below that of white noise as strong as the clip's peak."""


class LogMel(nn.Module):
    """Log-mel spectrograms that do not know how loud a clip is; silence is zero.

    No mean over time is taken from the bands, as is usual against microphones: padding and noise have their part
    in it. Training meets other microphones through an equaliser instead. Computed in the network, batch by batch,
    for noise, speed and shift change waveforms: docs/profile.md has its share of a step.

    Args:
        rate: samples a second.
        params: bands, window and hop.
    """

    def __init__(self, rate: int, params: FeatureParams) -> None:
        super().__init__()
        window = round(rate * params.window)
        points = _transform(rate, window, params.mels)
        self.mel = MelSpectrogram(
            rate,
            n_fft=points,
            win_length=window,
            hop_length=round(rate * params.hop),
            n_mels=params.mels,
            power=None,
            pad_mode="constant",
            norm="slaney",
        )
        # torch gives part of a longer window, and safetensors writes no parts.
        hann = self.mel.spectrogram.window = self.mel.spectrogram.window.clone()
        # Brings white noise of power 1 to 1 in each band: a band's weights have unit area, counted in Hz.
        self.scale = rate / points / float(hann.square().sum())

    def forward(self, clip: Tensor) -> Tensor:
        """Map clips (N, samples), int16 or float, to (N, frames, mels), float32; one frame for each hop begun."""
        with torch.autocast(clip.device.type, enabled=False):
            wave = clip.float()
            wave = wave / wave.abs().amax(1, keepdim=True).clamp(min=torch.finfo().tiny)  # (N, samples)
            loudness = (self.scale * self.power(wave) / FLOOR + 1).log()  # (N, mels, frames), in nepers of power
            return (loudness / 4).transpose(1, 2)  # (N, frames, mels), mostly between 0 and 2

    def power(self, wave: Tensor) -> Tensor:
        """Map waves (N, samples), float32, to the power in each band, (N, mels, frames)."""
        spectrum = self.mel.spectrogram(wave)  # (N, points / 2 + 1, frames), complex
        # A quarter of the time of abs(), which guards against an overflow that no clip comes near.
        return cast(Tensor, self.mel.mel_scale(spectrum.real.square() + spectrum.imag.square()))


def _transform(rate: int, window: int, mels: int) -> int:
    """Return how many points the Fourier transform has: a power of two at which no mel band is empty."""
    # The centre of the lowest band, which is the narrowest, in Hz: mel(f) = 2595 * log10(1 + f / 700).
    first: float = 700 * ((1 + rate / 1400) ** (1 / (mels + 1)) - 1)
    return 1 << (math.ceil(max(window, rate / first)) - 1).bit_length()


class Stretch(nn.Module):
    """Say each clip of a batch more slowly or more quickly, its pitch unchanged: speakers differ most in that.

    Args:
        share: Largest change of the tempo: 0.5 is 50 to 150 %.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Map (N, 1, mels, frames) to the same shape; what comes from beyond the clip is silence, zero."""
        clips, _, mels, frames = spectrogram.shape
        tempo = 1 + self.share * (2 * torch.rand(clips, 1, device=spectrogram.device) - 1)
        place = torch.arange(frames, device=spectrogram.device) * tempo  # (N, frames), in the given spectrogram
        whole = place.floor()
        padded = nn.functional.pad(spectrogram, (0, 1))

        def at(number: Tensor) -> Tensor:
            index = number.long().clamp(max=frames)[:, None, None]  # (N, 1, 1, frames)
            return padded.gather(3, index.expand(clips, 1, mels, frames))

        return torch.lerp(at(whole), at(whole + 1), (place - whole)[:, None, None])


class LastState(nn.Module):
    """What each direction has when it has heard all: the forward one at the end, the backward one at the start."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, frames, 2 * hidden) to (N, 2 * hidden)."""
        forward, backward = x.chunk(2, 2)
        return torch.cat([forward[:, -1], backward[:, 0]], 1)


class Attention(nn.Module):
    """A mean over time under learnt weights, as in Lin et al. 2017 (arXiv:1703.03130) with one linear score."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.score = nn.Linear(features, 1, bias=False)  # a bias would add to all frames alike, and so do nothing

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, frames, features) to (N, features)."""
        share: Tensor = self.score(x).float().softmax(1)  # (N, frames, 1)
        return (x * share).sum(1)


class SpeechModel(nn.Module):
    """Clips of any length, from one sample on, to logits.

    Time is the first axis of the spectrogram and frequency the second. In the channels_last format a frame's
    channels and frequencies then lie together in memory, just as the LSTM reads them.

    Args:
        rate: samples a second.
        classes: outputs.
        features: the spectrogram.
        params: the network.
        changes: to the spectrogram (N, 1, mels, frames), in training alone.
    """

    def __init__(
        self, rate: int, classes: int, features: FeatureParams, params: ModelParams, changes: nn.Module
    ) -> None:
        super().__init__()
        self.log_mel, self.changes = LogMel(rate, features), changes
        self.convolutions = nn.Sequential(
            *_convolution(1, CHANNELS[0], params.batch_norm), *_convolution(*CHANNELS, params.batch_norm)
        )
        bands = -(-features.mels // 4)  # after two poolings that round up
        self.lstm = nn.LSTM(
            CHANNELS[1] * bands,
            params.hidden,
            params.layers,
            batch_first=True,
            bidirectional=True,
            dropout=params.dropout if params.layers > 1 else 0.0,
        )
        self.pool = Attention(2 * params.hidden) if params.pool == "attention" else LastState()
        self.dropout = nn.Dropout(params.dropout)
        self.classifier = nn.Linear(2 * params.hidden, classes)

    def forward(self, clip: Tensor) -> Tensor:
        """Map clips (N, samples), int16 or float of any scale, to logits (N, classes)."""
        x = self.log_mel(clip)[:, None]  # (N, 1, frames, mels)
        if self.training:
            x = self.changes(x.transpose(2, 3)).transpose(2, 3)
        x = self.convolutions(x)  # (N, 64, frames / 4, mels / 4), both rounded up
        x = x.permute(0, 2, 3, 1).flatten(2)  # (N, frames / 4, mels / 4 * 64)
        x, _ = self.lstm(x)  # (N, frames / 4, 2 * hidden)
        return cast(Tensor, self.classifier(self.dropout(self.pool(x))))


def _convolution(channels: int, filters: int, batch_norm: bool) -> list[nn.Module]:
    norm = [nn.BatchNorm2d(filters)] if batch_norm else []
    convolution = nn.Conv2d(channels, filters, 3, padding=1, bias=not batch_norm)
    # The largest of four first, and then what of it is positive: the same numbers, with a quarter of ReLU's work.
    return [convolution, *norm, nn.MaxPool2d(2, ceil_mode=True), nn.ReLU(inplace=True)]


def build_model(params: SpeechParams, manifest: Manifest) -> nn.Module:
    """Build the network for the prepared data, with random weights: clips (N, samples) to logits."""
    facts = SpeechFacts.model_validate(manifest.facts)
    chosen, train = params.train.augment, params.train
    # SpecAugment's LD policy: two masks of each kind (Park et al. 2019, arXiv:1904.08779); zero is silence.
    changes = [Stretch(chosen.stretch)] if chosen.stretch else []
    changes += [FrequencyMasking(chosen.frequency_mask, iid_masks=True) for _ in range(2)]
    changes += [TimeMasking(chosen.time_mask, iid_masks=True) for _ in range(2)]
    return SpeechModel(facts.rate, len(facts.classes), train.features, train.model, nn.Sequential(*changes))


def initialise(model: nn.Module, params: SpeechParams, split: Batch) -> None:
    """Leave the random weights as they are: there is nothing else to start from."""
