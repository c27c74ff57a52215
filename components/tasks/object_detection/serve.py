"""The served detector: an image file in, boxes with labels and scores out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from components.contracts import Manifest, Predict, Prepared, Row, Served
from components.datasets import ingest
from components.datasets.ingest import sent
from components.errors import PedigreeError
from components.images import drawing
from components.images.decoding.decode import native
from components.images.decoding.reduced import limited
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
    facts = DetectionFacts.model_validate(manifest.facts)
    ids = facts.ids or range(1, len(facts.classes) + 1)
    return Served(
        inputs={"image": "binary"},
        outputs={"boxes": "records"},
        example={"image": _example()},
        file="image",
        params={"threshold": float},
        requirements=("pillow", "torchvision"),
        formats={"coco": partial(coco_results, dict(zip(facts.classes, ids, strict=True)))},
    )


def _example() -> bytes:
    return drawing.png(Image.linear_gradient("L").resize((96, 64)).convert("RGB"))


def coco_results(ids: Mapping[str, int], file: str, answer: Row) -> Sequence[Row]:
    """Return the boxes of an image as COCO's results (https://cocodataset.org/#format-results).

    An answer does not know the image's id in a file of annotations. COCO's own images are named after their ids; of
    other images, the name without suffix stands for the id.

    Args:
        ids: The category id of each class.
        file: The image's path.
        answer: The answer for it.
    """
    stem = PurePath(file).stem
    image = int(stem) if stem.isascii() and stem.isdigit() else stem
    return [
        {
            "image_id": image,
            "category_id": ids[each["label"]],
            "bbox": [each["x"], each["y"], each["width"], each["height"]],
            "score": each["score"],
        }
        for each in answer["boxes"]
    ]


def rows(prepared: Prepared, raw: Callable[[], Path]) -> Iterator[Row]:
    """Return the file of each test image, as a request sends it."""
    folder = raw()
    return ingest.file_rows(prepared.folder, folder, "image", partial(ingest.contents, folder, kind="an image"))


def load_predict(model: nn.Module, manifest: Manifest, params: DetectionParams) -> Predict:
    """Return the function that answers rows of `{"image": …}`.

    An image is a file as bytes, base64 or a data URL, of any size. An answer is `{"boxes": [{"label": str, "score":
    float, "x": float, "y": float, "width": float, "height": float}]}` by descending score, where x and y are the
    left and top edge in pixels of the image, turned by its EXIF orientation. The score of each box is at least the
    threshold of its class, which was chosen on the validation split, or the parameter `threshold`.
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
            pixels = torch.stack([each.pixels for each in alike]).to(device)
            predicted = {name: each.cpu() for name, each in train.detect(model, pixels, size).items()}
            yield from (
                (image, {name: each[number] for name, each in predicted.items()})
                for number, image in enumerate(alike)
            )

    def answer_with(thresholds: Tensor) -> Callable[[list[_Image]], list[Row]]:
        return lambda images: [
            {"boxes": _records(one, image.scale, thresholds, classes)} for image, one in found(images)
        ]

    def predict(requests: list[Row], settings: Mapping[str, Any]) -> list[Any]:
        own, asked = model.get_buffer("threshold").cpu(), settings.get("threshold")
        if asked is not None and not 0 <= asked <= 1:
            raise PedigreeError(f"threshold is {asked:g}: send a number between 0 and 1")
        thresholds = own if asked is None else torch.full_like(own, asked)
        return answer_rows(requests, read, answer_with(thresholds), "image", BATCH)

    return predict


def _records(
    found: Mapping[str, Tensor], scale: tuple[float, float], thresholds: Tensor, classes: list[str]
) -> list[Row]:
    kept = (found["score"].double() >= thresholds[found["label"]]) & (found["score"] > 0)
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
