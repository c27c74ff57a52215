"""The served generator: a class and a seed in, PNG files out."""

import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import ConfigDict, Field, ValidationError
from torch import Tensor, nn

from components.contracts import Manifest, Predict, Prepared, Rejected, Row, Served
from components.datasets.ingest import Unusable
from components.display import brief, first
from components.errors import PedigreeError
from components.images.labels.labelled import Facts
from components.params import nearest
from components.requests import answer_rows
from components.tasks.image_generation.params import FlowParams, SamplingParams
from components.tasks.image_generation.prepare import load_split
from components.tasks.image_generation.sampling import TOGETHER, noise, sample


class Settings(SamplingParams):
    """What a row asks for besides its class; what it leaves out is set by the params of the request."""

    model_config = ConfigDict(extra="ignore")

    count: int = Field(ge=1, description="Number of images")
    seed: int = Field(ge=0, lt=2**62, description="Seed of the first image; each further one has the next seed")


@dataclass(frozen=True)
class _Wanted:
    """A row that can be answered."""

    label: int
    settings: Settings


def served(manifest: Manifest, params: FlowParams) -> Served:
    """Describe requests and answers."""
    facts = Facts.model_validate(manifest.facts)
    settings = _defaults(params)
    kinds: dict[type, Any] = {int: "long", float: "double", str: "string"}
    return Served(
        inputs={"class": "string", **{name: kinds[type(value)] for name, value in settings.items()}},
        outputs={"images": "binaries"},
        example={"class": facts.classes[0], "seed": 0},
        requirements=("numpy", "pillow"),
        optional=frozenset(settings),
        params=settings,
        media={"images": "image/png"},
    )


def _defaults(params: FlowParams) -> dict[str, int | float | str]:
    return {"count": 1, "seed": 0, **params.evaluate.sampling.model_dump()}


def rows(prepared: Prepared, raw: Callable[[], Path]) -> Iterator[Row]:
    """Yield a request for each test image: its class, and as the seed its position, as evaluation does."""
    classes = Facts.model_validate(prepared.manifest.facts).classes
    for number, label in enumerate(load_split(prepared.folder, "test")["label"].tolist()):
        yield {"class": classes[label], "seed": number}


def load_predict(model: nn.Module, manifest: Manifest, params: FlowParams) -> Predict:
    """Return the function that answers rows of `{"class": …, "count": …, "seed": …, "steps": …, …}`.

    An answer is `{"images": [PNG, …]}`. An image depends only on its class, seed, steps, guidance and sampler, not
    on other images or rows. What a row leaves out, which may be all but the class, is that of the request's params.
    The function raises PedigreeError for the entire request if a param is invalid.
    """
    facts = Facts.model_validate(manifest.facts)
    model = model.eval().to(memory_format=torch.channels_last)

    def predict(rows: list[Row], settings: Mapping[str, Any]) -> list[Row | Rejected]:
        usual = _defaults(params)
        for name in settings:
            if name not in usual:
                raise PedigreeError(f"the request's params: {brief(name)} is unknown{nearest(name, usual)}")
        usual |= settings
        if problems := _problems(usual, params):
            raise PedigreeError(f"the request's params: {'; '.join(first(problems))}")
        return answer_rows(
            rows, partial(_wanted, facts, params, usual), partial(_answered, model, facts), "request", TOGETHER
        )

    return predict


def _problems(values: Mapping[str, Any], params: FlowParams) -> list[str]:
    """Return what is wrong with the settings of a row or a request."""
    try:
        chosen = Settings.model_validate(values)
    except ValidationError as error:
        return [f"{e['loc'][0]} = {brief(e['input'])}: {e['msg']}" for e in error.errors()]
    limits = params.evaluate.limits
    pairs = {"count": (chosen.count, limits.count), "steps": (chosen.steps, limits.steps)}
    return [f"{name} {given:,} is more than {most:,}" for name, (given, most) in pairs.items() if given > most]


def _wanted(facts: Facts, params: FlowParams, usual: Mapping[str, Any], row: Row) -> _Wanted:
    given = {name: value for name, value in row.items() if not _missing(value)}
    if unknown := [name for name in given if name not in {"class", *usual}]:
        right = nearest(str(unknown[0]), usual)
        raise Unusable(f"{brief(unknown[0])} is no column of it{right}; leave it out")
    name, known = str(given.pop("class", "")), ", ".join(first(facts.classes))
    if name not in facts.classes:
        what = f"there is no class {brief(name)}{nearest(name, facts.classes)}" if name else "it names no class"
        raise Unusable(f"{what}; the classes are {known}")
    values = {**usual, **given}
    if problems := _problems(values, params):
        raise Unusable("; ".join(first(problems)))
    return _Wanted(facts.classes.index(name), Settings.model_validate(values))


def _missing(value: Any) -> bool:
    """Return whether a row leaves a value out; pandas makes it NaN if other rows have one."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _answered(model: nn.Module, facts: Facts, wanted: list[_Wanted]) -> list[Row]:
    """Sample the images of several rows together, as far as their settings are the same."""
    images: list[list[bytes]] = [[] for _ in wanted]
    by_settings: dict[SamplingParams, list[int]] = {}
    for index, each in enumerate(wanted):
        by_settings.setdefault(SamplingParams.model_validate(each.settings.model_dump(include=_HOW)), []).append(
            index
        )
    for settings, indices in by_settings.items():
        jobs = [(i, wanted[i].settings.seed + n) for i in indices for n in range(wanted[i].settings.count)]
        start = noise([seed for _, seed in jobs], (facts.channels, facts.size, facts.size))
        label = torch.tensor([wanted[i].label for i, _ in jobs])
        for (index, _), image in zip(jobs, sample(model, start, label, settings), strict=True):
            images[index].append(_png(image))
    return [{"images": each} for each in images]


_HOW = set(SamplingParams.model_fields)


def _png(image: Tensor) -> bytes:
    """Return an image, uint8 (C, H, W), as a PNG."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).squeeze(2).numpy())).save(file, "PNG")
    return file.getvalue()
