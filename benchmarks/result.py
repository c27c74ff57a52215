"""python -m benchmarks.result PROFILE DATA: the score of a profile on a raw folder, and the time to train it.

The data are prepared once, then trained on and evaluated by the product's stages with each seed.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import report
from benchmarks.cases import MODELS, ROOT
from components import models
from components.adapters import mlflow_store
from components.contracts import Event, Prepared
from components.models import Model
from components.stages import evaluate, prepare, train


def run(model: Model, prepared: Prepared, scratch: Path, metric: str) -> dict[str, Any]:
    """Train and evaluate; return the metric on the test split, and the device, duration and speed of training."""
    result: dict[str, Any] = {"validation": []}

    def listen(event: Event) -> None:
        if event["kind"] == "start":
            result["device"] = event["device"]
        elif event["kind"] == "validation":
            metrics = event["metrics"]
            result["minutes"] = metrics["speed/seconds_of_training"] / 60
            result["share_of_peak"] = metrics["speed/share_of_peak"]
            result["rate"] = metrics[f"speed/{model.task.unit}_per_second"]
            result["validation"].append((result["minutes"], metrics[f"val/{model.params.train.best_metric}"]))
            print({name: round(value, 4) for name, value in metrics.items()}, flush=True)

    mlflow_store.connect(scratch)
    trained = train.train(model, prepared, scratch / "model", listeners=[listen])
    found = evaluate.evaluate(model, prepared, trained, scratch / "evaluation")
    return result | {"score": found.metrics[metric]}


def main() -> None:
    """Measure and print the result of each seed, and record the results so far for docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profile", help="name of a profile in profiles/")
    parser.add_argument("data", type=Path, help="the raw folder")
    parser.add_argument("--seeds", type=int, default=3, help="number of trainings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one parameter")
    parser.add_argument("--gpu", action="store_true", help="fail if there is no GPU")
    options = parser.parse_args()
    if options.gpu and not torch.cuda.is_available():
        raise SystemExit("torch finds no GPU here: run this on a machine with a GPU, or omit --gpu")
    profile, runs = models.profile(ROOT, options.profile), []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(options.seeds):
            settings = (*options.set, f"train.seed={seed}")
            model = models.load(ROOT, MODELS[profile.task], profile, settings)
            folder = Path(scratch, "prepared")
            prepared = prepare.load(folder) if seed else prepare.prepare(model, options.data, folder)
            metric = report.METRICS.get(options.profile, model.task.score(prepared.manifest).name)
            own = Path(scratch, str(seed))
            own.mkdir()
            runs.append(run(model, prepared, own, metric))
            print(f"{options.profile}, seed {seed}: {runs[-1]}", flush=True)
            on_gpu = not runs[-1]["device"].startswith("cpu")
            found = {
                "profile": options.profile,
                "settings": options.set,
                "metric": metric,
                "device": runs[-1]["device"],
                "gpu": on_gpu,
                "runs": runs,
            }
            # Results with other settings or on a GPU have rows of their own.
            report.record(report.RESULT + ", ".join([options.profile, *options.set, *["GPU"] * on_gpu]), found)


if __name__ == "__main__":
    main()
