"""What a network on a table is compared with: gradient-boosted trees and a linear model, of scikit-learn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from components.datasets.splits import Columns
from components.runtime.progress import Progress
from components.tables.facts import CATEGORY, LABEL, NUMBER, TableFacts
from components.tables.networks import Missing, Normal

log = logging.getLogger("pedigree.evaluate")

TREES, LINEAR = "trees", "linear"
"""Names of the baselines."""
MOST = 200_000
"""Most training rows on which they are fitted, evenly spaced."""
LONG = 20_000
"""Training rows from which fitting may take longer than five seconds, so that a line says that it begins."""
ROUNDS = 1_000
"""Most trees."""
CHUNK = 65_536
"""Rows that are predicted at once."""
Array = NDArray[Any]


def fitted(train: Columns, val: Columns, known: TableFacts, seed: int) -> Mapping[str, Any]:
    """Return the fitted baselines by name; each predicts from what `features` returns.

    Trees are added until the loss on validation rows has not improved for 20 rounds; the strength of the linear
    model's penalty is also the one that is best there. So the network and its baselines learn from the same rows.
    """
    own, held = (_sample(split) for split in (train, val))
    found = {}
    for name, fit in ((LINEAR, _linear), (TREES, _trees)):
        if len(own[LABEL]) >= LONG:
            log.info(f"fitting the baseline {name} on {len(own[LABEL]):,} rows")
        found[name] = fit(own, held, known, seed)
    return found


def predicted(baseline: Any, split: Columns, known: TableFacts) -> Array:
    """Return the probabilities (N, classes), or quantities (N,), of all rows of a split."""
    parts, progress = [], Progress(log)
    for first in range(0, len(split), CHUNK):
        rows = np.arange(first, min(first + CHUNK, len(split)))
        parts.append(baseline({name: tensor.numpy()[rows] for name, tensor in split.dense.items()}))
        progress.say(f"a baseline's predictions for {rows[-1] + 1:,} of {len(split):,} rows")
    return np.concatenate(parts)


def _sample(split: Columns) -> dict[str, Array]:
    count = min(len(split), MOST)
    rows = np.arange(count) * len(split) // count
    return {name: tensor.numpy()[rows] for name, tensor in split.dense.items()}


def _trees(own: Mapping[str, Array], held: Mapping[str, Array], known: TableFacts, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor  # type: ignore[import-untyped]
    from sklearn.preprocessing import TargetEncoder  # type: ignore[import-untyped]

    numbers = len(known.numbers)
    few = [place for place, column in enumerate(known.categories) if column.cardinality <= 255]
    many = [place for place in range(len(known.categories)) if place not in few]
    encoder = None
    if many:
        kind = "continuous" if not known.classes else "binary" if len(known.classes) == 2 else "multiclass"
        encoder = TargetEncoder(target_type=kind, random_state=seed)
        learnt = encoder.fit_transform(own[CATEGORY][:, many], own[LABEL])

    def matrix(rows: Mapping[str, Array], means: Array | None = None) -> Array:
        parts = [rows[NUMBER]] if numbers else []
        parts += [rows[CATEGORY][:, few].astype(np.float32)] if few else []
        if encoder is not None:
            parts.append(encoder.transform(rows[CATEGORY][:, many]) if means is None else means)
        return np.concatenate(parts, axis=1)

    kind = HistGradientBoostingClassifier if known.classes else HistGradientBoostingRegressor
    trees = kind(
        learning_rate=0.05,
        max_iter=ROUNDS,
        max_leaf_nodes=15,
        early_stopping=True,
        n_iter_no_change=20,
        categorical_features=[numbers + place for place in range(len(few))] or None,
        random_state=seed,
    )
    first = matrix(own, learnt if encoder is not None else None)
    trees.fit(first, own[LABEL], X_val=matrix(held), y_val=held[LABEL])
    if not known.classes:
        return lambda rows: trees.predict(matrix(rows))
    return lambda rows: _all_classes(trees.predict_proba(matrix(rows)), trees.classes_, known)


def _linear(own: Mapping[str, Array], held: Mapping[str, Array], known: TableFacts, seed: int) -> Any:
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression, Ridge  # type: ignore[import-untyped]
    from sklearn.preprocessing import OneHotEncoder

    normal, missing = (Normal(known.numbers), Missing(known.numbers)) if known.numbers else (None, None)
    encoder = OneHotEncoder(handle_unknown="ignore").fit(own[CATEGORY]) if known.categories else None

    def matrix(rows: Mapping[str, Array]) -> Any:
        parts = []
        if normal is not None and missing is not None:
            number = torch.from_numpy(rows[NUMBER])
            parts.append(torch.cat([normal(number), missing(number)], 1).numpy())
        if encoder is not None:
            parts.append(encoder.transform(rows[CATEGORY]))
        return sparse.hstack([sparse.csr_matrix(part) for part in parts]).tocsr()

    first, second = matrix(own), matrix(held)
    strengths = (0.01, 0.1, 1.0, 10.0)
    progress = Progress(log)

    def fits(model: Callable[[float], Any]) -> Iterator[Any]:
        for number, strength in enumerate(strengths):
            yield model(strength).fit(first, own[LABEL])
            progress.say(f"{number + 1} of {len(strengths)} strengths of the penalty of {LINEAR} fitted")

    if not known.classes:
        best = min(
            fits(lambda strength: Ridge(alpha=1 / strength)),
            key=lambda model: float(((model.predict(second) - held[LABEL]) ** 2).mean()),
        )
        return lambda rows: best.predict(matrix(rows))
    best = min(
        fits(lambda strength: LogisticRegression(C=strength, max_iter=1_000)),
        key=lambda model: _nats(_all_classes(model.predict_proba(second), model.classes_, known), held),
    )
    return lambda rows: _all_classes(best.predict_proba(matrix(rows)), best.classes_, known)


def _nats(probabilities: Array, rows: Mapping[str, Array]) -> float:
    own = probabilities[np.arange(len(probabilities)), rows[LABEL]]
    return float(-np.log(np.clip(own, 1e-15, 1)).mean())


def _all_classes(probabilities: Array, there: Array, known: TableFacts) -> Array:
    """Return probabilities (N, classes), with 0 for classes of which a sample of the training rows had none."""
    found = np.zeros((len(probabilities), len(known.classes)))
    found[:, there] = probabilities
    return found
