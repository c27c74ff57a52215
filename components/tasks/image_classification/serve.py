"""The served image classifier: an image file in, a label with its probability out, or several labels."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from components.classification import decision
from components.classification.answers import answers, decided
from components.contracts import Kind, Manifest, Predict, Prepared, Row, Served
from components.datasets import ingest
from components.datasets.ingest import sent
from components.images.decoding import dicom
from components.images.decoding.decode import decode
from components.images.labels.layouts import reader
from components.requests import answer_rows
from components.tasks.image_classification.params import VisionParams
from components.tasks.image_classification.prepare import VisionFacts

BATCH = 64


def served(manifest: Manifest, params: VisionParams) -> Served:
    """Describe requests and answers; `probabilities` contains every class."""
    facts = VisionFacts.model_validate(manifest.facts)
    outputs: dict[str, Kind] = {"label": "string", "probability": "double", "probabilities": "map"}
    if facts.positive:
        outputs["threshold"] = "double"
    if facts.several:
        outputs = {"labels": "strings", "probabilities": "map", "thresholds": "map"}
    requirements = ["pillow"]
    requirements += ["torchvision"] if params.train.model.network == "mobilenet_v2" else []
    requirements += [dicom.EXTRA] if facts.dicom else []
    return Served(
        inputs={"image": "binary"},
        outputs=outputs,
        example={"image": _example(facts.size, facts.channels)},
        file="image",
        requirements=tuple(requirements),
    )


def _example(size: int, channels: int) -> bytes:
    """Return a PNG with a vertical gradient."""
    file = io.BytesIO()
    picture = Image.linear_gradient("L").resize((size, size))
    picture.convert("L" if channels == 1 else "RGB").save(file, "PNG")
    return file.getvalue()


def rows(prepared: Prepared, raw: Callable[[], Path]) -> Iterator[Row]:
    """Return the file of each test image, as a request sends it; for an array of images, a PNG of each."""
    folder = raw()
    read = reader(folder, VisionFacts.model_validate(prepared.manifest.facts).format)
    return ingest.file_rows(prepared.folder, folder, "image", read)


def load_predict(model: nn.Module, manifest: Manifest, params: VisionParams) -> Predict:
    """Return the function that answers rows of `{"image": …}`.

    An image is a file as bytes, base64 or a data URL, in any format and size that preparation accepts. An answer is
    `{"label": str, "probability": float, "probabilities": {class: float}}`; as in evaluation, the first of several
    equal logits wins. Of two classes with a positive one, the latter is the label from its threshold on, which the
    answer also has. Where an image can have several labels, an answer is
    `{"labels": [str], "probabilities": {class: float}, "thresholds": {class: float}}`.
    """
    facts = VisionFacts.model_validate(manifest.facts)
    model.eval()
    device = next(model.parameters()).device

    def read(row: Row) -> Tensor:
        image = sent(row.get("image"), "image")
        return torch.from_numpy(decode(image, facts.size, facts.channels, params.prepare.max_megapixels))

    @torch.inference_mode()
    def answer(images: list[Tensor]) -> list[Row]:
        logits = model(torch.stack(images).to(device)).cpu()
        last = decision.of(model)
        if last is None:
            return answers(logits, facts.classes, "label")
        return decided(logits, facts.classes, last.positive, last.threshold.cpu())

    return lambda rows, settings: answer_rows(rows, read, answer, "image", BATCH)
