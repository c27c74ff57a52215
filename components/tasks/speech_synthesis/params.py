"""Parameters of speech synthesis."""

from typing import Literal, Self

from pydantic import Field, model_validator

from components.params import EvaluateParams, OptionalSource, Section, TaskParams, TrainParams
from components.sound.params import FeatureParams, RecordingsPrepareParams


class SynthesisPrepareParams(RecordingsPrepareParams):
    """How recordings and transcripts become arrays."""

    features: FeatureParams

    @model_validator(mode="after")
    def _frames_overlap(self) -> Self:
        if 2 * self.features.hop > self.features.window:
            raise ValueError(
                f"features.hop {self.features.hop:g} is over half of features.window {self.features.window:g}, so "
                "sound cannot be made of the frames: make the window longer"
            )
        return self


class AcousticParams(Section):
    """The network from characters to a log-mel spectrogram."""

    size: int = Field(ge=8, le=4096, description="Features of a character and of a frame")
    encoder: int = Field(ge=1, le=64, description="Convolutions over characters")
    decoder: int = Field(ge=1, le=64, description="Convolutions over frames")
    kernel: int = Field(ge=3, le=63, description="Width of each convolution, an odd number")
    dropout: float = Field(ge=0, lt=1, description="Rate after each convolution over characters")

    @model_validator(mode="after")
    def _kernel_has_a_middle(self) -> Self:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} is even: make it odd, such as {self.kernel + 1}")
        return self


class VocoderParams(Section):
    """The network from a log-mel spectrogram to sound."""

    network: Literal["magnitudes", "istft"] = Field(
        description="magnitudes finds those of a spectrogram, and Griffin-Lim's iterations the phases; istft finds "
        "both, and learns longer"
    )
    size: int = Field(ge=8, le=4096, description="Features of a frame")
    layers: int = Field(ge=1, le=64, description="Convolutions over frames")
    iterations: int = Field(ge=1, le=1000, description="Griffin-Lim's iterations; istft has none")


class SynthesisTrainParams(TrainParams):
    """The shared training parameters, and the networks."""

    model: AcousticParams
    vocoder: VocoderParams


class LimitParams(Section):
    """The most that a row of a request may ask for."""

    characters: int = Field(ge=1, le=100_000, description="Largest number of characters of a text")
    seconds: float = Field(gt=0, le=3600, description="Longest answer")


class SynthesisEvaluateParams(EvaluateParams):
    """The shared evaluation parameters, the limits of answers, and a recogniser."""

    limits: LimitParams
    recogniser: OptionalSource = Field(
        description="A registered version of speech_to_text, such as models:/commands@champion, whose word error "
        "rate is measured beside the score; it is not if this is empty or there is no such version"
    )


class SynthesisParams(TaskParams):
    """The parameters of a model of speech_synthesis in params.yaml."""

    prepare: SynthesisPrepareParams
    train: SynthesisTrainParams
    evaluate: SynthesisEvaluateParams
