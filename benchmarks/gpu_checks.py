"""What only a GPU can show: checks of the product, each a function that returns what it found or raises.

They also run on the CPU, where they show that they run. Where a GPU is lent for minutes, MLflow, DVC and Ray may be
missing: only `workers` needs them.
"""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import nn

from benchmarks import cases
from components.contracts import Event, Prepared, Worker
from components.datasets.splits import Columns
from components.errors import PedigreeError
from components.models import Model
from components.runtime import files
from components.stages import prepare
from components.training import device, loop, model_files, transfer

SMALL = {"image_classification": ("train.model.width=0.25",)}
"""Settings, besides those of `cases`, for networks that also train on a CPU."""
FREE = 4 * 2**30
"""Bytes of GPU memory that the check of resident splits leaves free."""


def prepared(model: Model, raw: Path, out: Path) -> Prepared:
    """Return the data prepared in `out`, where the task prepares them if they are not there."""
    manifest = out / prepare.MANIFEST
    if not manifest.exists():
        files.remove(out)  # what an interrupted preparation left
        out.mkdir(parents=True)
        files.write_json(manifest, model.task.prepare(raw, out, model.params).model_dump())
    return prepare.load(out)


class SkippedError(Exception):
    """A check cannot be made on this machine, for the reason in its text."""


@dataclass(frozen=True)
class Given:
    """What a check works on."""

    device: torch.device
    data: Path
    """Contains the prepared data of each task, in a folder of its name."""
    scratch: Path
    """An empty folder."""

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def model(self, task: str, *settings: str) -> Model:
        """Return a task's model with a small network."""
        return cases.model_of(task, 0, *SMALL.get(task, ()), *settings)

    def recurrent(self) -> list[str]:
        """Return the tasks whose networks have recurrent layers of torch's."""
        return [task for task in cases.KINDS if any(isinstance(part, nn.RNNBase) for part in self._parts(task))]

    def _parts(self, task: str) -> Iterator[nn.Module]:
        model = self.model(task)
        return model.task.build_model(model.params, self.prepared(task).manifest).modules()

    def prepared(self, task: str) -> Prepared:
        """Return a task's prepared data."""
        return prepare.load(self.data / task)

    def fit(
        self,
        task: str,
        name: str,
        *settings: str,
        problem: Callable[[], str] = str,
        emit: Callable[[Event], None] = lambda event: None,
    ) -> dict[str, float]:
        """Train in this process, in the folder `name`; return the metrics of the last validation."""
        model, rows = self.model(task, *settings), list[dict[str, float]]()
        folder = self.scratch / name
        folder.mkdir(exist_ok=True)

        def listen(event: Event) -> None:
            if event["kind"] == "validation":
                rows.append(event["metrics"])
            emit(event)

        worker = Worker(self.device, emit=listen, problem=problem)
        loop.fit(model.task, model.params, self.prepared(task), folder, worker)
        return rows[-1]

    def weights(self, name: str) -> str:
        """Return the SHA-256 of the weights that `fit` left."""
        return hashlib.sha256((self.scratch / name / model_files.WEIGHTS).read_bytes()).hexdigest()


def apart(one: float, other: float) -> float:
    """Return the difference of two numbers, relative to the first."""
    return abs(one - other) / abs(one)


def recurrent_weights(given: Given) -> str:
    """Train recurrent networks whose weights are not averaged, and load what was saved."""
    said = []
    for task in given.recurrent():
        row = given.fit(task, task, "train.epochs=1", "train.average.name=none")
        tensors = load_file(given.scratch / task / model_files.WEIGHTS)
        assert all(bool(each.isfinite().all()) for each in tensors.values()), f"{task}: weights are not finite"
        said.append(f"{task}: {len(tensors)} tensors, validation loss {row['val/loss']:.4f}")
    return "; ".join(said)


def recurrent_precision(given: Given) -> str:
    """Compare the losses of recurrent networks in bf16 and fp32, and look at the types of their outputs."""
    said = []
    for task in given.recurrent():
        types = set[str]()

        def look(module: nn.Module, arguments: Any, output: Any, types: set[str] = types) -> None:
            if isinstance(module, nn.RNNBase) and module.training:
                types.add(str(output[0].dtype).removeprefix("torch."))

        with nn.modules.module.register_module_forward_hook(look):
            auto = given.fit(task, f"{task} auto", "train.epochs=1")
        fp32 = given.fit(task, f"{task} fp32", "train.precision=fp32", "train.epochs=1")
        losses = [row["train/loss"] for row in (auto, fp32)]
        said.append(f"{task}: loss {losses[0]:.4f} in auto, {losses[1]:.4f} in fp32, layers in {sorted(types)}")
        assert "float16" not in types, f"{said[-1]}: fp16 loses small gradients"
        assert apart(losses[1], losses[0]) < 0.05, f"{said[-1]}: they differ by more than 5 %"
    return "; ".join(said)


def waits(given: Given) -> str:
    """Count where training waits for the GPU in an epoch, and in one with twice as many updates."""
    said = []
    for task in cases.KINDS:
        (few, once), (many, twice) = (_waits(given, task, size) for size in (32, 16))
        assert many > few
        grown = {line: (twice[line] - once[line]) / (many - few) for line in twice}
        often = {line: round(each, 2) for line, each in grown.items() if each > 0.1}
        said.append(f"{task}: {sum(once.values())} waits in {few} updates, {sum(twice.values())} in {many}")
        assert not often, f"{said[-1]}, of which for each update {often}"
    return "; ".join(said)


def _waits(given: Given, task: str, size: int) -> tuple[int, Counter[str]]:
    """Return the updates of an epoch with batches of a size, and how often each line of code waited."""
    updates = list[int]()

    def emit(event: Event) -> None:
        if event["kind"] == "start":
            updates.append(event["updates"])

    settings = ("train.epochs=1", "train.checkpoint_seconds=1000", f"train.batch_size={size}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if given.on_gpu:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            given.fit(task, f"{task} {size}", *settings, emit=emit)
        finally:
            if given.on_gpu:
                torch.cuda.set_sync_debug_mode("default")
    waited = (each for each in caught if "synchroniz" in str(each.message))
    return updates[0], Counter(f"{Path(each.filename).name}:{each.lineno}" for each in waited)


NETWORKS = {
    **{task: (task, ()) for task in cases.KINDS},
    "whitened": ("image_classification", ("train.model.network=whitened",)),
}
"""By name: a task, and settings."""


def resumes(given: Given) -> str:
    """Compare the weights of a training with those of the same again, and of one that was interrupted."""
    said, wrong = [], []
    for name, (task, more) in NETWORKS.items():
        settings, asked = ("train.batch_size=16", *more), 0

        def problem() -> str:
            nonlocal asked
            asked += 1
            return "interrupted" if asked > 4 else ""

        for folder in ("first", "second"):
            given.fit(task, f"{name} {folder}", *settings)
        interrupted = False
        try:
            given.fit(task, f"{name} resumed", *settings, problem=problem)
        except PedigreeError as error:
            interrupted = str(error) == "interrupted"
        assert interrupted, f"{name} was not interrupted"
        given.fit(task, f"{name} resumed", *settings)
        first, *others = (given.weights(f"{name} {folder}") for folder in ("first", "second", "resumed"))
        again, resumed = (other == first for other in others)
        said.append(f"{name}: again {_same(again)}, resumed {_same(resumed)}")
        if not (again and resumed):
            wrong.append(name)
    assert not wrong, f"{'; '.join(said)}: {', '.join(wrong)} should be the same"
    return "; ".join(said)


def _same(same: bool) -> str:
    return "bitwise the same" if same else "other weights"


def workers(given: Given) -> str:
    """Train through the stage on workers, two if there are two GPUs; evaluate on them and in this process."""
    try:
        from components.adapters import mlflow_store, ray_train  # noqa: F401
        from components.stages import evaluate, train
    except ModuleNotFoundError as error:
        raise SkippedError(f"{error.name} is not installed") from None
    task, data = "image_classification", given.prepared("image_classification")
    files.seal(data.folder)
    mlflow_store.connect(given.scratch)
    number = min(2, torch.cuda.device_count()) if given.on_gpu else 2
    metrics = []
    trained = None
    for evaluating in (number, 0):
        model = given.model(task, f"train.workers={number}", f"evaluate.workers={evaluating}")
        trained = trained or train.train(model, data, given.scratch / "model")
        metrics.append(evaluate.evaluate(model, data, trained, given.scratch / f"{evaluating}").metrics)
    assert metrics[0] == metrics[1], f"{number} workers evaluate to {metrics[0]}, this process to {metrics[1]}"
    return f"{number} workers, accuracy {metrics[0]['accuracy']:.4f}, to the last digit as in this process"


def compiles(given: Given) -> str:
    """Compare a compiled network with one that is not, with CUDA graphs and with gradients that add up."""
    if not device.can_compile():
        raise SkippedError("there is no C++ compiler, or no headers of Python")
    said = []
    for accumulate in (1, 2):
        plain, compiled = (
            given.fit(
                "image_classification",
                f"{accumulate} {chosen}",
                f"train.compile={chosen}",
                f"train.accumulate={accumulate}",
            )
            for chosen in ("false", "true")
        )
        gain = compiled["speed/samples_per_second"] / plain["speed/samples_per_second"]
        before, after = plain["train/loss"], compiled["train/loss"]
        faster = f"{gain:.2f} times as fast in the last epoch"
        said.append(f"accumulate {accumulate}: {faster}, loss {after:.4f} for {before:.4f}")
        assert apart(before, after) < 0.05, f"{said[-1]}: they differ by more than 5 %"
    return "; ".join(said)


def resident(given: Given) -> str:
    """Fill the GPU's memory but for some, and look which splits move there; train on one that does not."""
    said = []
    if given.on_gpu:
        free, _ = torch.cuda.mem_get_info(given.device)
        filling = torch.empty(free - FREE, dtype=torch.uint8, device=given.device)
        left, _ = torch.cuda.mem_get_info(given.device)
        sizes = {share: int(share * left) for share in (0.3, 0.15, 0.1)}
        splits = [Columns({"x": torch.zeros(size, dtype=torch.uint8)}) for size in sizes.values()]
        moved = [split.device.type for split in transfer.resident(splits, given.device)]
        said.append(f"of {left / 2**30:.1f} GiB free, splits of {list(sizes)} are on {moved}")
        assert moved == ["cuda", "cuda", "cpu"], said[-1]
        del filling, splits
        torch.cuda.empty_cache()
    for task in cases.KINDS:
        given.fit(task, f"{task} moved", "train.epochs=1")
        with mock.patch.object(torch.cuda, "mem_get_info", return_value=(0, 0)):
            given.fit(task, f"{task} gathered", "train.epochs=1")
        moved_or_not = [given.weights(f"{task} {how}") for how in ("moved", "gathered")]
        assert moved_or_not[0] == moved_or_not[1], f"{task}: a split that stays on the CPU gives other weights"
    return "; ".join([*said, "splits that stay on the CPU give the same weights"])


CHECKS: Mapping[str, Callable[[Given], str]] = {
    "recurrent networks without an average are saved": recurrent_weights,
    "recurrent layers do not compute in fp16": recurrent_precision,
    "no update waits for the GPU": waits,
    "the same training, also resumed, has the same weights": resumes,
    "workers train and evaluate": workers,
    "a compiled network learns the same": compiles,
    "splits share half of the free memory": resident,
}
