"""points.csv, a line `x,y` each -> arrays."""

from pathlib import Path

import numpy as np
from components.toy.params import ToyParams

from components import arrays
from components.contracts import Batch, Manifest, Split


def default_data(folder: Path) -> None:
    """Write forty points near y = 3 x - 1."""
    noise = np.random.default_rng(0).normal(0, 0.01, 40)
    lines = [f"{x / 20:.2f},{3 * x / 20 - 1 + e:.4f}\n" for x, e in zip(range(40), noise, strict=True)]
    (folder / "points.csv").write_text("".join(lines))


def prepare(raw: Path, out: Path, params: ToyParams) -> Manifest:
    """Deal the points to test, val and train, two and two and six of ten."""
    points = np.loadtxt(raw / "points.csv", delimiter=",", dtype=np.float32, ndmin=2)
    place = np.arange(len(points)) % 10
    chosen = {"train": place > 3, "val": (place == 2) | (place == 3), "test": place < 2}
    splits = {}
    for name, rows in chosen.items():
        with arrays.Writer(out / f"{name}.points.npy", np.float32, (2,)) as writer:
            writer.append(points[rows])
        splits[name] = Split(samples=writer.rows, sha256=writer.sha256)
    return Manifest(task="toy", splits=splits, refused=[], facts={}, note="made-up points")


def load_split(prepared: Path, split: str) -> Batch:
    """Return x and y, float32 (N, 1)."""
    points = arrays.load(prepared / f"{split}.points.npy")
    return {"x": points[:, :1], "y": points[:, 1:]}
