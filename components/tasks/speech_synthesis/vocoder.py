"""From a log-mel spectrogram to sound.

`Magnitudes` is a small network that finds the magnitudes of the short-time Fourier transform, as in Tachibana et
al. 2018 (arXiv:1710.08969); Griffin-Lim finds the phases. `Phases` finds both, as Vocos does (Siuzdak 2023,
arXiv:2306.00814), without its discriminators.

Shapes: B recordings, N samples, T frames, M mel bands, F frequencies, D features.
"""

from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import griffinlim  # type: ignore[import-untyped]

from components.tasks.speech_synthesis.params import VocoderParams
from components.tasks.speech_synthesis.spectra import Spectra, logarithm

MOMENTUM = 0.99
"""Of the fast Griffin-Lim algorithm (Perraudin et al. 2013)."""
RESOLUTIONS = (256, 512, 1024)
"""Points of the Fourier transforms by which sounds are compared."""


class Vocoder(Protocol):
    """A network from a normalised log-mel spectrogram to sound."""

    def loss(self, spectra: Spectra, x: Tensor, power: Tensor, sound: Tensor, inside: Tensor) -> Tensor:
        """Return the loss of each frame, (B, T), of a segment of recordings.

        Args:
            spectra: The transform.
            x: Normalised log-mel spectrogram, (B, T, M).
            power: (B, T, F).
            sound: Its samples between -1 and 1, (B, (T - 1) * hop).
            inside: 1 where there is no padding, (B, T, 1).
        """

    def sound(self, spectra: Spectra, x: Tensor, seed: int) -> Tensor:
        """Return the samples between -1 and 1, (N,), of one normalised log-mel spectrogram (1, T, M)."""


class Magnitudes(nn.Module):
    """Finds the logarithms of magnitudes, and their phases by Griffin-Lim.

    Args:
        params: Size, layers and iterations.
        bands: M.
        spectra: The transform.
    """

    def __init__(self, params: VocoderParams, bands: int, spectra: Spectra) -> None:
        super().__init__()
        sizes = [bands] + [params.size] * params.layers
        self.layers = nn.ModuleList(nn.Conv1d(own, params.size, 3, padding=1) for own in sizes[:-1])
        self.output = nn.Linear(params.size, spectra.frequencies)
        self.direct = nn.Linear(bands, spectra.frequencies)
        self.iterations = params.iterations

    def forward(self, x: Tensor) -> Tensor:
        """Map a normalised log-mel spectrogram (B, T, M) to logarithms of magnitudes, float32 (B, T, F)."""
        hidden = x.transpose(1, 2)
        for layer in self.layers:
            hidden = layer(hidden).relu()
        found: Tensor = self.output(hidden.transpose(1, 2)) + self.direct(x)
        return found.float()

    def loss(self, spectra: Spectra, x: Tensor, power: Tensor, sound: Tensor, inside: Tensor) -> Tensor:
        """See `Vocoder`: the mean absolute difference of logarithms."""
        found: Tensor = self(x)
        return (found - logarithm(power)).abs().mean(2)

    def sound(self, spectra: Spectra, x: Tensor, seed: int) -> Tensor:
        """See `Vocoder`; the seed is that of the phases that Griffin-Lim begins with."""
        # On the CPU, whose random numbers are the same with and without a GPU.
        magnitudes = spectra.magnitudes(self(x)[0].T).cpu()  # (F, T)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            found = griffinlim(
                magnitudes,
                spectra.window.cpu(),
                spectra.points,
                spectra.hop,
                spectra.window_length,
                power=1.0,
                n_iter=self.iterations,
                momentum=MOMENTUM,
                length=None,
                rand_init=True,
            )
        return cast(Tensor, found)


class Phases(nn.Module):
    """Finds magnitudes and phases, which the inverse transform turns into sound.

    Args:
        params: Size and layers.
        bands: M.
        spectra: The transform.
    """

    def __init__(self, params: VocoderParams, bands: int, spectra: Spectra) -> None:
        super().__init__()
        self.enter = nn.Conv1d(bands, params.size, 7, padding=3)
        self.depthwise = nn.ModuleList(
            nn.Conv1d(params.size, params.size, 7, padding=3, groups=params.size) for _ in range(params.layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(params.size) for _ in range(params.layers))
        self.pointwise = nn.ModuleList(
            nn.Sequential(
                nn.Linear(params.size, 2 * params.size), nn.GELU(), nn.Linear(2 * params.size, params.size)
            )
            for _ in range(params.layers)
        )
        self.last = nn.LayerNorm(params.size)
        self.output = nn.Linear(params.size, 2 * spectra.frequencies)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map a normalised log-mel spectrogram (B, T, M) to logarithms of magnitudes and phases, each (B, T, F)."""
        hidden = self.enter(x.transpose(1, 2))
        for depthwise, norm, pointwise in zip(self.depthwise, self.norms, self.pointwise, strict=True):
            changed = pointwise(norm(depthwise(hidden).transpose(1, 2)))
            hidden = hidden + changed.transpose(1, 2)
        magnitude, phase = self.output(self.last(hidden.transpose(1, 2))).float().chunk(2, 2)
        return magnitude.clamp(max=8), phase

    def _waves(self, spectra: Spectra, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logarithms of magnitudes, (B, T, F), and samples, (B, (T - 1) * hop)."""
        logarithms, phases = self(x)
        with torch.autocast(x.device.type, enabled=False):
            spectrum = torch.polar(spectra.magnitudes(logarithms), phases)
            return logarithms, inverted(spectrum, spectra)

    def loss(self, spectra: Spectra, x: Tensor, power: Tensor, sound: Tensor, inside: Tensor) -> Tensor:
        """See `Vocoder`: differences of logarithms, and of the sounds' magnitudes at several resolutions."""
        logarithms, waves = self._waves(spectra, x)
        with torch.autocast(x.device.type, enabled=False):
            differences = torch.stack([_difference(waves, sound, points) for points in RESOLUTIONS]).mean(0)
        return (logarithms - logarithm(power)).abs().mean(2) + differences[:, None]

    def sound(self, spectra: Spectra, x: Tensor, seed: int) -> Tensor:
        """See `Vocoder`; nothing is random."""
        return self._waves(spectra, x)[1][0]


def inverted(spectrum: Tensor, spectra: Spectra) -> Tensor:
    """Return the samples, (B, (T - 1) * hop), of transforms (B, T, F), complex.

    The same as torch's `istft`, which waits for a GPU, as it looks for places that no window covers.
    """
    points, missing = spectra.points, spectra.points - spectra.window_length
    window = F.pad(spectra.window, (missing // 2, missing - missing // 2))
    frames = torch.fft.irfft(spectrum, points) * window  # (B, T, points)
    squares = window.square().expand_as(frames[:1])
    length = (spectrum.shape[1] - 1) * spectra.hop + points
    added, covered = (
        F.fold(each.transpose(1, 2), (1, length), (1, points), stride=(1, spectra.hop))[:, 0, 0]
        for each in (frames, squares)
    )
    inside = slice(points // 2, length - points // 2)
    return added[:, inside] / covered[:, inside]


def _difference(one: Tensor, other: Tensor, points: int) -> Tensor:
    """Return the mean difference of sounds (B, N) in their magnitudes and the logarithms of these, (B,)."""
    window = torch.hann_window(points, device=one.device)
    spectra = [torch.stft(each, points, points // 4, window=window, return_complex=True) for each in (one, other)]
    first, second = ((each.real.square() + each.imag.square()) / points for each in spectra)
    logs = (logarithm(first) - logarithm(second)).abs().mean((1, 2))
    roots = [(each + 1e-9).sqrt() for each in (first, second)]
    return logs + (roots[0] - roots[1]).abs().mean((1, 2)) / roots[1].mean((1, 2))


def vocoder_of(params: VocoderParams, bands: int, spectra: Spectra) -> Magnitudes | Phases:
    """Return the vocoder that the parameters name."""
    return (Magnitudes if params.network == "magnitudes" else Phases)(params, bands, spectra)
