"""Parameters of image generation."""

from typing import Literal

from pydantic import Field

from components.images.params import ImagePrepareParams
from components.params import EvaluateParams, Section, Source, TaskParams, TrainParams

Sampler = Literal["euler", "heun"]


class FlowPrepareParams(ImagePrepareParams):
    """How image files become arrays, and how the networks are trained that measure generated images."""

    classifier_updates: int = Field(
        ge=1, le=1_000_000, description="Updates of each of the two classifiers that measure generated images"
    )


class ModelParams(Section):
    """The U-Net: its levels have width, 2 width, 4 width, … filters, each at half the resolution of the last."""

    patch: Literal[1, 2, 4] = Field(description="Side in pixels of the squares that the network takes for a pixel")
    width: int = Field(ge=8, le=1024, multiple_of=8, description="Filters at full resolution")
    levels: int = Field(ge=1, le=4, description="Number of resolutions")
    blocks: int = Field(ge=1, le=8, description="Residual blocks at each resolution, on the way down and up")
    dropout: float = Field(ge=0, lt=1, description="Dropout inside residual blocks")


class TimeParams(Section):
    """How the times are drawn at which the network learns, 0 for noise and 1 for images: logit-normal."""

    mean: float = Field(
        ge=-5, le=5, description="Mean of the logit; below 0 is nearer to noise, which decides on shapes"
    )
    std: float = Field(gt=0, le=5, description="Standard deviation of the logit")


class FlowTrainParams(TrainParams):
    """The shared training parameters, and the network of image generation."""

    label_drop: float = Field(
        ge=0, lt=1, description="Share of images trained without their class, which guidance needs"
    )
    time: TimeParams
    flip: bool = Field(description="Mirror a random half of the images; wrong for digits")
    model: ModelParams


class SamplingParams(Section):
    """How images are sampled, unless a request says otherwise."""

    sampler: Sampler = Field(description="heun evaluates the network twice in each step, and needs fewer steps")
    steps: int = Field(ge=1, le=10_000, description="Steps from noise to an image")
    guidance: float = Field(
        ge=0, le=100, description="1 samples the class as it was learnt, more exaggerates it, 0 ignores it"
    )


class LimitParams(Section):
    """The most that a row of a request may ask for."""

    count: int = Field(ge=1, le=100_000, description="Largest number of images")
    steps: int = Field(ge=1, le=10_000, description="Largest number of steps")


class FlowEvaluateParams(EvaluateParams):
    """The shared evaluation parameters, and sampling."""

    sampling: SamplingParams
    limits: LimitParams
    inception: Source = Field(
        description="File of the network by whose features FID is measured, beside the score; empty: it is not"
    )


class FlowParams(TaskParams):
    """The parameters of a model of image_generation in params.yaml."""

    prepare: FlowPrepareParams
    train: FlowTrainParams
    evaluate: FlowEvaluateParams
