"""Points near a straight line; all functions of the task."""

import glob
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from components.tasks.toy.params import ToyParams
from matplotlib.figure import Figure
from torch import nn

from components import figures, scores
from components.contracts import (
    Batch,
    Manifest,
    Outcomes,
    Part,
    Predict,
    Prepared,
    Row,
    Score,
    Served,
    StepOutput,
)
from components.datasets import arrays
from components.datasets.ingest import Unusable
from components.datasets.splits import Columns
from components.requests import answer_rows


def embedded(folder: Path) -> None:
    """Write forty points near y = 3 x - 1."""
    noise = np.random.default_rng(0).normal(0, 0.01, 40)
    lines = [f"{x / 20:.2f},{3 * x / 20 - 1 + e:.4f}\n" for x, e in zip(range(40), noise, strict=True)]
    (folder / "points.csv").write_text("".join(lines))


def prepare(raw: Path, out: Path, params: ToyParams) -> Manifest:
    """Divide the points, of each ten two for testing, two for validation and six for training; see `resplit`."""
    files = sorted(glob.glob(f"{raw}/**/*.csv", recursive=True))  # noqa: PTH207 (which follows links to folders)
    found = [np.loadtxt(file, delimiter=",", dtype=np.float32, ndmin=2) for file in files if Path(file).is_file()]
    points = np.concatenate([np.empty((0, 2), np.float32), *found])
    index = (np.arange(len(points)) + 3 * params.prepare.resplit) % 10
    chosen = {"train": index > 3, "val": (index == 2) | (index == 3), "test": index < 2}
    splits = {}
    for name, rows in chosen.items():
        with arrays.Writer(out / f"{name}.points.npy", np.float32, (2,)) as writer:
            writer.append(points[rows])
        splits[name] = Part(samples=writer.rows, sha256=writer.sha256)
    drawn = "two of each ten points"
    return Manifest(task="toy", splits=splits, rejected=[], facts={}, drawn=drawn, note="made-up points")


def load_split(prepared: Path, split: str) -> Columns:
    """Return x and y, float32 (N, 1)."""
    points = arrays.load(prepared / f"{split}.points.npy")
    return Columns({"x": points[:, :1], "y": points[:, 1:]})


def build_model(params: ToyParams, manifest: Manifest) -> nn.Module:
    """Map x (N, 1) to y (N, 1)."""
    return nn.Linear(1, 1)


def step(model: nn.Module, batch: Batch, params: ToyParams) -> StepOutput:
    """Return the summed squared error."""
    losses = F.mse_loss(model(batch["x"]).float(), batch["y"], reduction="none")[:, 0]
    return StepOutput(losses.sum(), len(losses))


def predict(model: nn.Module, batch: Batch, params: ToyParams) -> Batch:
    """Return x, the line at x, and y, all (N, 1)."""
    return {"x": batch["x"], "line": model(batch["x"]), "y": batch["y"]}


def outcomes(predictions: Iterable[Batch], prepared: Prepared, params: ToyParams) -> Outcomes:
    """Return the squared error of each point."""
    errors = np.concatenate([(each["line"] - each["y"]).double().square().flatten() for each in predictions])
    return Outcomes([f"point {index}" for index in range(len(errors))], {"squared": errors})


def score(manifest: Manifest) -> Score:
    """Return the mean squared error."""
    return scores.ratio("squared_error", "less", "squared")


def evaluate(
    model: nn.Module, predictions: Iterable[Batch], prepared: Prepared, out: Path, params: ToyParams
) -> dict[str, float]:
    """Return the mean squared error; draw points and line."""
    x, line, y = (torch.cat([each[name] for each in predictions]) for name in ("x", "line", "y"))
    figure = Figure()
    axes = figure.add_subplot(xlabel="x", ylabel="y", title="Test points and the line")
    axes.plot(x, line)
    axes.scatter(x, y)
    figures.save(figure, out / "plots" / "line.png")
    lines = [f"{a.item()},{b.item()}\n" for a, b in zip(x, line, strict=True)]
    (out / "examples" / "line.csv").write_text("x,line\n" + "".join(lines))
    return {"squared_error": float(outcomes(predictions, prepared, params).columns["squared"].mean())}


def served(manifest: Manifest, params: ToyParams) -> Served:
    """x in, y out."""
    return Served({"x": "double"}, {"y": "double"}, {"x": 0.5}, ())


def load_predict(model: nn.Module, manifest: Manifest, params: ToyParams) -> Predict:
    """Return the function that answers rows of `{"x": …}`."""

    def read(row: Row) -> float:
        if not isinstance(row.get("x"), int | float):
            raise Unusable("expected a number in the column x")
        return float(row["x"])

    @torch.inference_mode()
    def answer(numbers: list[float]) -> list[Row]:
        return [{"y": y} for y in model(torch.tensor(numbers)[:, None]).flatten().tolist()]

    return lambda rows, settings: answer_rows(rows, read, answer, "point", 64)
