"""Parameters of predictions from tables."""

from typing import Literal, Self

from pydantic import Field, model_validator

from components.params import LabelSmoothing, Section, TaskParams, TrainParams
from components.tables.params import TablePrepareParams


class ModelParams(Section):
    """The network."""

    network: Literal["tabm", "ft_transformer"] = Field(
        description="tabm: an ensemble of perceptrons that share most weights; ft_transformer: self-attention over "
        "columns"
    )
    members: int = Field(ge=1, le=256, description="tabm: number of perceptrons")
    size: int = Field(ge=4, le=4096, multiple_of=4, description="Features of a layer, or of a column's vector")
    layers: int = Field(ge=1, le=32, description="Number of layers")
    heads: int = Field(ge=1, le=64, description="ft_transformer: heads of attention, which divide size")
    dropout: float = Field(ge=0, lt=1, description="Dropout after each layer")
    embedding: int = Field(ge=1, le=256, description="tabm: features of a number's piecewise-linear embedding")

    @model_validator(mode="after")
    def _heads_divide_the_size(self) -> Self:
        if self.network == "ft_transformer" and self.size % self.heads:
            raise ValueError(f"size {self.size} cannot be divided among {self.heads} heads: make it a multiple")
        return self


class TabularTrainParams(TrainParams):
    """The shared training parameters, and the network."""

    label_smoothing: LabelSmoothing
    unseen: float = Field(
        ge=0, lt=1, description="Share of categories that training replaces by that of unseen ones"
    )
    model: ModelParams


class TabularParams(TaskParams):
    """The parameters of a model of tabular in params.yaml."""

    prepare: TablePrepareParams
    train: TabularTrainParams
