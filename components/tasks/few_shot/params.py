"""Parameters of few-shot classification."""

from typing import Self

from pydantic import Field, model_validator

from components.images.params import ImagePrepareParams
from components.params import Section, TaskParams, TrainParams


class FewShotPrepareParams(ImagePrepareParams):
    """How image files become arrays, and whether their classes are new."""

    taught: bool = Field(
        description="Whether images are those by which a trained network knows classes: `pedigree teach` sets it"
    )


class EpisodeParams(Section):
    """The episodes of training."""

    count: int = Field(ge=1, le=1_000_000, description="Episodes of an epoch")
    ways: int = Field(ge=2, le=1000, description="Classes of an episode")
    shots: int = Field(ge=1, le=100, description="Images of each class that make up its prototype")
    queries: int = Field(ge=1, le=100, description="Further images of each class, which are to be recognised")


class ModelParams(Section):
    """The network, Conv-4."""

    width: int = Field(ge=8, le=512, description="Filters of each of the four blocks")


class AugmentParams(Section):
    """Random augmentation of episodes, on the training device."""

    turns: bool = Field(
        description="Count each class turned by 90, 180 and 270 degrees as a class of its own; wrong where classes "
        "are turned images of each other"
    )
    rotate: float = Field(ge=0, le=45, description="Largest rotation of an image in degrees")
    scale: float = Field(ge=0, le=0.5, description="Largest relative change of an image's size, and of its shear")
    shift: float = Field(ge=0, le=0.5, description="Largest shift, as a share of the image's side")


class FewShotTrainParams(TrainParams):
    """The shared training parameters, and the episodes, the network and the augmentation."""

    episodes: EpisodeParams
    model: ModelParams
    augment: AugmentParams

    @model_validator(mode="after")
    def _an_epoch_has_a_batch(self) -> Self:
        if self.episodes.count < self.batch_size:
            raise ValueError(
                f"an epoch of {self.episodes.count} episodes has no batch of {self.batch_size}: raise its count"
            )
        return self


class FewShotParams(TaskParams):
    """The parameters of a model of few_shot in params.yaml."""

    prepare: FewShotPrepareParams
    train: FewShotTrainParams
