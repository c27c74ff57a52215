"""How far apart two sets of images are, and whether one copies the other."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NEIGHBOURS = 3
"""The neighbour at whose distance the sphere around an image ends (Kynkäänniemi et al. 2019, section 3)."""
ROWS = 200
"""Images whose distances to all others are in memory at once."""


@dataclass(frozen=True)
class Normal:
    """A normal distribution."""

    mean: Floats
    """(D,)."""
    covariance: Floats
    """(D, D)."""


def normal(rows: Floats, weights: Floats | None = None) -> Normal:
    """Fit a normal distribution to rows (R, D); one of weight 2, (R,), counts as two. NaN without any weight."""
    weights = np.ones(len(rows)) if weights is None else weights
    total = weights.sum()
    shares = weights / (total or math.nan)
    mean = shares @ rows if total else np.full(rows.shape[1], math.nan)
    centred = rows - mean
    return Normal(mean, (centred * shares[:, None]).T @ centred)


def frechet(first: Normal, second: Normal) -> float:
    """Return the Fréchet distance between normal distributions: the squared one, at least 0.

    |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of the means and covariances (Dowson and Landau 1982, Journal of
    Multivariate Analysis 12; Heusel et al. 2017, arXiv:1706.08500, equation 6). It is called FID only with the
    features of one certain Inception network (`inception.py`).
    """
    if not (np.isfinite(first.mean).all() and np.isfinite(second.mean).all()):
        return math.nan
    values, vectors = np.linalg.eigh(first.covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    # The eigenvalues of C1 C2 are those of the symmetric root(C1) C2 root(C1).
    product = np.linalg.eigvalsh(root @ second.covariance @ root)
    trace = np.trace(first.covariance) + np.trace(second.covariance) - 2 * np.sqrt(product.clip(0)).sum()
    return max(float(((first.mean - second.mean) ** 2).sum() + trace), 0.0)


def precision_recall(real: Floats, generated: Floats) -> tuple[float, float]:
    """Return which share of generated features is among the real ones, and of the real among the generated.

    A point is among others if it is no farther from one of them than that one's third neighbour (Kynkäänniemi et
    al. 2019, arXiv:1904.06991).

    Args:
        real: (R, D).
        generated: (G, D).
    """
    return _among(generated, real), _among(real, generated)


def _among(points: Floats, others: Floats) -> float:
    rank = min(NEIGHBOURS, len(others) - 1)  # at rank 0 is a point itself
    radius = np.concatenate([np.partition(rows, rank, axis=1)[:, rank] for rows in _squares(others, others)])
    return float(np.concatenate([(rows <= radius).any(1) for rows in _squares(points, others)]).mean())


def nearest(points: Floats, others: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Return each point's squared distance to the nearest of `others`, (P,), and which one that is."""
    found = [(rows.min(1), rows.argmin(1)) for rows in _squares(points, others)]
    distances, indices = zip(*found, strict=True)
    return np.concatenate(distances), np.concatenate(indices)


def _squares(points: Floats, others: Floats) -> Iterator[Floats]:
    """Yield squared distances from `ROWS` points at a time to all others."""
    lengths = (others**2).sum(1)
    for few in np.split(points, range(ROWS, len(points), ROWS)):
        yield ((few**2).sum(1)[:, None] + lengths - 2 * few @ others.T).clip(0)
