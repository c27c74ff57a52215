"""Parameters of driving."""

from pydantic import Field

from components.params import FilesPrepareParams, Section, TaskParams, TrainParams


class DrivingPrepareParams(FilesPrepareParams):
    """How recorded drives become samples."""

    horizon: float = Field(
        gt=0, le=5, description="Seconds ahead over which the acceleration is averaged and the lane is looked up"
    )


class ModelParams(Section):
    """The network: a perceptron."""

    width: int = Field(ge=1, le=8192, description="Units of a hidden layer")
    layers: int = Field(ge=1, le=16, description="Hidden layers")
    dropout: float = Field(ge=0, lt=1, description="Rate after each hidden layer")


class DrivingTrainParams(TrainParams):
    """The shared training parameters, and the network."""

    model: ModelParams
    lane_weight: float = Field(ge=0, le=100, description="Weight of the lane's loss beside the acceleration's")


class DrivingParams(TaskParams):
    """The parameters of a model of driving in params.yaml."""

    prepare: DrivingPrepareParams
    train: DrivingTrainParams
