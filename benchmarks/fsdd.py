"""python -m benchmarks.fsdd ARCHIVE: spoken digits, on the official test split or on speakers not in training.

The Free Spoken Digit Dataset has 3,000 clips of six speakers, recordings/<digit>_<speaker>_<index>.wav. Its
official test split, index 0-4 of every speaker and digit, has the same speakers as training. With --speakers, each
of the six is left out of training in turn, which shows the accuracy for unknown speakers.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.cases import MODELS, ROOT
from components import models, tasks
from components.classification.report import joined, judge
from components.contracts import Worker
from components.models import Model
from components.stages import prepare
from components.tasks.spoken_words.data import extract
from components.tasks.spoken_words.words import LISTS
from components.training import inference, loop, model_files

TASK, PROFILE = tasks.load("spoken_words"), models.profile(ROOT, "fsdd")

Chooser = Callable[[str, int], bool]
"""Selects clips by speaker and index."""


def lay_out(archive: Path, folder: Path) -> list[str]:
    """Write folder/<digit>/<speaker>_<index>.wav; return the speakers."""
    with tempfile.TemporaryDirectory() as scratch:
        extract(archive, Path(scratch))
        for file in sorted(Path(scratch).rglob("*.wav")):
            digit, _, name = file.name.partition("_")
            (folder / digit).mkdir(parents=True, exist_ok=True)
            (folder / digit / name).write_bytes(file.read_bytes())
    return sorted({path.stem.partition("_")[0] for path in folder.rglob("*.wav")})


def write_lists(folder: Path, test: Chooser, val: Chooser) -> None:
    """Write Speech Commands' lists of test and validation clips; the others are for training."""
    for split, chosen in (("test", test), ("val", val)):
        lines = []
        for path in sorted(folder.rglob("*.wav")):
            speaker, _, index = path.stem.partition("_")
            if chosen(speaker, int(index)):
                lines.append(f"{path.relative_to(folder)}\n")
        (folder / LISTS[split]).write_text("".join(lines))


def official(folder: Path) -> None:
    """Test on index 0-4, the official split, and validate on 5-7."""
    write_lists(folder, lambda speaker, index: index < 5, lambda speaker, index: 5 <= index < 8)


def without(folder: Path, absent: str) -> None:
    """Test on all clips of one speaker, and validate on index 0-4 of the others."""
    write_lists(
        folder,
        lambda speaker, index: speaker == absent,
        lambda speaker, index: speaker != absent and index < 5,
    )


def run(raw: Path, model: Model) -> tuple[float, float]:
    """Prepare, train and predict; return the seconds of training and the accuracy on the test split."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        prepared = prepare.prepare(model, raw, out / "prepared")
        started = time.monotonic()
        loop.fit(TASK, model.params, prepared, out, Worker(device))
        seconds = time.monotonic() - started
        network = TASK.build_model(model.params, prepared.manifest)
        model_files.load_weights(network, out)
        test, folder = TASK.load_split(prepared.folder, "test"), out / "predictions"
        folder.mkdir()
        network = inference.placed(network, device)
        found = joined(inference.predict(TASK, model.params, network, test, device, folder))
        return seconds, float(judge(found["logits"], found["label"]).correct.double().mean())


def rounds(name: str, raw: Path, settings: Sequence[str], seeds: Iterable[int]) -> list[float]:
    """Run and print the result of each seed; return the accuracies."""
    accuracies = []
    for seed in seeds:
        model = models.load(ROOT, MODELS[TASK.name], PROFILE, (*settings, f"train.seed={seed}"))
        seconds, accuracy = run(raw, model)
        accuracies.append(accuracy)
        print(f"{name}  seed {seed}  trained {seconds:.0f} s  accuracy {accuracy:.2%}", flush=True)
    return accuracies


def main() -> None:
    """Lay out the clips, and measure the selected splits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="fsdd.tar.gz")
    parser.add_argument("--seeds", type=int, default=3, help="number of trainings on each split")
    parser.add_argument(
        "--speakers", action="store_true", help="leave out each speaker in turn, instead of the official test split"
    )
    parser.add_argument(
        "--folder", type=Path, help="only lay out the clips in this folder, with the official split"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one parameter")
    options = parser.parse_args()
    if options.folder:
        lay_out(options.archive, options.folder)
        official(options.folder)
        return
    with tempfile.TemporaryDirectory() as scratch:
        raw, found = Path(scratch), list[float]()
        speakers = lay_out(options.archive, raw)
        trials: list[tuple[str, Callable[[], None]]] = [("official test", partial(official, raw))]
        if options.speakers:
            trials = [(f"without {absent}", partial(without, raw, absent)) for absent in speakers]
        for name, divide in trials:
            divide()
            found += rounds(name, raw, options.set, range(options.seeds))
    print(f"mean accuracy {statistics.mean(found):.2%}, lowest {min(found):.2%}, highest {max(found):.2%}")


if __name__ == "__main__":
    main()
