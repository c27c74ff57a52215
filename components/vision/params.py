"""What a user turns in image classification."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from components.params import FilesPrepareParams, Section, TaskParams, TrainParams


class VisionPrepareParams(FilesPrepareParams):
    """How image files become arrays."""

    size: Annotated[int, Field(ge=28, le=1024)] | Literal["auto"] = Field(
        description="Side of the square images in pixels; auto takes it from the training files"
    )
    channels: Literal[1, 3, "auto"] = Field(description="1 is grey, 3 is RGB; auto is 1 when every file is grey")
    max_megapixels: float = Field(gt=0, le=89, description="Larger files are refused as decompression bombs")


class ModelParams(Section):
    """The network: ResNet-18 or 34, or the small one of CIFAR-10's speed records, of 8 layers."""

    depth: Literal[8, 18, 34] = Field(description="Layers: 18 and 34 are ResNet's, 8 a whitened network's")
    width: float = Field(
        ge=0.125, le=4, description="Multiplier of the channels: 64 to 512, or 64 to 256 with depth 8"
    )
    stem: Literal["auto", "small", "imagenet"] = Field(
        description="small is 3x3 without max-pool, imagenet 7x7 with it; auto is small up to 64 pixels"
    )
    init: Literal["random", "pretrained"] = Field(description="pretrained starts from a torchvision checkpoint")
    checkpoint: str | None = Field(description="Local file of a torchvision ResNet's weights, for init: pretrained")
    freeze_backbone: bool = Field(description="Train the classifier alone, on the checkpoint's features")
    mirror: bool = Field(description="Answer with the mean of the logits of an image and of its mirror image")

    @model_validator(mode="after")
    def _checkpoint_when_pretrained(self) -> Self:
        if (self.init == "pretrained") != (self.checkpoint is not None):
            raise ValueError("init: pretrained and a checkpoint file go together: give both or neither")
        if self.freeze_backbone and self.init == "random":
            raise ValueError("freeze_backbone needs init: pretrained: a random backbone has nothing to keep")
        if self.init == "pretrained" and self.width != 1:
            raise ValueError("init: pretrained needs width: 1, for that is what torchvision's weights fit")
        if self.depth == 8 and (self.init == "pretrained" or self.stem != "auto"):
            raise ValueError(
                "depth: 8 has a first layer of its own and no checkpoint: it needs stem: auto, init: random"
            )
        return self


class AugmentParams(Section):
    """Random changes to the training images, made on whole batches on the training device."""

    crop: int = Field(ge=0, le=64, description="Pixels of padding from which a crop of the same size is taken")
    flip: bool | Literal["alternate"] = Field(
        description="Mirror half of the images left to right, or each in every other epoch; wrong for digits"
    )
    mix: Literal["none", "mixup", "cutmix"] = Field(description="Blend each image with another of its batch")
    mix_alpha: float = Field(ge=0.01, le=10, description="Of the Beta distribution that draws the blend's share")


class VisionTrainParams(TrainParams):
    """The shared training parameters, and vision's network and augmentation."""

    model: ModelParams
    augment: AugmentParams

    @model_validator(mode="after")
    def _two_images_a_piece(self) -> Self:
        pieces = max(self.workers, 1) * self.accumulate
        if self.batch_size < 2 * pieces:
            raise ValueError(
                f"batch norm needs two images in each of {pieces} pieces: batch_size {self.batch_size} is too small"
            )
        return self


class VisionParams(TaskParams):
    """tasks.vision in params.yaml."""

    prepare: VisionPrepareParams
    train: VisionTrainParams
