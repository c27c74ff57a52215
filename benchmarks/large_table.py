"""python -m benchmarks.large_table: a generated table of 10 million rows and 50 columns, through the product.

The table is prepared, and a small network is trained on it for one epoch; then the baselines are fitted. Each is a
process of its own, whose memory is watched. Beside it, training takes turns with two loops over a DataLoader: with
the same network, batch size and optimizer, and the same prepared rows in pandas or in tensors.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.csv as pacsv  # type: ignore[import-untyped]
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks import large, memory, report
from benchmarks.cases import Rows, model_of
from components.adapters import mlflow_store
from components.contracts import Batch
from components.datasets.splits import Columns
from components.models import Model
from components.stages import prepare, train
from components.tables import baselines
from components.tables.facts import CATEGORY, LABEL, NUMBER

PIECE = 100_000
"""Rows that are generated and written at once."""
REPEATED = 0.01
"""Share of the rows that repeat another one in all columns but the first, which numbers the rows."""
INTEGERS, DECIMALS, GAPS = 10, 20, 0.1
"""Columns of integers and of decimal numbers; every second of the latter misses this share of its cells."""
DATES = 3
CARDINALITIES = (2, 3, 5, 8, 12, 20, 40, 80, 150, 300, 700, 2_000, 8_000, 50_000, 200_000)
"""Number of the categories of each column of them: over 10,000, their hashes are used."""
BYTES_A_ROW = 1_000
"""Disk space per row that must be free, for the table and the arrays while they are written."""
SETTINGS = (
    "prepare.target=outcome",
    "prepare.positive=yes",
    "train.batch_size=4096",
    "train.unseen=0",
    "train.patience=0",
    "train.model={network: tabm, members: 4, size: 32, layers: 1, heads: 4, dropout: 0, embedding: 4}",
)
"""Changes to params.yaml: a network so small that reading rows matters."""


def make(folder: Path, rows: int) -> None:
    """Write folder/table.csv, piece by piece."""
    folder.mkdir(parents=True)
    options = pacsv.WriteOptions(quoting_style="none")
    with pacsv.CSVWriter(folder / "table.csv", _piece(0, 1).schema, write_options=options) as table:
        for first in range(0, rows, PIECE):
            table.write(_piece(first, min(PIECE, rows - first)))


def _piece(first: int, rows: int) -> pa.Table:
    """Return rows of noise, on some of whose columns the outcome depends."""
    drawn = np.random.default_rng(first)
    hidden = drawn.normal(size=rows)
    columns: dict[str, Any] = {}
    for place in range(INTEGERS):
        columns[f"integer_{place}"] = drawn.poisson(4.0 ** (1 + place % 5), rows) + (hidden > 1)
    for place in range(DECIMALS):
        values = np.round(drawn.normal(place, 1 + place, rows) + hidden * (place % 3 == 0), place % 4 + 1)
        columns[f"decimal_{place}"] = pa.array(values, mask=drawn.random(rows) < GAPS * (place % 2))
    for place in range(DATES):
        columns[f"date_{place}"] = np.datetime64("2020-01-01") + drawn.integers(0, 2_000, rows)
    for place, cardinality in enumerate(CARDINALITIES):
        code = (cardinality * drawn.random(rows) ** 2).astype(np.int64)  # some are frequent, others rare
        hidden += np.where(code % 2, 0.1, -0.1)
        columns[f"category_{place}"] = pc.binary_join_element_wise("c", pa.array(code).cast(pa.string()), "")
    columns["outcome"] = pa.array(np.where(hidden + drawn.logistic(size=rows) > 1, "yes", "no"))
    order = np.arange(rows)
    order[rows - int(REPEATED * rows) :] = np.arange(int(REPEATED * rows))
    return pa.table(columns).take(order).add_column(0, "row", pa.array(np.arange(first, first + rows)))


def _model(*more: str) -> Model:
    return model_of("tabular", 0, *SETTINGS, *more)


def prepared(folder: Path, seconds: float) -> dict[str, float]:
    """Prepare the table."""
    began = time.monotonic()
    found = large.prepared(_model(), folder / "raw", folder / "prepared")
    return found | {"seconds": time.monotonic() - began}


def one_epoch(folder: Path, seconds: float) -> dict[str, float]:
    """Train for an epoch: the seconds and rows per second of the whole stage."""
    data = prepare.load(folder / "prepared")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        mlflow_store.connect(Path(scratch))
        train.train(_model("train.epochs=1"), data, Path(scratch, "model"))
    passed = time.monotonic() - began
    return {"seconds": passed, "rate": data.manifest.splits["train"].samples / passed}


def fitted(folder: Path, seconds: float) -> dict[str, float]:
    """Fit the baselines, and predict the test rows with each."""
    model, data = _model(), prepare.load(folder / "prepared")
    began = time.monotonic()
    found = model.task.baselines(data, model.params)
    score = model.task.score(data.manifest)
    areas = {name: score.of(each.columns, np.ones(len(each.row_samples))) for name, each in found.items()}
    rows = min(baselines.MOST, data.manifest.splits["train"].samples)
    return {"seconds": time.monotonic() - began, "rows": rows, **areas}


def trained(folder: Path, seconds: float) -> dict[str, float]:
    """Train with the product for some seconds."""
    return large.trained(_model("train.epochs=1000"), folder / "prepared", seconds)


class Frames(Dataset[Batch]):
    """Rows of pandas, as in PyTorch's tutorial on data loading: one frame for each type of the network's inputs."""

    def __init__(self, split: Columns) -> None:
        self.number = pd.DataFrame(split[NUMBER].numpy())
        self.category = pd.DataFrame(split[CATEGORY].numpy())
        self.label = pd.Series(split[LABEL].numpy())

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.label)

    def __getitem__(self, index: int) -> Batch:
        """Return one row."""
        return {
            NUMBER: torch.tensor(self.number.iloc[index].to_numpy()),
            CATEGORY: torch.tensor(self.category.iloc[index].to_numpy()),
            LABEL: torch.tensor(self.label.iloc[index]),
        }


def _looped(rows: Callable[[Columns], Dataset[Batch]], folder: Path, seconds: float) -> dict[str, float]:
    """Train with a plain loop over a DataLoader for some seconds after the first ones."""
    model, data = _model(), prepare.load(folder / "prepared")
    chosen, task = model.params.train, model.task
    torch.manual_seed(0)
    network = task.build_model(model.params, data.manifest).train()
    optimizer = torch.optim.AdamW(
        network.parameters(), chosen.optimizer.lr, weight_decay=chosen.optimizer.weight_decay
    )
    split = task.load_split(data.folder, "train")
    loader = DataLoader(rows(split), batch_size=min(chosen.batch_size, len(split)), shuffle=True, drop_last=True)
    began, counted, since = time.monotonic(), 0, None
    while True:
        for batch in loader:
            optimizer.zero_grad()
            output = task.step(network, batch, model.params)
            (output.loss / output.count).backward()
            optimizer.step()
            now = time.monotonic()
            if since is not None:
                counted += output.count
                if now - since >= seconds:
                    return {"rate": counted / (now - since)}
            elif now - began >= large.WARM_UP:
                since = now


CONTENDERS: dict[str, Callable[[Path, float], dict[str, float]]] = {
    "Pedigree": trained,
    "pandas and a DataLoader": partial(_looped, Frames),
    "tensors and a DataLoader": partial(_looped, Rows),
}
"""The contenders by name; the first is compared with the others."""
STEPS = {"prepare": prepared, "train": one_epoch, "baselines": fitted}
"""What is measured once, in this order."""


def main() -> None:
    """Write the table, measure, print each result, and record the results for docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="number of rows; 1 million need 1 GB of disk")
    parser.add_argument("--rounds", type=int, default=5, help="trainings of each contender")
    parser.add_argument("--seconds", type=float, default=30, help="seconds of training in each round")
    parser.add_argument("--one", nargs=3, metavar=("STEP", "FOLDER", "SECONDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        step, folder, seconds = options.one
        print(json.dumps((STEPS | CONTENDERS)[step](Path(folder), float(seconds))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        needed, free = options.rows * BYTES_A_ROW, shutil.disk_usage(scratch).free
        if needed > free:
            raise SystemExit(
                f"{scratch} has {free >> 30} GiB free, and {needed >> 30} GiB are needed: set --rows to fewer"
            )
        measure(Path(scratch), options.rows, options.rounds, options.seconds)


def measure(folder: Path, rows: int, rounds: int, seconds: float) -> None:
    """Measure each step, then the contenders in turns, and record what was found after each round."""
    began = time.monotonic()
    make(folder / "raw", rows)
    print(f"{rows:,} rows written in {time.monotonic() - began:.0f} s", flush=True)
    found: dict[str, Any] = {"rows": rows, "seconds": seconds, "table": memory.size(folder / "raw"), "steps": {}}
    for step in STEPS:
        found["steps"][step] = _watched(step, folder, seconds)
    found["contenders"] = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for name, results in found["contenders"].items():
            results.append(_watched(name, folder, seconds))
        report.record(report.TABLE, found)


def _watched(step: str, folder: Path, seconds: float) -> dict[str, float]:
    row = memory.watched(__spec__.name, ["--one", step, str(folder), str(seconds)], folder=folder)
    print(f"{step}: {row}", flush=True)
    return row


if __name__ == "__main__":
    main()
