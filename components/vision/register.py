"""The image classifier as its callers meet it: an image file in, a label with its probability out."""

import io
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from components import classifier
from components.contracts import Manifest, Predict, Served
from components.errors import PedigreeError
from components.intake import sent
from components.vision.decode import Unusable, decode
from components.vision.prepare import VisionFacts

BATCH = 64
MAX_MEGAPIXELS = 64.0
"""Larger images in a request are refused as decompression bombs."""


def served(manifest: Manifest) -> Served:
    """Say what a request and an answer hold; `probabilities` has every class."""
    facts = VisionFacts.model_validate(manifest.facts)
    return Served(
        inputs={"image": "binary"},
        outputs={"label": "string", "probability": "double", "probabilities": "map"},
        example={"image": _example(facts.size, facts.channels)},
        file="image",
        requirements=("pillow",),
    )


def _example(size: int, channels: int) -> bytes:
    """Return a PNG that grows brighter from top to bottom."""
    file = io.BytesIO()
    picture = Image.linear_gradient("L").resize((size, size))
    picture.convert("L" if channels == 1 else "RGB").save(file, "PNG")
    return file.getvalue()


def load_predict(model: nn.Module, manifest: Manifest) -> Predict:
    """Return the function that answers rows of `{"image": …}` for this network.

    An image is a file's bytes, or these in base64, alone or in a data URL; in any format and size that
    preparation takes. An answer is `{"label": str, "probability": float, "probabilities": {class: float}}`,
    and the label is what evaluation would count: of equal logits the first class.
    The function raises PedigreeError, for the whole request, when one row's image cannot be used.
    """
    facts = VisionFacts.model_validate(manifest.facts)
    model.eval()
    device = next(model.parameters()).device

    @torch.inference_mode()
    def predict(rows: list[dict[str, Any]], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        answers = []
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            images = torch.stack([_image(row, start + i, facts) for i, row in enumerate(batch)])  # (n, C, H, W)
            answers += classifier.answers(model(images.to(device)).cpu(), facts.classes, "label")
        return answers

    return predict


def _image(row: dict[str, Any], index: int, facts: VisionFacts) -> Tensor:
    """Return a row's image, uint8 (C, H, W), as preparation would have made it."""
    try:
        return torch.from_numpy(decode(sent(row.get("image"), "image"), facts.size, facts.channels, MAX_MEGAPIXELS))
    except Unusable as problem:
        raise PedigreeError(f"row {index}: the image cannot be used: {problem}; send another") from None
