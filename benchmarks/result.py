"""python -m benchmarks.result PROFILE DATA: the metrics of a profile on a raw folder, and the time to train it.

The data are prepared once, then trained on and evaluated by the product's stages with each seed. In place of a
profile, a model of params.yaml can be named. With `--against`, another profile is trained and evaluated, too, and
both scores are compared on the same samples.
"""

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from benchmarks import results
from benchmarks.cases import MODELS, ROOT
from components import models
from components.adapters import mlflow_store
from components.contracts import Event, Prepared
from components.models import Model
from components.stages import evaluate, prepare, train
from components.trust import intervals


def model_of(name: str, settings: Sequence[str]) -> Model:
    """Return a model of params.yaml by its name, or the one of a profile's task with that profile."""
    if name in models.names(ROOT):
        return models.load(ROOT, name, settings=settings)
    profile = models.profile(ROOT, name)
    return models.load(ROOT, MODELS[profile.task], profile, settings)


def run(
    model: Model, prepared: Prepared, scratch: Path, other: tuple[Model, Prepared] | None = None
) -> list[dict[str, Any]]:
    """Train once and evaluate on the test split of one data set, or of two.

    Returns:
        For each of them the metrics, and the device, duration and speed of training.
    """
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
    tested = [(model, prepared, "evaluation"), *[(*each, "also") for each in (other,) if each]]
    return [
        result | {"metrics": evaluate.evaluate(each, data, trained, scratch / folder).metrics}
        for each, data, folder in tested
    ]


def prepared_in(folder: Path, model: Model, data: Path) -> Prepared:
    """Return what an earlier seed has prepared in a folder, or prepare it there."""
    return prepare.load(folder) if folder.exists() else prepare.prepare(model, data.resolve(), folder)


def difference(model: Model, other: str, prepared: Prepared, folder: Path, others: Path) -> dict[str, float]:
    """Return by how much a model's score is better than another's on the same samples, with its 95 % interval.

    Args:
        model: The model.
        other: Name of the other profile.
        prepared: The data of both.
        folder: The model's evaluation.
        others: The other's.
    """
    score = model.task.score(prepared.manifest)
    old, new = (evaluate.read_outcomes(each) for each in (others, folder))
    found = intervals.difference(old, new, score)
    low, high = found.interval
    name = f"{score.name}_over_{other}"
    return {name: found.value, f"{name}_low": low, f"{name}_high": high}


def main() -> None:
    """Measure and print the result of each seed, and record the results so far for docs/results.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profile", help="name of a profile in profiles/, or of a model in params.yaml")
    parser.add_argument("data", type=Path, help="the raw folder")
    parser.add_argument("--seeds", type=int, default=3, help="number of trainings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one parameter")
    parser.add_argument("--against", metavar="PROFILE", help="a profile of the same data to compare the score with")
    parser.add_argument(
        "--also", nargs=2, metavar=("PROFILE", "DATA"), help="evaluate the same weights on another raw folder, too"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep what is prepared, trained and evaluated")
    parser.add_argument("--gpu", action="store_true", help="fail if there is no GPU")
    options = parser.parse_args()
    if options.gpu and not torch.cuda.is_available():
        raise SystemExit("torch finds no GPU here: run this on a machine with a GPU, or omit --gpu")
    runs: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    if options.keep:
        options.keep.mkdir(parents=True)
    with nullcontext(options.keep) if options.keep else tempfile.TemporaryDirectory() as scratch:
        for seed in range(options.seeds):
            settings = (*options.set, f"train.seed={seed}")
            model = model_of(options.profile, settings)
            prepared = prepared_in(Path(scratch, "prepared"), model, options.data)
            other = None
            if options.also:
                second = model_of(options.also[0], settings)
                if (second.params.prepare, second.params.train) != (model.params.prepare, model.params.train):
                    raise SystemExit(f"{options.also[0]} is not trained as {options.profile} is: train it alone")
                other = second, prepared_in(Path(scratch, "also"), second, Path(options.also[1]))
            own = Path(scratch, str(seed))
            own.mkdir()
            found, *also = run(model, prepared, own, other)
            if options.against:
                second = model_of(options.against, settings)
                if second.params.prepare != model.params.prepare:
                    raise SystemExit(
                        f"{options.against} prepares other data than {options.profile}: compare others"
                    )
                (own / "other").mkdir()
                run(second, prepared, own / "other")
                folders = own / "evaluation", own / "other" / "evaluation"
                found["metrics"] |= difference(model, options.against, prepared, *folders)
            runs.append(found)
            others += also
            on_gpu = not found["device"].startswith("cpu")
            for name, measured in ((options.profile, runs), *[(options.also[0], others) for _ in also]):
                print(f"{name}, seed {seed}: {measured[-1]}", flush=True)
                results.record(name, options.set, on_gpu, measured)


if __name__ == "__main__":
    main()
