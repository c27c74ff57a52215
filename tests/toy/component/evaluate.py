"""How far the test points are from the line."""

from pathlib import Path

import numpy as np
from components.toy.params import ToyParams
from components.toy.prepare import load_split
from matplotlib.figure import Figure
from torch import nn

from components import figures
from components.classification import interval
from components.contracts import Batch, Prepared


def evaluate(
    model: nn.Module, predictions: Batch, prepared: Prepared, out: Path, params: ToyParams
) -> dict[str, float]:
    """Return the mean squared error with its interval; draw points and line."""
    x = load_split(prepared.folder, "test")["x"]
    figure = Figure()
    axes = figure.add_subplot(xlabel="x", ylabel="y", title="Test points and the line")
    axes.plot(x, predictions["line"])
    axes.scatter(x, predictions["y"])
    figures.save(figure, out / "plots" / "line.png")
    lines = [f"{a.item()},{b.item()}\n" for a, b in zip(x, predictions["line"], strict=True)]
    (out / "examples" / "line.csv").write_text("x,line\n" + "".join(lines))
    errors = (predictions["line"] - predictions["y"]).double().square().flatten()
    low, high = interval(
        errors.numpy(), np.ones(len(errors), np.int64), params.evaluate.bootstrap, params.evaluate.seed
    )
    return {
        "squared_error": float(errors.mean()),
        "squared_error_low": low,
        "squared_error_high": high,
    }
