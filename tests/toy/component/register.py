"""The line as its callers meet it: x in, y out."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from components.contracts import Manifest, Predict, Served


def served(manifest: Manifest) -> Served:
    """Say what a request and an answer hold."""
    return Served(inputs={"x": "double"}, outputs={"y": "double"}, example={"x": 0.5}, requirements=())


def load_predict(model: nn.Module, manifest: Manifest) -> Predict:
    """Return the function that answers rows of `{"x": …}`."""

    @torch.inference_mode()
    def predict(rows: list[dict[str, Any]], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        x = torch.tensor([[row["x"]] for row in rows], dtype=torch.float32)
        return [{"y": y} for y in model(x).flatten().tolist()]

    return predict
