"""Sequences of tokens with a rule; all functions of the task."""

import io
import wave
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from components.tasks.tones.params import TonesParams
from torch import Tensor, nn

from components import scores
from components.contracts import (
    Batch,
    Manifest,
    Outcomes,
    Part,
    Predict,
    Prepared,
    Rejected,
    Row,
    Score,
    Served,
    StepOutput,
)
from components.datasets import ragged
from components.datasets.splits import Columns

TOKENS = 5
SPLITS = {"train": range(48), "val": range(48, 60), "test": range(60, 80)}


def embedded(folder: Path) -> None:
    """Write eighty sequences of 2 to 17 tokens, a line each: the next one is mostly the last one and one more."""
    random = np.random.default_rng(0)
    lines = []
    for _ in range(80):
        tokens = [int(random.integers(TOKENS))]
        for _ in range(int(random.integers(1, 17))):
            tokens.append((tokens[-1] + (1 if random.random() < 0.9 else 2)) % TOKENS)
        lines.append(f"{' '.join(map(str, tokens))}\n")
    (folder / "sequences.txt").write_text("".join(lines))


def prepare(raw: Path, out: Path, params: TonesParams) -> Manifest:
    """Write the sequences as ragged arrays."""
    lines = (raw / "sequences.txt").read_text().splitlines()
    first = len(SPLITS["test"]) * params.prepare.resplit % len(lines)
    lines = lines[first:] + lines[:first]
    parts = {}
    for split, numbers in SPLITS.items():
        with ragged.Writer(out / f"{split}.tokens", np.int64) as writer:
            for number in numbers:
                writer.append(np.array(lines[number].split(), np.int64))
        parts[split] = Part(samples=writer.rows, sha256=writer.sha256)
    return Manifest(task="tones", splits=parts, rejected=[], facts={}, note="made-up sequences")


def load_split(prepared: Path, split: str) -> Columns:
    """Return `tokens`, ragged, in buckets of like lengths."""
    tokens = ragged.load(prepared / f"{split}.tokens")
    return Columns({}, {"tokens": tokens}, tokens.shapes[:, 0])


def build_model(params: TonesParams, manifest: Manifest) -> nn.Module:
    """Map a token to the logits of the next one."""
    return nn.Sequential(nn.Embedding(TOKENS, 8), nn.Linear(8, TOKENS))


def _losses(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the loss of each token from the second on, (B, L - 1), and which of them are no padding."""
    tokens, length = batch["tokens"], batch["tokens_length"]
    logits = model(tokens[:, :-1])  # (B, L - 1, tokens)
    losses = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view(len(tokens), -1)
    return losses, torch.arange(1, tokens.shape[1], device=tokens.device) < length[:, None]


def step(model: nn.Module, batch: Batch, params: TonesParams) -> StepOutput:
    """Return the loss summed over the tokens that are no padding, and their number."""
    losses, own = _losses(model, batch)
    return StepOutput((losses * own).sum(), own.sum())


def predict(model: nn.Module, batch: Batch, params: TonesParams) -> Batch:
    """Return each sequence's nats and tokens, both (B,)."""
    losses, own = _losses(model, batch)
    return {"nats": (losses * own).sum(1).double(), "tokens": own.sum(1).double()}


def outcomes(predictions: Iterable[Batch], prepared: Prepared, params: TonesParams) -> Outcomes:
    """Return each sequence's nats and tokens."""
    parts = list(predictions)
    columns = {name: torch.cat([part[name] for part in parts]).numpy() for name in ("nats", "tokens")}
    return Outcomes([f"sequence {number}" for number in range(len(columns["nats"]))], columns)


def score(manifest: Manifest) -> Score:
    """Return perplexity."""
    return scores.perplexity("nats", "tokens")


def evaluate(
    model: nn.Module, predictions: Iterable[Batch], prepared: Prepared, out: Path, params: TonesParams
) -> dict[str, float]:
    """Return perplexity."""
    found = outcomes(predictions, prepared, params).columns
    return {"perplexity": scores.exponential(found["nats"].sum() / found["tokens"].sum())}


def served(manifest: Manifest, params: TonesParams) -> Served:
    """Nothing but the number of tones in, a sound out."""
    return Served({}, {"sound": "binary"}, {}, (), params={"tones": 4, "seed": 0}, media={"sound": "audio/wav"})


def load_predict(model: nn.Module, manifest: Manifest, params: TonesParams) -> Predict:
    """Return the function that answers `{}` with a wav file of tones that the network goes on to."""

    @torch.inference_mode()
    def predict(rows: list[Row], settings: Mapping[str, Any]) -> list[Row | Rejected]:
        chosen = {"tones": 4, "seed": 0, **settings}
        return [{"sound": _sound(_tokens(model, chosen["tones"], chosen["seed"] + i))} for i in range(len(rows))]

    return predict


def _tokens(model: nn.Module, count: int, seed: int) -> list[int]:
    tokens = [seed % TOKENS]
    while len(tokens) < count:
        tokens.append(int(model(torch.tensor(tokens[-1:])).argmax()))
    return tokens


def _sound(tokens: list[int]) -> bytes:
    time = np.arange(800) / 8000
    tones = np.concatenate([np.sin(2 * np.pi * 220 * (1 + token) * time) for token in tokens])
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes((10_000 * tones).astype(np.int16).tobytes())
    return file.getvalue()
