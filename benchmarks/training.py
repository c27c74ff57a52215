"""python -m benchmarks.training: our loop against a plain fp32 loop with a DataLoader, interleaved.

The same ResNet-18, batch size, crop and flip, on random 32x32 images: speed does not depend on what they show.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from components import arrays, params, tasks
from components.contracts import Event, Manifest, Prepared, Split, Workers
from components.training import loop
from components.vision.params import VisionParams
from components.vision.prepare import VisionFacts

ROOT = Path(__file__).parents[1]
BATCH, SIZE, CLASSES = 64, 32, 10


class Images(Dataset[tuple[torch.Tensor, int]]):
    """Per-sample transforms, as tutorials have them."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images, labels
        self.transform = v2.Compose(
            [
                v2.RandomCrop(SIZE, padding=4),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5] * 3, [0.25] * 3),
            ]
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Return one transformed image and its label."""
        return self.transform(self.images[index]), int(self.labels[index])


def prepared_in(folder: Path, samples: int) -> Prepared:
    """Write random images in the form that preparation leaves behind."""
    random = np.random.default_rng(0)
    splits = {}
    for split, count in (("train", samples), ("val", BATCH)):
        with arrays.Writer(folder / f"{split}.images.npy", np.uint8, (3, SIZE, SIZE)) as images:
            images.append(random.integers(0, 256, (count, 3, SIZE, SIZE), dtype=np.uint8))
        with arrays.Writer(folder / f"{split}.labels.npy", np.int64) as labels:
            labels.append(random.integers(0, CLASSES, count))
        splits[split] = Split(samples=count, sha256=arrays.joint_sha256(images, labels))
    facts = VisionFacts(
        classes=[str(c) for c in range(CLASSES)], channels=3, size=SIZE, mean=[0.5] * 3, std=[0.25] * 3, counts={}
    )
    return Prepared(folder, Manifest(task="vision", splits=splits, refused=[], facts=facts.model_dump()))


def ours(prepared: Prepared, values: VisionParams, out: Path) -> tuple[float, float]:
    """Return images a second and the share of peak in the second of two epochs."""
    events: list[Event] = []
    loop.fit(tasks.load("vision"), values, prepared, out, Workers(torch.device("cpu"), emit=events.append))
    metrics = [event["metrics"] for event in events if event["kind"] == "epoch"][-1]
    return metrics["speed/samples_per_second"], metrics["speed/share_of_peak"]


def plain(prepared: Prepared, values: VisionParams) -> float:
    """Return images a second in the second of two epochs."""
    task = tasks.load("vision")
    split = task.load_split(prepared.folder, "train")
    model = task.build_model(values, prepared.manifest).resnet.train()
    loader = DataLoader(Images(split["image"], split["label"]), BATCH, shuffle=True, drop_last=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    rate = 0.0
    for _ in range(2):
        started = time.perf_counter()
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        rate = len(loader) * BATCH / (time.perf_counter() - started)
    return rate


def main() -> None:
    """Measure A B A B ... and print the medians, their spread and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=1024)
    options = parser.parse_args()
    values = params.read(ROOT / "profiles" / "cifar10.yaml").over(params.read(ROOT / params.FILE))
    for setting in ("train.epochs=2", "train.workers=0", f"train.batch_size={BATCH}", "train.average.name=none"):
        values = params.assignment(setting, ("tasks", "vision")).over(values)
    validated = params.validate(VisionParams, values, ("tasks", "vision"))
    fast, slow, shares = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepared_in(Path(folder), options.samples)
        for _ in range(options.rounds):
            rate, share = ours(prepared, validated, Path(folder))
            fast.append(rate)
            shares.append(share)
            slow.append(plain(prepared, validated))
    table = Table(title=f"ResNet-18, 3x32x32, batch {BATCH}, {os.cpu_count()} x {platform.processor() or 'CPU'}")
    for column in ("", "images/s, median", "lowest", "highest"):
        table.add_column(column)
    for name, rates in (("our loop, bf16", fast), ("plain fp32 loop, DataLoader", slow)):
        table.add_row(name, *(f"{f(rates):.1f}" for f in (statistics.median, min, max)))
    console = Console()
    console.print(table)
    ratios = [a / b for a, b in zip(fast, slow, strict=True)]
    console.print(
        f"ratio {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]; "
        f"share of the measured peak {statistics.median(shares):.2f}"
    )


if __name__ == "__main__":
    main()
