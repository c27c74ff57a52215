"""Parameters of object detection."""

from pydantic import Field

from components.images.annotations.layout import Format
from components.images.annotations.voc import Origin
from components.images.networks.pyramid import Coarsest, Encoder
from components.params import FilesPrepareParams, Section, TaskParams, TrainParams


class DetectionPrepareParams(FilesPrepareParams):
    """How annotated images become arrays."""

    format: Format = Field(description="Format of the annotations; auto detects it from the names of files")
    box_origin: Origin = Field(
        description="Number of the first pixel in Pascal VOC's files: VOC itself counts from 1, many programs from "
        "0; auto decides from boxes at the images' edges"
    )
    empty_ok: bool = Field(description="Whether an image without a text file of YOLO's has no objects")
    longest: int = Field(ge=32, le=4096, description="Longest side of an image in pixels; larger ones are reduced")
    max_megapixels: float = Field(gt=0, le=89, description="Larger files are rejected as decompression bombs")


class ModelParams(Section):
    """The network: an encoder, a neck that joins its feature maps at stride 4, and one head."""

    network: Encoder = Field(description="The encoder; all can start from torchvision's weights, with width: 1")
    width: float = Field(
        ge=0.125,
        le=4,
        description="Multiplier of the encoder's filters: 64 to 512 of a ResNet, 16 to 320 otherwise",
    )
    stride: Coarsest = Field(
        description="Stride of the encoder's last map; the layers of stride 32 see larger objects whole"
    )
    neck: int = Field(ge=8, le=512, description="Channels of the neck and of the head")


class AugmentParams(Section):
    """Random augmentation of batches of training images with their boxes, on the training device."""

    flip: bool = Field(description="Mirror a random half of the images; wrong for digits")
    flip_vertical: bool = Field(description="Turn a random half upside down: right for cells and aerial images")
    turn: bool = Field(description="Turn whole batches by a random multiple of 90 degrees: right for such images")
    scale: float = Field(
        ge=1, le=4, description="Largest factor by which an image is enlarged or reduced; also moves it; 1 does not"
    )
    colour: float = Field(
        ge=0, lt=1, description="Largest change of brightness, contrast and saturation, as a share"
    )


class DetectionTrainParams(TrainParams):
    """The shared training parameters, and the network and augmentation of detection."""

    box_weight: float = Field(
        gt=0, le=100, description="Weight of the loss of the boxes beside that of the classes"
    )
    model: ModelParams
    augment: AugmentParams


class DetectionParams(TaskParams):
    """The parameters of a model of object_detection in params.yaml."""

    prepare: DetectionPrepareParams
    train: DetectionTrainParams
