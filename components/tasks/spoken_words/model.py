"""A CNN-LSTM for spoken words: convolutions over a log-mel spectrogram, then a bidirectional LSTM over time.

Sainath et al. 2015, "Convolutional, Long Short-Term Memory, fully connected Deep Neural Networks" (ICASSP).
"""

from typing import cast

import torch
from torch import Tensor, nn
from torchaudio.transforms import FrequencyMasking, TimeMasking  # type: ignore[import-untyped]

from components import recurrent
from components.contracts import Manifest
from components.sound.augment import Stretch
from components.sound.log_mel import LogMel
from components.sound.params import FeatureParams
from components.tasks.spoken_words.params import ModelParams, SpeechParams
from components.tasks.spoken_words.prepare import SpeechFacts

CHANNELS = (32, 64)


class LastState(nn.Module):
    """The final state of each direction: of the forward one at the end, of the backward one at the start."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, frames, 2 * hidden) to (N, 2 * hidden)."""
        forward, backward = x.chunk(2, 2)
        return torch.cat([forward[:, -1], backward[:, 0]], 1)


class Attention(nn.Module):
    """A mean over time with learnt weights, as in Lin et al. 2017 (arXiv:1703.03130) with one linear score."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.score = nn.Linear(features, 1, bias=False)  # softmax would cancel a bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, frames, features) to (N, features)."""
        share: Tensor = self.score(x).float().softmax(1)  # (N, frames, 1)
        return (x * share).sum(1)


class SpeechModel(nn.Module):
    """Maps clips of one or more samples to logits.

    Time is the first axis of the spectrogram and frequency the second, so that in the channels_last format a
    frame's channels and frequencies are contiguous in memory, as the LSTM reads them.

    Args:
        rate: Samples per second.
        classes: Number of outputs.
        features: Parameters of the spectrogram.
        params: Parameters of the network.
        changes: Augmentation of the spectrogram (N, 1, mels, frames), in training only.
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
        # On a GPU, cuDNN draws the dropout between layers: anew after each seed, for which it waits for the GPU
        # (ATen, cudnn/RNN.cpp). So an update's numbers depend on its seed alone, as on the CPU.
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
        x, _ = recurrent.apply(self.lstm, x)  # (N, frames / 4, 2 * hidden)
        return cast(Tensor, self.classifier(self.dropout(self.pool(x))))


def _convolution(channels: int, filters: int, batch_norm: bool) -> list[nn.Module]:
    norm = [nn.BatchNorm2d(filters)] if batch_norm else []
    convolution = nn.Conv2d(channels, filters, 3, padding=1, bias=not batch_norm)
    # Pooling before ReLU gives the same result with a quarter of ReLU's work.
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
