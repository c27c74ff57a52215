"""Parameters of segmentation."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from components.images.networks.pyramid import Coarsest, Encoder
from components.params import EvaluateParams, FilesPrepareParams, Section, TaskParams, TrainParams

Byte = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Byte, Byte, Byte]
MOST = 255
"""Most classes."""
Number = Annotated[int, Field(ge=0, le=65535)]


class SegmentationPrepareParams(FilesPrepareParams):
    """How images and masks become arrays."""

    format: Literal["auto", "folders", "instances", "voc", "cityscapes", "coco"] = Field(
        description="Layout of the raw folder; auto finds it: folders has a mask for each image, instances one for "
        "each object, voc, cityscapes and coco are those data sets' own"
    )
    classes: Literal["auto"] | list[str] | dict[str, Number | Colour] = Field(
        description="Names of the numbers 0, 1, … in the masks; or name and number, or name and [red, green, blue] "
        "of each class; auto takes those of VOC, Cityscapes or COCO, background and foreground if masks have 0 and "
        "255 alone, or else the numbers from 0 on"
    )
    ignore: Literal["auto", "none"] | Number | Colour = Field(
        description="Number or colour of pixels without a class; auto is 255, unless it is a class or the masks "
        "have 0 and 255 alone"
    )
    longest: Literal["native"] | Annotated[int, Field(ge=32, le=16384)] = Field(
        description="Largest side of an image in pixels; larger images are made smaller, but evaluated at their "
        "own size"
    )
    max_megapixels: float = Field(gt=0, le=89, description="Larger files are rejected as decompression bombs")

    @model_validator(mode="after")
    def _classes_are_distinct(self) -> Self:
        if self.classes == "auto":
            return self
        values = list(self.numbered().values())
        if isinstance(self.classes, list) and len(set(self.classes)) < len(self.classes):
            raise ValueError("classes need different names")
        if not 2 <= len(values) <= MOST or len(set(values)) < len(values):
            raise ValueError(f"classes need 2 to {MOST} names with different numbers or colours")
        if len({isinstance(each, int) for each in values}) > 1:
            raise ValueError("classes need numbers or colours, not both")
        if self.ignore in values:
            raise ValueError(f"ignore {self.ignore} is one of the classes: remove one of the two")
        if self.ignore not in ("auto", "none") and isinstance(self.ignore, int) != isinstance(values[0], int):
            raise ValueError("ignore is a number if classes have numbers, and a colour if they have colours")
        return self

    def numbered(self) -> dict[str, int | Colour]:
        """Return the number or colour of each class; none for auto."""
        if isinstance(self.classes, dict):
            return dict(self.classes)
        return {} if self.classes == "auto" else {name: number for number, name in enumerate(self.classes)}


class ModelParams(Section):
    """The network: an encoder, and a decoder that doubles the resolution step by step up to half of the image's."""

    network: Encoder = Field(description="Network that reads the image; it can start from torchvision's weights")
    width: float = Field(
        ge=0.125,
        le=4,
        description="Multiplier of the encoder's filters, 64 to 512 of a ResNet and 16 to 320 of mobilenet_v2; "
        "torchvision's weights need 1",
    )
    stride: Coarsest = Field(
        description="Stride of the encoder's last map; the layers of stride 32 see larger objects whole"
    )
    decoder: int = Field(
        ge=8, le=512, description="Filters of the decoder at stride 4; half at stride 2, twice as many at 8 and 16"
    )


class LossParams(Section):
    """What is minimised: cross-entropy over labelled pixels, and optionally Dice."""

    class_weights: Literal["none", "median_frequency"] = Field(
        description="median_frequency weights the pixels of rare classes more (Eigen and Fergus 2015)"
    )
    dice: float = Field(ge=0, le=100, description="Weight of the soft Dice loss beside cross-entropy; 0 omits it")


class AugmentParams(Section):
    """Random changes to training images and their masks."""

    flip: bool = Field(description="Mirror half of the images")
    turns: bool = Field(description="Turn by 90 degrees, for images in which no direction is up")
    scale: float = Field(
        ge=1, le=8, description="Largest factor of resizing, and 1 / scale the smallest; 1 is none"
    )
    colour: float = Field(
        ge=0, lt=1, description="Largest change of brightness, contrast and saturation, as a share of each"
    )


class SegmentationTrainParams(TrainParams):
    """Training parameters."""

    crop: int = Field(ge=32, le=4096, description="Side in pixels of the square part of an image to train on")
    model: ModelParams
    loss: LossParams
    augment: AugmentParams


class SegmentationEvaluateParams(EvaluateParams):
    """Evaluation parameters."""

    boundary_tolerance: float = Field(
        gt=0,
        le=0.1,
        description="Distance up to which boundaries count as equal, as a share of the image's diagonal",
    )


class SegmentationParams(TaskParams):
    """The parameters of a model of segmentation in params.yaml."""

    prepare: SegmentationPrepareParams
    train: SegmentationTrainParams
    evaluate: SegmentationEvaluateParams
