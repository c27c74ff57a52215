"""Evaluation on episodes of new classes, or if a version was taught classes, on images of these."""

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from components import figures, scores
from components.classification import report
from components.contracts import Batch, Columns, Manifest, Outcomes, Prepared, Rejected, Row, Score
from components.datasets import ingest
from components.tasks.few_shot import pictures
from components.tasks.few_shot.episodes import fixed
from components.tasks.few_shot.model import compare
from components.tasks.few_shot.params import FewShotParams
from components.tasks.few_shot.prepare import FewShotFacts, load_split

SETTINGS = ((5, 1), (5, 5), (20, 1), (20, 5))
"""Ways and shots of the episodes by which versions are compared, as far as the test split has enough classes."""
QUERIES = 15
"""Most queries of each class."""
WAYS = (2, 10, 50, 100, 200, 500, 1000)
"""Further numbers of classes, which show how accuracy falls with them."""
SHOTS = (1, 5)
EPISODES, SEED = 600, 0
"""Episodes of each kind in `SETTINGS`, and the seed by which all are drawn: any two versions meet the same."""
AT_ONCE = 2**22
"""Distances that are in memory at once."""


def name_of(ways: int, shots: int) -> str:
    """Return what episodes are called in metrics."""
    return f"{ways}-way {shots}-shot"


@dataclass(frozen=True)
class Result:
    """The result of episodes with the same number of ways and shots."""

    classes: NDArray[np.int64]
    """The classes of each episode, (E, ways)."""
    correct: NDArray[np.int64]
    """Queries of each class that are recognised, (E, ways)."""
    queries: int
    """Queries of each class."""
    confused: NDArray[np.int64]
    """Pairs of a class and another that its query was taken for, (P, 2)."""

    @property
    def accuracies(self) -> NDArray[np.float64]:
        """The accuracy of each episode, (E,)."""
        found: NDArray[np.float64] = self.correct.mean(1) / self.queries
        return found


def measure(embedding: Tensor, label: Tensor, ways: int, shots: int, count: int) -> Result:
    """Return the result of episodes, which depend on the labels alone.

    Args:
        embedding: The embedding of each test image, float32 (N, D).
        label: The class of each, int64 (N,).
        ways: Classes of an episode.
        shots: Images of each class that make up its prototype.
        count: Number of episodes.
    """
    sizes = label.bincount()
    queries = min(QUERIES, int(sizes[sizes > shots].min()) - shots)
    places = torch.from_numpy(fixed(label, count, ways, shots + queries, SEED))  # (E, W, n)
    classes = label[places[:, :, 0]]
    correct, confused = [], []
    for some, own in zip(
        *(t.split(max(1, AT_ONCE // (ways * ways * queries))) for t in (places, classes)), strict=True
    ):
        images = embedding[some]  # (e, W, n, D)
        logits = compare(images[:, :, :shots].mean(2), images[:, :, shots:].flatten(1, 2))  # (e, W q, W)
        found = own.gather(1, logits.argmax(2)).unflatten(1, (ways, queries))
        right = found == own[:, :, None]  # (e, W, q)
        correct.append(right.sum(2))
        confused.append(torch.stack([own[:, :, None].expand_as(found)[~right], found[~right]], 1))
    return Result(classes.numpy(), torch.cat(correct).numpy(), queries, torch.cat(confused).numpy())


def possible(counts: Sequence[int]) -> list[tuple[int, int]]:
    """Return the ways and shots of `SETTINGS` for which enough classes have enough images, given those of each."""
    found = [(ways, shots) for ways, shots in SETTINGS if ways <= _enough(counts, shots)]
    return found or [(_enough(counts, 1), 1)]


def _enough(counts: Sequence[int], shots: int) -> int:
    """Return how many classes have a query beside so many shots."""
    return sum(count > shots for count in counts)


def evaluate(
    model: nn.Module, predictions: Iterable[Batch], prepared: Prepared, out: Path, params: FewShotParams
) -> dict[str, float]:
    """Compute the metrics of predictions on the test split; write plots/ and examples/ below the folder `out`.

    Args:
        model: Unused.
        predictions: Batches of `embedding` (B, D) and `label` (B,), and of taught classes `logits` (B, K).
        prepared: The prepared data of the predictions.
        out: Gets the files of `report.evaluate`, or how accuracy falls with the number of classes, the accuracy of
            each class, and the classes that are most often confused.
        params: Unused.
    """
    facts, joined = FewShotFacts.model_validate(prepared.manifest.facts), report.joined(predictions)
    files, images = ingest.file_names(prepared.folder, "test"), load_split(prepared.folder, "test").image
    if facts.taught:
        samples = report.Samples(facts.classes, files, pictures.of(images), "image", prepared.manifest.note)
        return report.evaluate(joined, samples, out)
    embedding, label = _finite(joined["embedding"]), joined["label"]
    results = _results(embedding, label)
    metrics = {f"accuracy/{name}": float(result.accuracies.mean()) for name, result in results.items()}
    metrics = {"accuracy": float(np.mean(list(metrics.values())))} | metrics
    for name, result in results.items():
        metrics[f"episode_error/{name}"] = 1.96 * float(result.accuracies.std()) / math.sqrt(len(result.accuracies))
    metrics |= _by_ways(embedding, label)
    figures.save(pictures.by_ways(_points(metrics)), out / "plots" / "ways.png", prepared.manifest.note)
    _write_classes(out / "examples" / "classes.csv", results, facts.classes)
    pairs = np.concatenate([result.confused for result in results.values()])
    figure = pictures.confused(pairs, label.numpy(), images, facts.classes)
    figures.save(figure, out / "examples" / "confused.png", prepared.manifest.note)
    return metrics


def _finite(embedding: Tensor) -> Tensor:
    report.expect_finite(embedding)
    return embedding


def _results(embedding: Tensor, label: Tensor) -> dict[str, Result]:
    return {
        name_of(ways, shots): measure(embedding, label, ways, shots, EPISODES)
        for ways, shots in possible(label.bincount().tolist())
    }


def _by_ways(embedding: Tensor, label: Tensor) -> dict[str, float]:
    """Return the accuracy for further numbers of classes, up to all; the more classes, the fewer episodes."""
    metrics: dict[str, float] = {}
    counts = label.bincount().tolist()
    for shots in SHOTS:
        every = _enough(counts, shots)
        for ways in (*(ways for ways in WAYS if ways < every), every):
            if ways > 1 and (ways, shots) not in possible(counts):
                result = measure(embedding, label, ways, shots, max(5, EPISODES * SETTINGS[0][0] // ways))
                metrics[f"accuracy/{name_of(ways, shots)}"] = float(result.accuracies.mean())
    return metrics


def _points(metrics: Mapping[str, float]) -> dict[int, dict[int, float]]:
    """Return accuracies by shots and ways, in ascending order, from metrics."""
    found: dict[int, dict[int, float]] = {}
    for name, value in metrics.items():
        if match := re.fullmatch(r"accuracy/(\d+)-way (\d+)-shot", name):
            found.setdefault(int(match[2]), {})[int(match[1])] = value
    return {shots: dict(sorted(by_ways.items())) for shots, by_ways in sorted(found.items())}


def expected(metrics: Mapping[str, float], ways: int, shots: int) -> float:
    """Return the accuracy that evaluation found for new classes: so many, with at least so many images of each.

    Between numbers of classes that were measured, accuracy is linear in the logarithm of the number; beyond the
    largest, it is that of the largest.
    """
    points = _points(metrics)
    own = points[max((each for each in points if each <= shots), default=min(points))]
    return float(np.interp(math.log(ways), np.log(list(own)), list(own.values())))


def _write_classes(path: Path, results: Mapping[str, Result], classes: Sequence[str]) -> None:
    """Write the accuracy of each test class in the episodes of each kind."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["class", "episodes", "queries", "accuracy"])
        for name, result in results.items():
            for label, correct, queries in zip(*_by_class(result), strict=True):
                table.writerow([classes[label], name, int(queries), round(correct / queries, 4)])


def _by_class(result: Result) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the classes, and of each the recognised queries and all queries; each (K,)."""
    labels = np.unique(result.classes)
    flat = np.searchsorted(labels, result.classes.ravel())
    correct = np.bincount(flat, result.correct.ravel()).astype(np.int64)
    return labels, correct, np.bincount(flat) * result.queries


def outcomes(predictions: Iterable[Batch], prepared: Prepared, params: FewShotParams) -> Outcomes:
    """Return how many queries of each test class are recognised, in each kind of episodes; or of taught classes,
    whether each test image is.

    The samples are classes, and not episodes: what is measured are new classes, of which the test split has only
    some. More episodes of the same classes would narrow an interval over episodes without end.
    """
    facts, joined = FewShotFacts.model_validate(prepared.manifest.facts), report.joined(predictions)
    if facts.taught:
        return report.outcomes(joined, facts.classes, ingest.file_names(prepared.folder, "test"))
    return _outcomes(joined["embedding"], joined["label"], facts.classes)


def _outcomes(embedding: Tensor, label: Tensor, classes: Sequence[str]) -> Outcomes:
    results = _results(embedding, label)
    parts = [_by_class(result) for result in results.values()]
    labels = np.unique(label.numpy())
    kinds = np.concatenate([np.full(len(part[0]), number) for number, part in enumerate(parts)])
    of_class, correct, queries = (np.concatenate([part[column] for part in parts]) for column in range(3))
    order = np.argsort(of_class, kind="stable")
    names = [*results]
    columns = {"correct": correct, "queries": queries, "kind": kinds}
    return Outcomes(
        [classes[each] for each in labels],
        {name: column[order].astype(np.float64) for name, column in columns.items()},
        np.searchsorted(labels, of_class[order]),
        groups={"episodes": [names[kind] for kind in kinds[order]]},
    )


def outcomes_from(answers: Iterable[Row | Rejected], prepared: Prepared) -> Outcomes:
    """Return `outcomes` from a served version's answers to `serve.rows`; a rejected image has an embedding of 0."""
    facts, label = FewShotFacts.model_validate(prepared.manifest.facts), load_split(prepared.folder, "test").label
    if facts.taught:
        files = ingest.file_names(prepared.folder, "test")
        return report.outcomes_from(answers, "label", label, facts.classes, files)
    vectors = [None if isinstance(answer, Rejected) else answer["embedding"] for answer in answers]
    size = next((len(vector) for vector in vectors if vector is not None), 1)
    embedding = torch.tensor([[0.0] * size if vector is None else list(vector) for vector in vectors])
    return _outcomes(embedding, label, facts.classes)


def _accuracy(columns: Columns, weights: NDArray[np.float64]) -> float:
    """Return the mean, over kinds of episodes, of the share of queries that are recognised."""
    kinds = columns["kind"].astype(np.int64)
    correct = np.bincount(kinds, weights * columns["correct"])
    queries = np.bincount(kinds, weights * columns["queries"])
    return float((correct[queries > 0] / queries[queries > 0]).mean()) if queries.any() else math.nan


ACCURACY = Score("accuracy", "more", _accuracy, share=True, graded=True)


def score(manifest: Manifest) -> Score:
    """Return accuracy: the mean of those of the kinds of episodes, or of taught classes that of the test images."""
    return report.SCORE if FewShotFacts.model_validate(manifest.facts).taught else ACCURACY


def further_scores(manifest: Manifest) -> Sequence[Score]:
    """Return the accuracy of each kind of episodes."""
    facts = FewShotFacts.model_validate(manifest.facts)
    if facts.taught:
        return []
    kinds = [name_of(*setting) for setting in possible([*facts.counts["test"].values()])]
    ratio = replace(scores.ratio("accuracy", "more", "correct", "queries", share=True), graded=True)
    return [scores.of_class(ratio, "kind", number, name) for number, name in enumerate(kinds)]
