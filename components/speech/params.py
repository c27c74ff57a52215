"""What a user turns in the recognition of spoken words."""

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from components.params import FilesPrepareParams, Section, TaskParams, TrainParams


class SpeechPrepareParams(FilesPrepareParams):
    """How sound files become arrays."""

    test_share: float = Field(gt=0, lt=1, description="Part taken for testing where there is no testing_list.txt")
    rate: int = Field(ge=4000, le=48_000, description="Samples a second, to which every file is resampled")
    seconds: float = Field(ge=0.1, le=30, description="Length to which every clip is padded or cut, at its end")
    max_seconds: float = Field(gt=0, le=120, description="Longer files are refused")
    max_clipped: float = Field(ge=0, le=1, description="Share of samples at full scale that a file may have")
    speaker: str = Field(
        description="Regular expression for a file's name without its ending; the group `speaker` is who speaks"
    )

    @field_validator("speaker")
    @classmethod
    def _tells_the_speaker(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groupindex
        except re.error as error:
            raise ValueError(f"is not a regular expression ({error})") from None
        if "speaker" not in groups:
            raise ValueError("has no group named speaker: write (?P<speaker>…) round what tells who speaks")
        return pattern


class FeatureParams(Section):
    """The log-mel spectrogram that the network sees."""

    mels: int = Field(ge=16, le=128, description="Bands, equally wide on the mel scale")
    window: float = Field(ge=0.005, le=0.1, description="Seconds under one frame's Hann window")
    hop: float = Field(ge=0.002, le=0.1, description="Seconds from one frame to the next")


class ModelParams(Section):
    """What follows the two convolutions, which are 1 to 32 and 32 to 64 channels, 3x3."""

    batch_norm: bool = Field(description="Normalise after each convolution")
    hidden: int = Field(ge=8, le=2048, description="Units of the LSTM in each direction")
    layers: int = Field(ge=1, le=8, description="Layers of the bidirectional LSTM")
    pool: Literal["last", "attention"] = Field(
        description="last takes each direction's final state, attention a learnt mean over time"
    )
    dropout: float = Field(ge=0, lt=1, description="Between the LSTM's layers and before the classifier")


class AugmentParams(Section):
    """Random changes to the training clips, made on whole batches on the training device."""

    shift: float = Field(ge=0, le=10, description="Seconds by which a clip is moved at most, either way")
    speed: float = Field(ge=0, lt=0.9, description="Largest change of speed, and so of pitch: 0.1 is 90 to 110 %")
    stretch: float = Field(ge=0, lt=0.9, description="Largest change of tempo alone: 0.5 is 50 to 150 %")
    equaliser: float = Field(ge=0, le=40, description="Largest gain or loss in dB that a band of frequencies gets")
    snr: float | None = Field(
        ge=-20, le=60, description="Lowest signal-to-noise ratio in dB of the noise added; null adds none"
    )
    frequency_mask: int = Field(ge=0, le=128, description="Most mel bands under one of SpecAugment's two masks")
    time_mask: int = Field(ge=0, le=1000, description="Most frames under one of SpecAugment's two masks")


class SpeechTrainParams(TrainParams):
    """The shared training parameters, and speech's features, network and augmentation."""

    features: FeatureParams
    model: ModelParams
    augment: AugmentParams

    @model_validator(mode="after")
    def _mask_leaves_bands(self) -> Self:
        if self.augment.frequency_mask >= self.features.mels:
            raise ValueError(f"augment.frequency_mask has to be less than features.mels, {self.features.mels}")
        return self


class SpeechParams(TaskParams):
    """tasks.speech in params.yaml."""

    prepare: SpeechPrepareParams
    train: SpeechTrainParams

    @model_validator(mode="after")
    def _mask_leaves_frames(self) -> Self:
        frames = int(self.prepare.seconds / self.train.features.hop) + 1
        if self.train.augment.time_mask >= frames:
            raise ValueError(f"train.augment.time_mask has to be less than a clip's frames, {frames}")
        return self
