"""FID: the Fréchet distance between features of a published Inception network, whose file the user provides."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from components import weights
from components.errors import PedigreeError
from components.runtime import files
from components.runtime.progress import Progress
from components.tasks.image_generation import distances

log = logging.getLogger("pedigree.evaluate")

PUBLISHED = "pt_inception-2015-12-05-6726825d.pth"
"""The file of pytorch-fid: the network of Heusel et al. 2017 (arXiv:1706.08500), converted from TensorFlow."""
SHA256 = "6726825d"
"""Beginning of its hash."""
CLASSES = 1008
"""Outputs of the network's last layer, which FID does not use."""
SIDE = 299
"""Height and width in pixels of the network's input."""
TOGETHER = 16
"""Images in a batch."""


def _mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _maximum(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


class _Block(Protocol):
    """A block of torchvision's, as far as it is used here."""

    def _forward(self, x: Tensor) -> list[Tensor]: ...


LAYERS: dict[str, Callable[[Tensor], Tensor] | None] = {
    **dict.fromkeys(("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1")),
    **dict.fromkeys(("Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2")),
    **dict.fromkeys(("Mixed_5b", "Mixed_5c", "Mixed_5d"), _mean),
    "Mixed_6a": None,
    **dict.fromkeys(("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"), _mean),
    "Mixed_7a": None,
    "Mixed_7b": _mean,
    "Mixed_7c": _maximum,
}
"""Layers of torchvision's network in their order, and how those pool that do not pool as torchvision's."""


class Inception(nn.Module):
    """The features of FID: torchvision's Inception v3 up to its last pooling, but with other pooling inside blocks.

    In TensorFlow, a mean at the border leaves padding out, and the last block takes a maximum instead of a mean.

    Args:
        tensors: Of a file such as `PUBLISHED`, by the names of torchvision's network.

    Raises:
        RuntimeError: they do not fit.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        # A served model does without torchvision, whose import takes a moment.
        from torchvision.models import inception_v3  # type: ignore[import-untyped]

        super().__init__()
        with torch.device("meta"):  # random weights would only be replaced
            self.network = inception_v3(num_classes=CLASSES, aux_logits=False, init_weights=False)
        # A batch norm's number of batches is not used, and files from before torch 0.4.1 have none.
        unused = {name for name in self.network.state_dict() if name.endswith("num_batches_tracked")}
        own = {name: tensor for name, tensor in tensors.items() if name not in unused}
        counts = {name: torch.zeros((), dtype=torch.int64) for name in unused}
        self.network.load_state_dict(own | counts, assign=True)
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        """Map images, uint8 (N, 1 or 3, H, W), to features (N, 2048)."""
        pixels = image.expand(-1, 3, -1, -1).float() / 255
        x = 2 * F.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear") - 1
        for name, pool in LAYERS.items():
            layer = self.network.get_submodule(name)
            x = layer(x) if pool is None else _mixed(layer, x, pool)
        return x.mean((2, 3))


def _mixed(block: nn.Module, x: Tensor, pool: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what a block of torchvision's maps x to, with another pooling in its last branch."""
    *others, _ = cast(_Block, block)._forward(x)
    return torch.cat([*others, block.get_submodule("branch_pool")(pool(x))], 1)


def load(file: Path) -> Inception:
    """Load the network from a PyTorch state dict or a safetensors file, without running code in it.

    Raises:
        PedigreeError: the file is damaged, contains more than tensors, or those of another network.
    """
    another = PedigreeError(
        f"{file} is not the Inception network of FID: get {PUBLISHED} (docs/tasks/image_generation.md says how) "
        "and name it in evaluate.inception, or leave that empty"
    )
    if not file.is_file():
        raise another
    try:
        network = Inception(weights.read(file))
    except RuntimeError as error:  # of tensors with other names or shapes
        raise another from error
    if not files.sha256(file).startswith(SHA256):
        log.warning(
            f"{file.name} is not the published {PUBLISHED}, whose SHA-256 starts with {SHA256}: `fid` cannot be "
            "compared with published ones"
        )
    return network


@torch.inference_mode()
def features(network: Inception, images: Tensor, what: str) -> NDArray[np.float64]:
    """Return the features of images, uint8 (N, C, H, W), as (N, 2048), and log progress on `what` they are."""
    found: list[Tensor] = []
    progress = Progress(log)
    for few in images.split(TOGETHER):
        found.append(network(few))
        progress.say(f"fid: features of {len(found) * TOGETHER:,} of {len(images):,} {what} images")
    return torch.cat(found).double().numpy()


def distance(real: NDArray[np.float64], generated: NDArray[np.float64]) -> float:
    """Return the Fréchet distance between features (N, D) of two sets of images, of each at least two.

    Covariances are divided by N - 1, as in pytorch-fid.
    """
    one, other = (distances.Normal(each.mean(0), np.cov(each, rowvar=False)) for each in (real, generated))
    return distances.frechet(one, other)
