"""Networks for images: residual ones (He et al. 2015, arXiv:1512.03385), their parts named as in torchvision."""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Container
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn

from components.contracts import Batch, Manifest
from components.errors import PedigreeError
from components.vision.params import VisionParams
from components.vision.prepare import VisionFacts
from components.vision.whitened import Whitened, whiten

Stem = Literal["small", "imagenet"]

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
"""Blocks in the four stages, by the number of layers: table 1 of the paper."""
SMALL = 64
"""Largest image side, in pixels, that `stem: auto` gives the small stem."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut round them: the paper's figure 2, with its option B projection."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        # The projection is drawn first, as torchvision does: equal seeds then give equal weights.
        downsample = _projection(channels, filters, stride) if stride > 1 or channels != filters else None
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to (N, filters, H / stride, W / stride), rounded up."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return cast(Tensor, self.relu(x + shortcut))


def _projection(channels: int, filters: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))


def _stage(channels: int, filters: int, stride: int, blocks: int) -> nn.Sequential:
    first = BasicBlock(channels, filters, stride)
    return nn.Sequential(first, *(BasicBlock(filters, filters, 1) for _ in range(blocks - 1)))


class ResNet(nn.Module):
    """ResNet-18 or 34 with basic blocks; torchvision's state dicts load as they are with the imagenet stem.

    Args:
        depth: layers, 18 or 34.
        channels: of the images, 1 or 3.
        classes: outputs of the head `fc`.
        width: multiplier of the filters 64, 128, 256, 512; the products are rounded to multiples of 8.
        stem: small is a 3x3 convolution at full resolution, for images of about 32 pixels; imagenet is 7x7
            with stride 2 and a max-pool.
    """

    def __init__(self, depth: int, channels: int, classes: int, width: float = 1, stem: Stem = "small") -> None:
        super().__init__()
        self.depth, self.stem, self.frozen = depth, stem, False
        filters = [max(8, 8 * round(width * n / 8)) for n in (64, 128, 256, 512)]
        kernel, stride = (3, 1) if stem == "small" else (7, 2)
        self.conv1 = nn.Conv2d(channels, filters[0], kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(filters[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if stem == "small" else nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(filters[0], filters[0], 1, BLOCKS[depth][0])
        self.layer2 = _stage(filters[0], filters[1], 2, BLOCKS[depth][1])
        self.layer3 = _stage(filters[1], filters[2], 2, BLOCKS[depth][2])
        self.layer4 = _stage(filters[2], filters[3], 2, BLOCKS[depth][3])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(filters[3], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, channels, H, W), H and W from 28 up, to logits (N, classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (N, filters, H / 8 or H / 32, W likewise)
        return cast(Tensor, self.fc(self.avgpool(x).flatten(1)))

    def freeze_backbone(self) -> None:
        """Keep everything but the head `fc` as it is from now on, the batch norms' statistics too."""
        self.requires_grad_(False)
        self.fc.requires_grad_(True)
        self.frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation; a frozen backbone stays in evaluation."""
        super().train(mode and not self.frozen)
        self.training = mode
        self.fc.train(mode)
        return self


class Normalize(nn.Module):
    """Bring images on the scale 0..255 to the network's scale: (x / 255 - mean) / std, a channel at a time.

    Args:
        mean: of each channel, on the scale 0..1.
        std: likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))  # (C, 1, 1)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Map uint8 or float images (N, C, H, W) to floats of the same shape."""
        # The quotient is a new tensor, so that writing into it spares memory and leaves the images alone.
        return (image.to(self.mean.dtype) / 255).sub_(self.mean).div_(self.std)


class _Mirrored(nn.Sequential):
    """Answers, but for training, with the mean of the logits of an image and of its mirror image."""

    def forward(self, image: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, classes)."""
        logits = self._answer(image)
        return logits if self.training else (logits + self._answer(image.flip(3))) / 2

    def _answer(self, x: Tensor) -> Tensor:
        for part in self:
            x = part(x)
        return x


def build_model(params: VisionParams, manifest: Manifest) -> nn.Module:
    """Build the network for the prepared data, with random weights: images on the scale 0..255 to logits."""
    facts = VisionFacts.model_validate(manifest.facts)
    chosen = params.train.model
    parts = OrderedDict[str, nn.Module](normalize=Normalize(facts.mean, facts.std), network=_network(params, facts))
    return _Mirrored(parts) if chosen.mirror else nn.Sequential(parts)


def _network(params: VisionParams, facts: VisionFacts) -> nn.Module:
    chosen = params.train.model
    if chosen.depth == 8:
        return Whitened(facts.channels, len(facts.classes), chosen.width)
    auto: Stem = "small" if facts.size <= SMALL else "imagenet"
    stem = auto if chosen.stem == "auto" else chosen.stem
    resnet = ResNet(chosen.depth, facts.channels, len(facts.classes), chosen.width, stem)
    if chosen.freeze_backbone:
        resnet.freeze_backbone()
    return resnet


def initialise(model: nn.Module, params: VisionParams, split: Batch) -> None:
    """Give a network from `build_model` the weights that training starts from.

    For `init: random` it has them already, but for the first layer of depth 8, which whitens the patches of the
    training split's images. For `init: pretrained` the backbone takes those of a torchvision
    checkpoint and the head stays new. For images of one channel the first filters are summed over their
    channels: the answer to a grey image is then the checkpoint's to three equal channels.

    Raises:
        PedigreeError: the stem is small, or the checkpoint is missing, unreadable, unsafe or does not fit.
    """
    checkpoint, network = params.train.model.checkpoint, model.get_submodule("network")
    if isinstance(network, Whitened):
        whiten(network.whiten, split["image"], model.get_submodule("normalize"))
    if checkpoint is None:
        return
    resnet, file = cast(ResNet, network), Path(checkpoint)
    if resnet.stem != "imagenet":
        raise PedigreeError(f"{file}: torchvision's weights do not fit the small stem: set stem: imagenet")
    weights = {name: tensor for name, tensor in _tensors(file).items() if not name.startswith("fc.")}
    first = weights.get("conv1.weight")
    if resnet.conv1.in_channels == 1 and first is not None and first.ndim == 4:
        weights["conv1.weight"] = first.sum(1, keepdim=True)
    _check_fit(file, weights, resnet)
    resnet.load_state_dict(weights, strict=False)


def _tensors(file: Path) -> dict[str, Tensor]:
    """Read a file of named tensors without running anything in it."""
    if not file.is_file():
        raise PedigreeError(f"{file} is not a file: name a torchvision checkpoint in train.model.checkpoint")
    try:
        content = _read(file)
    except pickle.UnpicklingError:
        raise PedigreeError(
            f"{file} holds more than tensors and is not loaded because it could run code: "
            "save the weights alone, with torch.save(model.state_dict(), file)"
        ) from None
    except PermissionError:
        raise
    except Exception as error:  # damage makes the readers fail in any way
        raise PedigreeError(f"{file} cannot be read and seems damaged: get the checkpoint again") from error
    if not isinstance(content, dict):
        raise PedigreeError(f"{file} holds a {type(content).__name__} and no named tensors: save a state_dict")
    others = [str(k) for k, value in content.items() if not (isinstance(k, str) and isinstance(value, Tensor))]
    if others:
        raise PedigreeError(f"{file} holds more than tensors, {', '.join(others[:3])}: save the state_dict alone")
    return content


def _read(file: Path) -> Any:
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    # Files from before torch 1.6 are no zip archives, and only archives can be mapped.
    return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))


def _check_fit(file: Path, weights: dict[str, Tensor], resnet: ResNet) -> None:
    misfits = _misfits(weights, resnet)
    if misfits:
        more = f" and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise PedigreeError(
            f"{file} does not fit a ResNet-{resnet.depth}: {', '.join(misfits[:3])}{more}: "
            f"give a checkpoint of torchvision's resnet{resnet.depth}{_hint(weights, resnet.depth)}"
        )


def _misfits(weights: dict[str, Tensor], resnet: ResNet) -> list[str]:
    """Say of each tensor that is foreign, missing or of another shape what is wrong with it."""
    # torchvision's older checkpoints lack the counters, and nothing here uses them.
    optional = {name for name in resnet.state_dict() if name.endswith("num_batches_tracked")}
    wanted = {name: w.shape for name, w in resnet.state_dict().items() if not name.startswith("fc.")}
    foreign = [f"{name} is foreign" for name in weights if name not in wanted]
    missing = [f"{name} is missing" for name in wanted if name not in weights and name not in optional]
    shapes = [
        f"{name} is {tuple(weights[name].shape)} instead of {tuple(shape)}"
        for name, shape in wanted.items()
        if name in weights and weights[name].shape != shape
    ]
    return foreign + missing + shapes


def _hint(names: Container[str], depth: int) -> str:
    if "layer1.0.conv3.weight" in names:
        return "; this one seems to be of 50 layers or more"
    seems = 34 if "layer1.2.conv2.weight" in names else 18
    if seems == depth or "layer1.1.conv2.weight" not in names:
        return ""
    return f", or set depth: {seems}, which this one seems to be of"
