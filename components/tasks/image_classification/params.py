"""Parameters of image classification."""

from typing import Literal, Self

from pydantic import Field, model_validator

from components.images.params import ImagePrepareParams
from components.params import LabelSmoothing, Section, TaskParams, TrainParams


class VisionPrepareParams(ImagePrepareParams):
    """How image files become arrays, and the classes to distinguish."""

    format: Literal["auto", "folders", "csv", "npz"] = Field(
        description="Layout of the raw folder: folders of classes, a CSV manifest, or MedMNIST's arrays; auto "
        "detects it"
    )
    per_class: int = Field(
        default=0,  # older versions have none
        ge=0,
        description="Images of each class, drawn by the seed, to which training, with a validation split that is "
        "drawn from it, is limited; 0 uses all",
    )
    positive: str = Field(
        max_length=200,
        description="Of two classes, the one whose probability decides AUC, sensitivity and specificity, and is "
        "compared with a threshold that is chosen on validation; empty for none",
    )
    score: Literal["accuracy", "auc"] = Field(
        description="By which versions are compared; auc is the mean of the classes' areas under the ROC curve"
    )


class ModelParams(Section):
    """The network: ResNet-18 or 34, MobileNetV2, or the small 8-layer network of CIFAR-10's speed records."""

    network: Literal["resnet18", "resnet34", "mobilenet_v2", "whitened"] = Field(
        description="whitened has 8 layers and learns quickly from small images; the others can start from "
        "torchvision's weights"
    )
    width: float = Field(
        ge=0.125,
        le=4,
        description="Multiplier of the numbers of filters: 64 to 512 of a ResNet, 16 to 1280 of mobilenet_v2, "
        "64 to 256 of whitened",
    )
    stem: Literal["auto", "small", "imagenet"] = Field(
        description="First layers of a ResNet: small is 3x3 without max-pooling, imagenet 7x7 with it; auto is "
        "small up to 64 pixels"
    )
    mirror: bool = Field(description="Average the logits of an image and of its mirror image in prediction")
    members: int = Field(
        ge=1, le=16, description="Independent copies of the network, whose probabilities are averaged in prediction"
    )

    @model_validator(mode="after")
    def _only_a_resnet_has_a_choice_of_stems(self) -> Self:
        if not self.network.startswith("resnet") and self.stem != "auto":
            raise ValueError(f"network: {self.network} has first layers of its own: it needs stem: auto")
        return self


class AugmentParams(Section):
    """Random augmentation of batches of training images, on the training device."""

    crop: int = Field(ge=0, le=64, description="Pixels of padding before a random crop to the original size")
    flip: bool | Literal["alternate"] = Field(
        description="Mirror a random half of the images, or each in every other epoch; wrong for digits"
    )
    mix: Literal["none", "mixup", "cutmix"] = Field(description="Blend each image with another of its batch")
    mix_alpha: float = Field(ge=0.01, le=10, description="Parameter of the Beta distribution of mixing shares")


class VisionTrainParams(TrainParams):
    """The shared training parameters, and vision's network and augmentation."""

    label_smoothing: LabelSmoothing
    class_weights: Literal["none", "balanced"] = Field(
        description="Weights of the training samples' losses: balanced makes all classes count equally"
    )
    model: ModelParams
    augment: AugmentParams

    @model_validator(mode="after")
    def _layers_of_one_network_are_counted(self) -> Self:
        if self.model.members > 1 and self.init.layer_decay < 1:
            raise ValueError("init.layer_decay counts the layers of one network: it needs model.members: 1")
        return self

    @model_validator(mode="after")
    def _two_images_per_micro_batch(self) -> Self:
        micro_batches = max(self.workers, 1) * self.accumulate
        if self.batch_size < 2 * micro_batches:
            raise ValueError(
                f"batch norm needs two images in each of {micro_batches} micro-batches: "
                f"batch_size {self.batch_size} is too small"
            )
        return self


class VisionParams(TaskParams):
    """The parameters of a model of image_classification in params.yaml."""

    prepare: VisionPrepareParams
    train: VisionTrainParams
