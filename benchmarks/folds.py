"""python -m benchmarks.folds PROFILE DATA: a profile of a table, tested on each of several folds of all rows.

The network and its baselines learn from the same rows of each fold. Their probabilities for all test rows are
pooled, and the areas under the ROC curves are compared on the same rows, with an interval over rows. With
`--repeats`, the division into folds is drawn several times, and the areas are averaged. In place of a profile, a
model of params.yaml can be named.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results
from benchmarks.result import model_of, run
from components.classification import ranking
from components.contracts import Outcomes
from components.stages import evaluate, prepare
from components.trust import intervals

MODEL = "model"
"""Name of the network's outcomes beside those of the baselines."""


def pooled(repeats: Sequence[Sequence[Outcomes]]) -> Outcomes:
    """Return the outcomes of all folds as one table, in which a row of data has an outcome for each repeat.

    The class of an outcome is the number of its repeat, so that `ranking.AUC` is the mean over repeats.
    """
    names = sorted({name for fold in repeats[0] for name in fold.samples})
    place = {name: index for index, name in enumerate(names)}
    clusters: dict[str, str] = {}
    rows, columns = list[int](), dict[str, list[Any]]()
    for number, folds in enumerate(repeats):
        for fold in folds:
            rows += [place[name] for name in fold.samples]
            clusters |= dict(zip(fold.samples, fold.clusters or fold.samples, strict=True))
            for column in (ranking.POSITIVE, ranking.PROBABILITY):
                columns.setdefault(column, []).append(fold.columns[column])
            columns.setdefault(ranking.CLASS, []).append(np.full(len(fold.samples), float(number)))
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    return Outcomes(names, joined, np.array(rows), [clusters[name] for name in names])


def compared(outcomes: dict[str, list[list[Outcomes]]]) -> dict[str, float]:
    """Return the area of the network and of each baseline, and the differences with their 95 % intervals."""
    tables = {name: pooled(repeats) for name, repeats in outcomes.items()}
    metrics = {"auc": intervals.value(tables[MODEL], ranking.AUC)}
    for name, table in tables.items():
        if name == MODEL:
            continue
        found = intervals.difference(table, tables[MODEL], ranking.AUC)
        low, high = found.interval
        metrics |= {
            f"auc_of_{name}": intervals.value(table, ranking.AUC),
            f"auc_over_{name}": found.value,
            f"auc_over_{name}_low": low,
            f"auc_over_{name}_high": high,
        }
    return metrics


def main() -> None:
    """Measure and print the result, and record it for docs/results.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profile", help="name of a profile in profiles/, or of a model in params.yaml")
    parser.add_argument("data", type=Path, help="the raw folder")
    parser.add_argument("--folds", type=int, default=5, help="number of parts of the rows")
    parser.add_argument("--repeats", type=int, default=1, help="number of divisions into folds")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one parameter")
    options = parser.parse_args()
    outcomes: dict[str, list[list[Outcomes]]] = {}
    minutes: list[float] = []
    last: dict[str, Any] = {}
    for repeat in range(options.repeats):
        for number in range(1, options.folds + 1):
            fold = (f"prepare.fold={number}/{options.folds}", f"prepare.resplit={repeat}", f"train.seed={repeat}")
            model = model_of(options.profile, (*options.set, *fold))
            with tempfile.TemporaryDirectory() as scratch:
                prepared = prepare.prepare(model, options.data.resolve(), Path(scratch, "prepared"))
                last = run(model, prepared, Path(scratch))
                folder = Path(scratch, "evaluation")
                found = {MODEL: evaluate.read_outcomes(folder), **evaluate.read_baselines(folder)}
            minutes.append(last["minutes"])
            for name, each in found.items():
                outcomes.setdefault(name, [[] for _ in range(options.repeats)])[repeat].append(each)
            print(f"{options.profile}, repeat {repeat}, fold {number}: {last['metrics']}", flush=True)
    metrics = compared(outcomes)
    print(f"{options.profile}: {metrics}, {max(minutes):.2f} minutes for the slowest fold", flush=True)
    record = {**last, "metrics": metrics, "minutes": max(minutes)}
    results.record(options.profile, options.set, not record["device"].startswith("cpu"), [record])


if __name__ == "__main__":
    main()
