"""The served network: an image file in, the class whose prototype is nearest out, with probabilities."""

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from components.classification.answers import answers
from components.contracts import Manifest, Predict, Prepared, Rejected, Row, Served
from components.datasets import ingest
from components.datasets.ingest import sent
from components.images.decoding.decode import decode
from components.images.labels.layouts import reader
from components.requests import answer_rows, settings
from components.tasks.few_shot.model import network
from components.tasks.few_shot.params import FewShotParams
from components.tasks.few_shot.prepare import FewShotFacts

BATCH = 64
ROW_PARAMS = {"embedding": True}
"""Params of requests whose answers outcomes are computed from."""


class Settings(BaseModel):
    """Params of a request."""

    model_config = ConfigDict(extra="forbid")

    embedding: bool = False


def served(manifest: Manifest, params: FewShotParams) -> Served:
    """Describe requests and answers; `probabilities` has every class that the version knows."""
    facts = FewShotFacts.model_validate(manifest.facts)
    return Served(
        inputs={"image": "binary"},
        outputs={"label": "string", "probability": "double", "probabilities": "map", "embedding": "doubles"},
        example={"image": _example(facts.size, facts.channels)},
        file="image",
        params=Settings().model_dump(),
        requirements=("pillow",),
    )


def _example(size: int, channels: int) -> bytes:
    """Return a PNG with a vertical gradient."""
    file = io.BytesIO()
    picture = Image.linear_gradient("L").resize((size, size))
    picture.convert("L" if channels == 1 else "RGB").save(file, "PNG")
    return file.getvalue()


def rows(prepared: Prepared, raw: Callable[[], Path]) -> Iterator[Row]:
    """Return the file of each test image, as a request sends it."""
    folder = raw()
    return ingest.file_rows(prepared.folder, folder, "image", reader(folder, "folders"))


def load_predict(model: nn.Module, manifest: Manifest, params: FewShotParams) -> Predict:
    """Return the function that answers rows of `{"image": …}`.

    An image is a file as bytes, base64 or a data URL, in any format and size that preparation accepts. An answer is
    `{"label": str, "probability": float, "probabilities": {class: float}}`, and with the param `embedding` has its
    `embedding`, a list of numbers.
    """
    facts = FewShotFacts.model_validate(manifest.facts)
    model.eval()
    known, device = network(model), next(model.parameters()).device

    def read(row: Row) -> Tensor:
        image = sent(row.get("image"), "image")
        return torch.from_numpy(decode(image, facts.size, facts.channels, params.prepare.max_megapixels))

    @torch.inference_mode()
    def answer(images: list[Tensor], with_embedding: bool) -> list[Row]:
        embedding = model(torch.stack(images).to(device)).float()
        found = answers(known.classify(embedding).cpu(), facts.classes[: facts.known], "label")
        vectors = embedding.cpu().tolist()
        return [a | {"embedding": v} for a, v in zip(found, vectors, strict=True)] if with_embedding else found

    def predict(rows: list[Row], given: Mapping[str, Any]) -> list[Row | Rejected]:
        with_embedding = settings(Settings, given).embedding
        return answer_rows(rows, read, lambda images: answer(images, with_embedding), "image", BATCH)

    return predict
