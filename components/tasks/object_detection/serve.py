"""The served detector: an image file in, boxes with labels and scores out."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from components.contracts import Manifest, Predict, Prepared, Row, Served, Sources
from components.datasets import ingest
from components.datasets.ingest import sent
from components.errors import PedigreeError
from components.images import drawing
from components.images.decode import native
from components.images.reduced import limited
from components.requests import answer_rows
from components.tasks.object_detection import train
from components.tasks.object_detection.params import DetectionParams
from components.tasks.object_detection.prepare import DetectionFacts

BATCH = 16
MEGAPIXELS = 89
"""Limit for drawing on an image that was answered before: the largest value of prepare.max_megapixels."""
ALL = {"threshold": 0.0}
"""Parameters of a request that returns all that evaluation counts."""


class _Image(NamedTuple):
    pixels: Tensor  # uint8 (H, W, 3), as prepared
    scale: tuple[float, float]  # pixels of the file for each of its pixels, in width and height


def served(manifest: Manifest, params: DetectionParams) -> Served:
    """Describe requests and answers."""
    return Served(
        inputs={"image": "binary"},
        outputs={"boxes": "records"},
        example={"image": _example()},
        file="image",
        params={"threshold": params.evaluate.threshold},
        requirements=("pillow", "torchvision"),
    )


def _example() -> bytes:
    return drawing.png(Image.linear_gradient("L").resize((96, 64)).convert("RGB"))


def rows(prepared: Prepared, raw: Callable[[], Path]) -> Iterator[Row]:
    """Return the file of each test image, as a request sends it."""
    folder = raw()
    return ingest.file_rows(prepared.folder, folder, "image", partial(ingest.contents, folder, kind="an image"))


def load_predict(model: nn.Module, manifest: Manifest, params: DetectionParams, sources: Sources) -> Predict:
    """Return the function that answers rows of `{"image": …}`.

    An image is a file as bytes, base64 or a data URL, of any size. An answer is `{"boxes": [{"label": str, "score":
    float, "x": float, "y": float, "width": float, "height": float}]}` by descending score, where x and y are the
    left and top edge in pixels of the image, turned by its EXIF orientation. The parameter `threshold` is the least
    score of a box.
    """
    classes = DetectionFacts.model_validate(manifest.facts).classes
    model.eval()
    device = next(model.parameters()).device

    def read(row: Row) -> _Image:
        pixels = native(sent(row.get("image"), "image"), 3, params.prepare.max_megapixels).transpose(1, 2, 0)
        small = limited(np.ascontiguousarray(pixels), params.prepare.longest)
        scale = (pixels.shape[1] / small.shape[1], pixels.shape[0] / small.shape[0])
        return _Image(torch.from_numpy(small), scale)

    @torch.inference_mode()
    def found(images: list[_Image]) -> Iterator[tuple[_Image, dict[str, Tensor]]]:
        for shape, group in groupby(images, lambda each: each.pixels.shape):  # padding would change the answers
            alike = list(group)
            size = torch.tensor([shape[:2]] * len(alike), device=device)
            batch = {"image": torch.stack([each.pixels for each in alike]).to(device), "image_size": size}
            predicted = {name: each.cpu() for name, each in train.predict(model, batch, params).items()}
            yield from (
                (image, {name: each[number] for name, each in predicted.items()})
                for number, image in enumerate(alike)
            )

    def answer_with(threshold: float) -> Callable[[list[_Image]], list[Row]]:
        return lambda images: [
            {"boxes": _records(one, image.scale, threshold, classes)} for image, one in found(images)
        ]

    def predict(requests: list[Row], settings: Mapping[str, Any]) -> list[Any]:
        threshold = float(settings.get("threshold", params.evaluate.threshold))
        if not 0 <= threshold <= 1:
            raise PedigreeError(f"threshold is {threshold:g}: send a number between 0 and 1")
        return answer_rows(requests, read, answer_with(threshold), "image", BATCH)

    return predict


def _records(
    found: Mapping[str, Tensor], scale: tuple[float, float], threshold: float, classes: list[str]
) -> list[Row]:
    kept = (found["score"] >= threshold) & (found["score"] > 0)
    boxes = found["boxes"][kept].double() * torch.tensor([*scale, *scale], dtype=torch.float64)
    return [
        {
            "label": classes[label],
            "score": score,
            "x": left,
            "y": top,
            "width": right - left,
            "height": bottom - top,
        }
        for (left, top, right, bottom), score, label in zip(
            boxes.tolist(), found["score"][kept].tolist(), found["label"][kept].tolist(), strict=True
        )
    ]


def draw(row: Row, answer: Row) -> bytes:
    """Return the image of a row as a PNG with the boxes of its answer."""
    pixels = native(sent(row.get("image"), "image"), 3, MEGAPIXELS).transpose(1, 2, 0)
    records = answer["boxes"]
    boxes = [
        (each["x"], each["y"], each["x"] + each["width"], each["y"] + each["height"]) for each in records[::-1]
    ]
    texts = [f"{each['label']} {each['score']:.0%}" for each in records[::-1]]
    colours = [drawing.colour_of(each["label"]) for each in records[::-1]]
    return drawing.png(drawing.drawn(Image.fromarray(np.ascontiguousarray(pixels)), boxes, texts, colours))
