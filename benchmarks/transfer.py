"""python -m benchmarks.transfer DATA: what digits gain from the weights of a network for Omniglot's characters.

DATA is a folder laid out by `python -m benchmarks.layouts omniglot-characters`. The profile omniglot-characters is
trained on it once. Then, with each seed, which also draws the 20 images of each digit, the profile digits-20 is
trained on data/digits from these weights and from random ones.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results
from benchmarks.cases import ROOT
from benchmarks.result import model_of, run
from components import models
from components.stages import prepare
from components.trust.intervals import quantile

PRETRAINED, FINE_TUNED = "omniglot-characters", "digits-20"


def gain(new: Sequence[float], old: Sequence[float]) -> dict[str, float]:
    """Return the mean difference of pairs, and its 95 % interval by Student's t."""
    differences = np.subtract(new, old)
    half = quantile(0.975, len(differences) - 1) * differences.std(ddof=1) / np.sqrt(len(differences))
    mean = float(differences.mean())
    return {
        "accuracy_gain": mean,
        "accuracy_gain_low": mean - float(half),
        "accuracy_gain_high": mean + float(half),
    }


def fine_tuned(seed: int, weights: str, scratch: Path) -> dict[str, Any]:
    """Train and evaluate on a few digits, from weights or at random."""
    settings = (f"train.init.from={weights}", f"train.seed={seed}", f"prepare.seed={seed}")
    model = model_of(FINE_TUNED, settings)
    scratch.mkdir()
    return run(model, prepare.prepare(model, ROOT / models.DATA / "digits", scratch / "prepared"), scratch)


def main() -> None:
    """Train all networks, and record the results for docs/results.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the raw folder of Omniglot's characters")
    parser.add_argument("--seeds", type=int, default=5, help="pairs of trainings, at least 2")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        pretrained = model_of(PRETRAINED, ())
        characters = prepare.prepare(pretrained, options.data.resolve(), scratch / "characters")
        (scratch / "pretrained").mkdir()
        first = run(pretrained, characters, scratch / "pretrained")
        results.record(PRETRAINED, [], not first["device"].startswith("cpu"), [first])
        weights, runs, accuracies = str(scratch / "pretrained" / "model"), [], []
        for seed in range(options.seeds):
            found = fine_tuned(seed, weights, scratch / f"from-{seed}")
            random = fine_tuned(seed, "random", scratch / f"random-{seed}")["metrics"]["accuracy"]
            found["metrics"]["accuracy_from_random"] = random
            accuracies.append((found["metrics"]["accuracy"], random))
            runs.append(found)
            print(f"seed {seed}: {accuracies[-1]}", flush=True)
        new, old = zip(*accuracies, strict=True)
        difference = gain(new, old)
        for found, own in zip(runs, np.subtract(new, old).tolist(), strict=True):
            found["metrics"] |= difference | {"accuracy_gain": own}
        results.record(FINE_TUNED, [], not first["device"].startswith("cpu"), runs)
        print(difference, statistics.mean(new), statistics.mean(old))


if __name__ == "__main__":
    main()
