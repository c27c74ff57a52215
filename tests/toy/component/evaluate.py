"""How far the test points are from the line."""

from pathlib import Path

import numpy as np
from components.toy.params import ToyParams
from components.toy.prepare import load_split
from matplotlib.figure import Figure
from torch import nn

from components import figures
from components.contracts import Batch, Outcomes, Prepared


def evaluate(
    model: nn.Module, predictions: Batch, prepared: Prepared, out: Path, params: ToyParams
) -> dict[str, float]:
    """Return the mean squared error; draw points and line."""
    x = load_split(prepared.folder, "test")["x"]
    figure = Figure()
    axes = figure.add_subplot(xlabel="x", ylabel="y", title="Test points and the line")
    axes.plot(x, predictions["line"])
    axes.scatter(x, predictions["y"])
    figures.save(figure, out / "plots" / "line.png")
    lines = [f"{a.item()},{b.item()}\n" for a, b in zip(x, predictions["line"], strict=True)]
    (out / "examples" / "line.csv").write_text("x,line\n" + "".join(lines))
    return {"squared_error": outcomes(predictions, prepared).mean}


def outcomes(predictions: Batch, prepared: Prepared) -> Outcomes:
    """Return the squared error of each point."""
    errors = (predictions["line"] - predictions["y"]).double().square().flatten().numpy()
    return Outcomes([f"point {i}" for i in range(len(errors))], errors, np.ones(len(errors), np.int64))
