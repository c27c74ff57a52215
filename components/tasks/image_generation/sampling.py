"""From noise to images: the same seed, class and settings give the same pixels, whatever else is sampled beside."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.tasks.image_generation.model import NO_CLASS
from components.tasks.image_generation.params import SamplingParams

TOGETHER = 32
"""Images that are sampled together. A batch is always filled up to this size: kernels for other sizes may round
otherwise, and in an image a difference in the last digits may become one of a grey level."""


def noise(seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Return Gaussian noise (N, *shape) on the CPU, of which each row depends on its seed alone."""
    generators = (torch.Generator().manual_seed(seed) for seed in seeds)
    return torch.stack([torch.randn(shape, generator=each) for each in generators])


@torch.inference_mode()
def sample(model: nn.Module, start: Tensor, label: Tensor, settings: SamplingParams) -> Tensor:
    """Return images, uint8 (N, C, H, W) on the CPU.

    Args:
        model: The network in evaluation mode, on any device.
        start: Noise, (N, C, H, W), N from 1 up.
        label: Labels or weights of classes, as for `Flow`, one per image.
        settings: Sampler, steps and guidance.
    """
    device = next(model.parameters()).device
    filled = torch.arange(-(-len(start) // TOGETHER) * TOGETHER) % len(start)
    images = [
        _pixels(_integrated(model, start[rows].to(device), label[rows].to(device), settings))
        for rows in filled.split(TOGETHER)
    ]
    return torch.cat(images)[: len(start)]


def _integrated(model: nn.Module, x: Tensor, label: Tensor, settings: SamplingParams) -> Tensor:
    """Follow the velocity from time 0 to 1 by Euler's or Heun's method.

    As in algorithm 1 of Karras et al. 2022 (arXiv:2206.00364), Heun's last step is one of Euler's.
    """
    size = 1 / settings.steps
    for step in range(settings.steps):
        slope = _velocity(model, x, step * size, label, settings.guidance)
        if settings.sampler == "heun" and step + 1 < settings.steps:
            ahead = _velocity(model, x + size * slope, (step + 1) * size, label, settings.guidance)
            slope = (slope + ahead) / 2
        x = x + size * slope
    return x


def _velocity(model: nn.Module, x: Tensor, time: float, label: Tensor, guidance: float) -> Tensor:
    """Return the velocity with classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598, equation 6).

    A guidance of 1 is the velocity of the class itself, and 0 that without a class.
    """
    times = torch.full((len(x),), time, device=x.device)
    found: Tensor | None = model(x, times, label) if guidance else None
    if guidance == 1 and found is not None:
        return found
    nothing = torch.full((len(x),), NO_CLASS, device=x.device)
    without: Tensor = model(x, times, nothing)
    return without if found is None else torch.lerp(without, found, guidance)


def _pixels(x: Tensor) -> Tensor:
    """Return images on the scale -1..1 as uint8 on the CPU."""
    return (x * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8).cpu().contiguous()


def between(first: Tensor, last: Tensor, count: int) -> Tensor:
    """Return `count` steps (count, *shape) from one noise to another on the sphere, where noise has its usual norm.

    Spherical interpolation (White 2016, arXiv:1609.04468, section 2.1).
    """
    cosine = F.cosine_similarity(first.flatten(), last.flatten(), dim=0).clamp(-1, 1)
    angle = torch.arccos(cosine)
    share = torch.linspace(0, 1, count).view(-1, *[1] * first.ndim)
    return (torch.sin((1 - share) * angle) * first + torch.sin(share * angle) * last) / torch.sin(angle)
