"""Parameters of the recognition of spoken words."""

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from components.params import FilesPrepareParams, LabelSmoothing, Section, TaskParams, TrainParams
from components.sound.params import FeatureParams


class SpeechPrepareParams(FilesPrepareParams):
    """How sound files become arrays."""

    rate: int = Field(ge=4000, le=48_000, description="Samples per second to which every file is resampled")
    seconds: float = Field(ge=0.1, le=30, description="Length to which every clip is padded or cut, at its end")
    max_seconds: float = Field(gt=0, le=120, description="Longer files are rejected")
    max_clipped: float = Field(ge=0, le=1, description="Largest share of samples at full scale in a file")
    speaker: str = Field(
        description="Regular expression for a file's name without suffix; its group `speaker` is the speaker"
    )

    @field_validator("speaker")
    @classmethod
    def _tells_the_speaker(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groupindex
        except re.error as error:
            raise ValueError(f"is not a regular expression ({error})") from None
        if "speaker" not in groups:
            raise ValueError("has no group named speaker: write (?P<speaker>…) around the speaker's name")
        return pattern


class ModelParams(Section):
    """The layers after the two 3x3 convolutions, which have 32 and 64 filters."""

    batch_norm: bool = Field(description="Normalise after each convolution")
    hidden: int = Field(ge=8, le=2048, description="Units of the LSTM per direction")
    layers: int = Field(ge=1, le=8, description="Layers of the bidirectional LSTM")
    pool: Literal["last", "attention"] = Field(
        description="last takes each direction's final state, attention a learnt mean over time"
    )
    dropout: float = Field(ge=0, lt=1, description="Between the LSTM's layers and before the classifier")


class AugmentParams(Section):
    """Random augmentation of batches of training clips, on the training device."""

    shift: float = Field(ge=0, le=10, description="Largest shift in time, in seconds, in either direction")
    speed: float = Field(ge=0, lt=0.9, description="Largest change of speed, and so of pitch: 0.1 is 90 to 110 %")
    stretch: float = Field(ge=0, lt=0.9, description="Largest change of tempo alone: 0.5 is 50 to 150 %")
    equaliser: float = Field(ge=0, le=40, description="Largest gain or loss of a frequency band, in dB")
    snr: float | None = Field(
        ge=-20, le=60, description="Lowest signal-to-noise ratio in dB of the noise added; null adds none"
    )
    frequency_mask: int = Field(ge=0, le=128, description="Maximum mel bands under each of SpecAugment's two masks")
    time_mask: int = Field(ge=0, le=1000, description="Maximum frames under each of SpecAugment's two masks")


class SpeechTrainParams(TrainParams):
    """The shared training parameters, and speech's features, network and augmentation."""

    label_smoothing: LabelSmoothing
    features: FeatureParams
    model: ModelParams
    augment: AugmentParams

    @model_validator(mode="after")
    def _mask_leaves_bands(self) -> Self:
        if self.augment.frequency_mask >= self.features.mels:
            raise ValueError(f"augment.frequency_mask must be less than features.mels, {self.features.mels}")
        return self


class SpeechParams(TaskParams):
    """The parameters of a model of spoken_words in params.yaml."""

    prepare: SpeechPrepareParams
    train: SpeechTrainParams

    @model_validator(mode="after")
    def _mask_leaves_frames(self) -> Self:
        frames = int(self.prepare.seconds / self.train.features.hop) + 1
        if self.train.augment.time_mask >= frames:
            raise ValueError(f"train.augment.time_mask must be less than a clip's frames, {frames}")
        return self
