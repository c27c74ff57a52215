"""python -m benchmarks.fsdd ARCHIVE: spoken digits, on the official test and on speakers never heard in training.

The Free Spoken Digit Dataset has 3,000 clips of six speakers, recordings/<digit>_<speaker>_<index>.wav. Its
official test split is index 0-4 of every speaker and digit. That one knows all speakers; with --speakers each of
the six is left out of training in turn, which is what counts for everybody else.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch

from components import params, tasks
from components.classification import judge
from components.contracts import Workers
from components.speech.data import extract
from components.speech.params import SpeechParams
from components.speech.words import LISTS
from components.stages import prepare
from components.training import inference, loop, saved

ROOT = Path(__file__).parents[1]
TASK = tasks.load("speech")

Chooser = Callable[[str, int], bool]
"""Whether a clip of this speaker with this index is meant."""


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
    """Say in Speech Commands' lists which clips test and which validate; the rest train."""
    for split, chosen in (("test", test), ("val", val)):
        named = []
        for path in sorted(folder.rglob("*.wav")):
            speaker, _, index = path.stem.partition("_")
            if chosen(speaker, int(index)):
                named.append(f"{path.relative_to(folder)}\n")
        (folder / LISTS[split]).write_text("".join(named))


def official(folder: Path) -> None:
    """Test on index 0-4, as is usual, and validate on 5-7."""
    write_lists(folder, lambda speaker, index: index < 5, lambda speaker, index: 5 <= index < 8)


def without(folder: Path, absent: str) -> None:
    """Test on all clips of one speaker, and validate on index 0-4 of the others."""
    write_lists(
        folder,
        lambda speaker, index: speaker == absent,
        lambda speaker, index: speaker != absent and index < 5,
    )


def run(raw: Path, values: SpeechParams) -> tuple[float, float]:
    """Prepare, train and predict; return the seconds of training and the accuracy on the test split."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        prepared = prepare.prepare(TASK, values, raw, out / "prepared")
        started = time.monotonic()
        loop.fit(TASK, values, prepared, out, Workers(device))
        seconds = time.monotonic() - started
        model = TASK.build_model(values, prepared.manifest)
        saved.load_weights(model, out)
        test = TASK.load_split(prepared.folder, "test")
        found = inference.predict(TASK, inference.placed(model, device), test, device, values.evaluate.batch_size)
        assert found is not None
        return seconds, float(judge(found["logits"], found["label"]).correct.double().mean())


def rounds(name: str, raw: Path, values: SpeechParams, seeds: Iterable[int]) -> list[float]:
    """Run with each seed, telling of each; return the accuracies."""
    accuracies = []
    for seed in seeds:
        train = values.train.model_copy(update={"seed": seed})
        seconds, accuracy = run(raw, values.model_copy(update={"train": train}))
        accuracies.append(accuracy)
        print(f"{name}  seed {seed}  trained {seconds:.0f} s  accuracy {accuracy:.2%}", flush=True)
    return accuracies


def main() -> None:
    """Lay the clips out, and measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="fsdd.tar.gz")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each split")
    parser.add_argument(
        "--speakers", action="store_true", help="leave each speaker out, instead of the official test"
    )
    parser.add_argument("--folder", type=Path, help="only lay out the clips with the official test's lists, here")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one parameter")
    options = parser.parse_args()
    if options.folder:
        lay_out(options.archive, options.folder)
        official(options.folder)
        return
    written = params.read(ROOT / "profiles" / "fsdd.yaml").over(params.read(ROOT / params.FILE))
    for setting in options.set:
        written = params.assignment(setting, ("tasks", "speech")).over(written)
    values = params.validate(SpeechParams, written, ("tasks", "speech"))
    with tempfile.TemporaryDirectory() as scratch:
        raw, found = Path(scratch), list[float]()
        speakers = lay_out(options.archive, raw)
        trials: list[tuple[str, Callable[[], None]]] = [("official test", partial(official, raw))]
        if options.speakers:
            trials = [(f"without {absent}", partial(without, raw, absent)) for absent in speakers]
        for name, divide in trials:
            divide()
            found += rounds(name, raw, values, range(options.seeds))
    print(f"mean accuracy {statistics.mean(found):.2%}, lowest {min(found):.2%}, highest {max(found):.2%}")


if __name__ == "__main__":
    main()
