"""python -m benchmarks.result PROFILE DATA: what a profile comes to on a raw folder, and after how much training.

Through the product: prepared once, then trained by the train stage and judged by the evaluate stage, seed by seed.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import report
from benchmarks.cases import ROOT
from components import params, tasks
from components.adapters import mlflow_store
from components.contracts import Event, Prepared, Task
from components.params import TaskParams
from components.stages import evaluate, prepare, train
from components.stages.origin import Origin


def run(
    task: Task[Any], values: TaskParams, prepared: Prepared, scratch: Path, metric: str | None
) -> dict[str, Any]:
    """Train and evaluate; return the metric on the test split, and how and on what the training went."""
    told: dict[str, Any] = {"validation": []}

    def listen(event: Event) -> None:
        if event["kind"] == "start":
            told["device"] = event["device"]
        elif event["kind"] == "epoch":
            metrics = event["metrics"]
            told["minutes"] = metrics["speed/seconds_of_training"] / 60
            told["share_of_peak"] = metrics["speed/share_of_peak"]
            told["rate"] = metrics["speed/samples_per_second"]
            told["validation"].append((told["minutes"], metrics[f"val/{values.train.best_metric}"]))
            print({name: round(value, 4) for name, value in metrics.items()}, flush=True)

    mlflow_store.connect(scratch)
    trained = train.train(task, values, prepared, scratch / "model", Origin(ROOT), listeners=[listen])
    found = evaluate.evaluate(task, values, prepared, trained, scratch / "evaluation")
    return told | {"score": found.metrics[metric or task.score]}


def main() -> None:
    """Measure seed by seed, tell of each, and keep what was found so far for docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profile", help="of profiles/, for one task")
    parser.add_argument("data", type=Path, help="the raw folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one parameter")
    parser.add_argument("--gpu", action="store_true", help="on a GPU, or not at all")
    options = parser.parse_args()
    if options.gpu and not torch.cuda.is_available():
        raise SystemExit("torch finds no GPU here: run this on a machine that has one, or leave --gpu out")
    overlay = params.read(ROOT / "profiles" / f"{options.profile}.yaml")
    (name,) = overlay.tree["tasks"]
    task, runs = tasks.load(name), []
    metric = report.METRICS.get(options.profile)
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(options.seeds):
            written = overlay.over(params.read(ROOT / params.FILE))
            for setting in (*options.set, f"train.seed={seed}"):
                written = params.assignment(setting, ("tasks", name)).over(written)
            values = params.validate(task.params, written, ("tasks", name))
            folder = Path(scratch, "prepared")
            prepared = prepare.load(folder) if seed else prepare.prepare(task, values, options.data, folder)
            own = Path(scratch, str(seed))
            own.mkdir()
            runs.append(run(task, values, prepared, own, metric))
            print(f"{options.profile}, seed {seed}: {runs[-1]}", flush=True)
            on_gpu = not runs[-1]["device"].startswith("cpu")
            found = {
                "profile": options.profile,
                "settings": options.set,
                "metric": metric or task.score,
                "device": runs[-1]["device"],
                "gpu": on_gpu,
                "runs": runs,
            }
            # What other settings, or a GPU, came to stands in a row of its own.
            report.keep(report.RESULT + ", ".join([options.profile, *options.set, *["GPU"] * on_gpu]), found)


if __name__ == "__main__":
    main()
