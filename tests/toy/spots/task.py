"""Series of numbers with spots in them; all functions of the task."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from components.tasks.spots.params import SpotsParams
from numpy.typing import NDArray
from torch import Tensor, nn

from components import scores
from components.contracts import (
    Batch,
    Manifest,
    Outcomes,
    Part,
    Predict,
    Prepared,
    Row,
    Score,
    Served,
    StepOutput,
)
from components.contracts import (
    Columns as Table,
)
from components.datasets import ragged
from components.datasets.ingest import Unusable
from components.datasets.splits import Columns
from components.requests import answer_rows

SPLITS = {"train": range(60), "val": range(60, 75), "test": range(75, 100)}


def embedded(folder: Path) -> None:
    """Write a hundred series of 0 to 30 numbers, a line each, and the positions of their spots, none to three."""
    random = np.random.default_rng(0)
    lines = []
    for number in range(100):
        length = 0 if number % 25 == 24 else int(random.integers(8, 31))
        series = random.normal(0, 0.8, length)
        spots = sorted(random.choice(length, min(length, number % 4), replace=False).tolist())
        series[spots] += 2
        lines.append(f"{' '.join(f'{x:.3f}' for x in series)};{' '.join(map(str, spots))}\n")
    (folder / "series.txt").write_text("".join(lines))


def prepare(raw: Path, out: Path, params: SpotsParams) -> Manifest:
    """Write each series and its spots as ragged arrays; an empty series stays a sample."""
    lines = (raw / "series.txt").read_text().splitlines()
    first = len(SPLITS["test"]) * params.prepare.resplit % len(lines)
    lines = lines[first:] + lines[:first]
    parts = {}
    for split, numbers in SPLITS.items():
        with (
            ragged.Writer(out / f"{split}.series", np.float32) as series,
            ragged.Writer(out / f"{split}.spots", np.int64) as spots,
        ):
            for number in numbers:
                values, _, positions = lines[number].partition(";")
                series.append(np.array(values.split(), np.float32))
                spots.append(np.array(positions.split(), np.int64))
        parts[split] = Part(samples=series.rows, sha256=series.sha256 + spots.sha256)
    return Manifest(task="spots", splits=parts, rejected=[], facts={}, note="made-up series")


def load_split(prepared: Path, split: str) -> Columns:
    """Return `series` and `spots`, both ragged."""
    series = ragged.load(prepared / f"{split}.series")
    return Columns({}, {"series": series, "spots": ragged.load(prepared / f"{split}.spots")}, series.shapes[:, 0])


def build_model(params: SpotsParams, manifest: Manifest) -> nn.Module:
    """Map a series (B, 1, L) to the logits of a spot at each position, (B, 1, L)."""
    return nn.Conv1d(1, 1, 3, padding=1)


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    series = batch["series"]
    if not series.shape[1]:
        return series
    return model(series[:, None])[:, 0].float()  # (B, L)


def _inside(batch: Batch) -> Tensor:
    """Return which positions of the padded series are its own, bool (B, L)."""
    return _before(batch["series"].shape[1], batch["series_length"])


def _before(size: int, length: Tensor) -> Tensor:
    """Return which of `size` positions are before the lengths (B,), bool (B, size)."""
    return torch.arange(size, device=length.device) < length[:, None]


def _targets(batch: Batch) -> Tensor:
    """Return 1 at the spots and 0 elsewhere, (B, L)."""
    own = _before(batch["spots"].shape[1], batch["spots_length"])  # padding is a spot at position 0
    return torch.zeros_like(batch["series"]).scatter_reduce(1, batch["spots"], own.float(), "amax")


def step(model: nn.Module, batch: Batch, params: SpotsParams) -> StepOutput:
    """Return the cross-entropy summed over positions; in validation also hits, found and true spots, (3,)."""
    logits, target, inside = _logits(model, batch), _targets(batch), _inside(batch)
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * inside
    found = (logits > 0) & inside
    counts = torch.stack([(found & (target > 0)).sum(), found.sum(), target.sum()]).double()
    return StepOutput(losses.sum(), inside.sum(), {} if model.training else {"spots": counts})


def metrics(sums: Mapping[str, Tensor], count: int) -> dict[str, float]:
    """Return the loss a position and, where spots were decoded, F1."""
    found = {"loss": float(sums["loss"]) / max(count, 1)}
    if "spots" in sums:
        hits, decoded, true = sums["spots"].tolist()
        found["f1"] = 2 * hits / max(decoded + true, 1)
    return found


def predict(model: nn.Module, batch: Batch, params: SpotsParams) -> Batch:
    """Return the padded logits and lengths, and the true spots."""
    names = ("series_length", "spots", "spots_length")
    return {"logits": _logits(model, batch), **{name: batch[name] for name in names}}


def _detected(logits: Tensor) -> list[tuple[int, float]]:
    """Return the positions with more than 2 % of probability, and these."""
    probability = logits.double().sigmoid()
    return [(cell, float(probability[cell])) for cell in (probability > 0.02).nonzero().flatten().tolist()]


def outcomes(predictions: Iterable[Batch], prepared: Prepared, params: SpotsParams) -> Outcomes:
    """Return a row for each detection and one for each spot that was missed; an empty sample has none."""
    rows: list[tuple[int, float, float, float]] = []
    number = 0
    for batch in predictions:
        for row, length in enumerate(batch["series_length"].tolist()):
            true = set(batch["spots"][row][: int(batch["spots_length"][row])].tolist())
            found = _detected(batch["logits"][row][:length])
            rows += [(number, score, float(cell in true), 0.0) for cell, score in found]
            rows += [(number, 0.0, 0.0, 1.0) for _ in true - {cell for cell, _ in found}]
            number += 1
    sample, probability, hit, missed = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    columns = {"probability": probability, "hit": hit, "missed": missed}
    return Outcomes([f"series {index}" for index in range(number)], columns, sample.astype(np.int64))


def average_precision(columns: Table, weights: NDArray[np.float64]) -> float:
    """Return the area under precision over recall, as in information retrieval."""
    detected = columns["missed"] == 0
    order = np.argsort(-columns["probability"][detected], kind="stable")
    weight, hit = weights[detected][order], columns["hit"][detected][order]
    true = weights @ (columns["hit"] + columns["missed"])
    if not true:
        return float("nan")
    precision = np.cumsum(weight * hit) / np.maximum(np.cumsum(weight), 1e-12)
    return float((precision * weight * hit).sum() / true)


def score(manifest: Manifest) -> Score:
    """Return average precision."""
    return Score("average_precision", "more", average_precision)


def evaluate(
    model: nn.Module, predictions: Iterable[Batch], prepared: Prepared, out: Path, params: SpotsParams
) -> dict[str, float]:
    """Return average precision, and the share of detections that are right."""
    found = outcomes(predictions, prepared, params)
    rows = np.ones(len(found.columns["hit"]))
    precision = scores.ratio("precision", "more", "hit").of(found.columns, 1 - found.columns["missed"])
    return {"average_precision": average_precision(found.columns, rows), "precision": precision}


def served(manifest: Manifest, params: SpotsParams) -> Served:
    """Numbers in a text in, records out."""
    return Served({"series": "string"}, {"spots": "records"}, {"series": "0 0 2.1 0"}, (), file="series")


def load_predict(model: nn.Module, manifest: Manifest, params: SpotsParams) -> Predict:
    """Return the function that answers `{"series": "0 0 2.1"}` with the spots in it, records of two numbers."""

    def read(row: Row) -> Tensor:
        try:
            return torch.tensor([float(word) for word in str(row.get("series")).split()])
        except ValueError:
            raise Unusable("expected numbers with spaces between them") from None

    @torch.inference_mode()
    def answer(series: list[Tensor]) -> list[Row]:
        return [{"spots": _records(_logits(model, {"series": each[None]})[0])} for each in series]

    return lambda rows, settings: answer_rows(rows, read, answer, "series", 1)


def _records(logits: Tensor) -> list[Row]:
    return [{"position": cell, "probability": probability} for cell, probability in _detected(logits)]
