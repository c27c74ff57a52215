"""The served segmentation: an image file in, a mask and the area of each class out."""

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from components.contracts import Manifest, Predict, Prepared, Row, Served
from components.datasets import ingest
from components.datasets.ingest import sent
from components.errors import PedigreeError
from components.images import drawing, mask_overlays
from components.images.decoding import reduced
from components.images.decoding.decode import native
from components.images.networks.unet import labels_at
from components.requests import answer_rows
from components.tasks.segmentation.params import SegmentationParams
from components.tasks.segmentation.prepare import SegmentationFacts

MEGAPIXELS = 89
"""Largest image that is drawn; a version that answered has its own limit."""
TOGETHER = 8
"""Images in memory at once."""


def served(manifest: Manifest, params: SegmentationParams) -> Served:
    """Describe requests and answers: `mask` is a PNG whose pixels are positions in `classes`."""
    return Served(
        inputs={"image": "binary"},
        outputs={"mask": "binary", "classes": "strings", "areas": "map"},
        example={"image": _example()},
        file="image",
        requirements=("pillow", "torchvision") if params.train.model.network == "mobilenet_v2" else ("pillow",),
        media={"mask": "image/png"},
    )


def _example() -> bytes:
    """Return a PNG with a vertical gradient."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(file, "PNG")
    return file.getvalue()


def rows(prepared: Prepared, raw: Callable[[], Path]) -> Iterator[Row]:
    """Return the file of each test image, as a request sends it."""
    folder = raw()
    return ingest.file_rows(prepared.folder, folder, "image", partial(ingest.contents, folder, kind="an image"))


class _Image(NamedTuple):
    pixels: NDArray[np.uint8]  # (H, W, 3), limited to prepare.longest
    height: int
    width: int
    """Of the image that was sent, upright."""


def load_predict(model: nn.Module, manifest: Manifest, params: SegmentationParams) -> Predict:
    """Return the function that answers rows of `{"image": …}`.

    An image is a file as bytes, base64 or a data URL, in any format that preparation accepts. An answer is
    `{"mask": PNG, "classes": [str, …], "areas": {class: share of the image}}`; the mask has the size of the image,
    turned upright if its EXIF orientation says so.
    """
    facts = SegmentationFacts.model_validate(manifest.facts)
    model.eval()
    device = next(model.parameters()).device
    palette = mask_overlays.palette_of(facts.classes)

    def read(row: Row) -> _Image:
        planes = native(sent(row.get("image"), "image"), 3, params.prepare.max_megapixels)
        pixels = np.ascontiguousarray(planes.transpose(1, 2, 0))
        longest = params.prepare.longest
        small = pixels if longest == "native" else reduced.limited(pixels, longest)
        return _Image(small, *pixels.shape[:2])

    @torch.inference_mode()
    def answer(images: list[_Image]) -> list[Row]:
        return [_answer(each) for each in images]

    def _answer(image: _Image) -> Row:
        planes = torch.from_numpy(image.pixels)[None].to(device).permute(0, 3, 1, 2)
        labels = labels_at(model(planes)[0][0], image.height, image.width).cpu().numpy()
        areas = np.bincount(labels.ravel(), minlength=len(facts.classes)) / labels.size
        return {
            "mask": mask_overlays.png(labels, palette),
            "classes": list(facts.classes),
            "areas": dict(zip(facts.classes, areas.tolist(), strict=True)),
        }

    return lambda rows, settings: answer_rows(rows, read, answer, "image", TOGETHER)


def draw(row: Row, answer: Row) -> bytes:
    """Return the image of a row as a PNG, tinted by the mask of its answer."""
    pixels = native(sent(row.get("image"), "image"), 3, MEGAPIXELS).transpose(1, 2, 0)
    with Image.open(io.BytesIO(answer["mask"]), formats=("PNG",)) as image:
        labels = np.asarray(image)
    tinted = mask_overlays.blended(
        np.ascontiguousarray(pixels), labels, mask_overlays.palette_of(answer["classes"])
    )
    return drawing.png(Image.fromarray(tinted))


def answered(answer: Row, classes: Sequence[str]) -> NDArray[np.uint8]:
    """Return the position in `classes` of each pixel of an answer's mask, (H, W); their number for other classes.

    Raises:
        PedigreeError: the answer has no mask and classes.
    """
    if not {"mask", "classes"} <= answer.keys():
        raise PedigreeError(f"its answers have no columns 'mask' and 'classes' but {', '.join(map(str, answer))}")
    with Image.open(io.BytesIO(answer["mask"]), formats=("PNG",)) as image:
        labels = np.asarray(image)
    position = {name: index for index, name in enumerate(classes)}
    known = np.full(256, len(classes), np.uint8)
    for index, name in enumerate(answer["classes"]):
        known[index] = position.get(name, len(classes))
    positions: NDArray[np.uint8] = known[labels]
    return positions
