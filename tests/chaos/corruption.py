"""Truncation and bit flips in files that the stages read: detected or without effect, never a wrong result."""

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from components import models, params
from components.adapters import dvc_data, mlflow_store, mlflow_versions
from components.errors import sentence
from components.models import Model
from components.project import data
from components.registry import compare, trace
from components.runtime import locks
from components.stages import evaluate, prepare, register, train
from components.training import loop
from tests.chaos.results import Result
from tests.conftest import Chain, make_project, run_chain

UPDATES = 4
"""Number of updates after which the training is interrupted."""

Reader = Callable[[Path], Any]
"""Reads the file in a copy of the project as the product does; returns a value that can be compared."""


@dataclass(frozen=True)
class Target:
    """Files of one kind, and the function that reads them."""

    name: str
    files: str
    """A pattern below the project's folder."""
    read: Reader
    another_is_known: bool = False
    """Another valid value is not damage but another input, which the lineage records."""
    kept_open: bool = False
    """The reader may keep the file open, so that each fault is injected into a new copy of the project."""


def targets(chain: Chain) -> list[Target]:
    """Return all kinds of files that stages read; a new kind needs an entry here."""
    name = chain.model.name
    build = f"build/{name}-chain"
    version = f"mlruns/{name}/models/*/artifacts"
    return [
        Target("prepared arrays and manifest, by training", f"{build}/prepared/**/*", partial(_train, chain)),
        Target("prepared arrays and manifest, by evaluation", f"{build}/prepared/**/*", partial(_evaluate, chain)),
        Target("a model's files, by evaluation", f"{build}/model/**/*", partial(_evaluate, chain)),
        Target("a model's files, by registration", f"{build}/model/**/*", partial(_register, chain)),
        Target("an evaluation's files, by registration", f"{build}/evaluation/**/*", partial(_register, chain)),
        Target("a registered version's files", f"{version}/**/*", partial(_version, chain)),
        Target("mlflow.db", "mlflow.db", partial(_version, chain), kept_open=True),
        Target(
            "an unfinished training",
            f"{INTERRUPTED}/training/**/*",
            partial(_resume, chain),
            kept_open=True,
        ),
        Target("params.yaml", params.FILE, _parameters, another_is_known=True),
        Target("data.dvc", dvc_data.PIN, partial(_data, chain)),
        Target("raw data that data.dvc pins", f"data/{chain.model.data}/**/*", partial(_data, chain)),
        Target("dvc.lock", "dvc.lock", partial(_reproduce, chain)),
        Target("the lock of dvc repro, and its holder", "build/.dvc-repro.*", _alone),
    ]


def _folder(chain: Chain, root: Path) -> Path:
    mlflow_store.connect(root)
    return root / "build" / f"{chain.model.name}-chain"


def _model(chain: Chain, root: Path) -> Model:
    """Return the chain's model in a copy of its project."""
    return replace(chain.model, root=root)


def _train(chain: Chain, root: Path) -> Any:
    folder = _folder(chain, root)
    prepared = prepare.load(folder / "prepared")
    trained = train.train(_model(chain, root), prepared, root / "build" / "again", name="again")
    return (trained.folder / "weights.safetensors").read_bytes()


def _evaluate(chain: Chain, root: Path) -> Any:
    folder = _folder(chain, root)
    prepared, trained = prepare.load(folder / "prepared"), train.load(folder / "model")
    return evaluate.evaluate(_model(chain, root), prepared, trained, root / "build" / "again").metrics


def _register(chain: Chain, root: Path) -> Any:
    folder = _folder(chain, root)
    prepared, trained = prepare.load(folder / "prepared"), train.load(folder / "model")
    evaluated = evaluate.load(folder / "evaluation")
    done = register.register(_model(chain, root), prepared, trained, evaluated, root / "build" / "again.json")
    return [rule for rule in done.verdict if "ms" not in str(rule["found"])]


INTERRUPTED = "build/interrupted"
"""Folder of the interrupted training."""


def _interrupt(chain: Chain, root: Path) -> None:
    """Leave an unfinished training with two checkpoints."""
    update, updates = loop._update, 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal updates
        updates += 1
        if updates == UPDATES:
            raise KeyboardInterrupt
        return update(*arguments)

    loop._update = interrupted
    try:
        with suppress(KeyboardInterrupt):
            _resume(chain, root)
    finally:
        loop._update = update


def _resume(chain: Chain, root: Path) -> Any:
    mlflow_store.connect(root)
    often = chain.values.train.model_copy(update={"checkpoint_seconds": 1e-9})
    values = chain.values.model_copy(update={"train": often})
    prepared = prepare.load(root / "build" / f"{chain.model.name}-chain" / "prepared")
    model = replace(_model(chain, root), params=values)
    trained = train.train(model, prepared, root / INTERRUPTED / "model", name="interrupted")
    return (trained.folder / "weights.safetensors").read_bytes()


def _version(chain: Chain, root: Path) -> Any:
    """Return what the commands report about a version: the champion, its metrics, lineage and comparison."""
    mlflow_store.connect(root)
    champion = mlflow_versions.find(chain.registered.name)
    with tempfile.TemporaryDirectory() as scratch:
        version_files = mlflow_versions.files_of(champion, Path(scratch))
        metrics = evaluate.read_metrics(version_files.metrics)
    address = f"{champion.name}/{champion.version}"
    compared = compare.compare(address, address, root)
    return champion.version, metrics, str(trace.trace(address, root)), compared.difference


def _parameters(root: Path) -> Any:
    return [models.load(root, name).params for name in models.names(root)]


def _data(chain: Chain, root: Path) -> Any:
    model = chain.model
    return list(data.bring_all(root, [model.name], accept=False)), dvc_data.hash_or_none(root / "data" / model.data)


def _reproduce(chain: Chain, root: Path) -> Any:
    dvc_data.repro(root, f"prepare@{chain.model.name}")
    return prepare.load(root / "build" / chain.model.name / "prepared").manifest


def _alone(root: Path) -> Any:
    locks.holder(root / "build" / ".dvc-repro.lock")  # as a waiting process reads it
    with dvc_data.alone(root, "a change of the data"):
        return "alone"


def damaged(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Truncate the content or flip a bit; return the result and a description."""
    if not content:
        return b"x", "a byte added"
    if rng.random() < 0.3:
        keep = rng.choice((0, len(content) // 2, len(content) - 1, rng.randrange(len(content))))
        return content[:keep], f"cut to {keep:,} of {len(content):,} bytes"
    index, bit = rng.randrange(len(content)), rng.randrange(8)
    flipped = bytes([content[index] ^ 1 << bit])
    return content[:index] + flipped + content[index + 1 :], f"bit {bit} of byte {index:,}"


def inject(chain: Chain, times: int, seed: int) -> Result:
    """Damage one file of each kind in turn, `times` times in all, and read it as the product does."""
    rng, known = random.Random(seed), targets(chain)
    outcomes: dict[str, Counter[str]] = {}
    failures: list[str] = []
    with copied(chain.root) as shared:
        _interrupt(chain, shared)
        _reproduce(chain, shared)  # creates dvc.lock and both lock files
        for number in range(times):
            target = known[number % len(known)]
            with copied(shared) if target.kept_open else nullcontext(shared) as root:
                outcome, damage = _damage_and_read(target, root, rng)
            if outcome.startswith(WRONG):
                failures.append(f"{target.name}, {damage}: {outcome}")
            else:
                outcomes.setdefault(outcome, Counter())[target.name] += 1
            if (number + 1) % 20 == 0:
                print(f"  {number + 1} of {times}, {len(failures)} failures", flush=True)
    summary = "; ".join(
        f"{counts.total()} {what} ({', '.join(f'{name} {count}' for name, count in sorted(counts.items()))})"
        for what, counts in sorted(outcomes.items())
    )
    return Result(times, f"{summary}. {UNKNOWN}", failures)


WRONG = "wrong: "
UNKNOWN = (
    "Numbers that MLflow's pages read directly from mlflow.db have no hash; whatever the stages and the gate "
    "rely on has one"
)


def _damage_and_read(target: Target, root: Path, rng: random.Random) -> tuple[str, str]:
    """Damage a file, read it, and restore it; return the outcome and the damage."""
    choice = rng.choice(sorted(path for path in root.glob(target.files) if path.is_file()))
    content = choice.read_bytes()
    other, what = damaged(content, rng)
    try:
        _replace(choice, other)
        read = target.read(root)
    except Exception as error:
        outcome = "rejected with an error message"
        if not sentence(error):
            outcome = f"{WRONG}{type(error).__name__}: {str(error)[:200]}"
    else:
        _replace(choice, content)
        with copied(root) if target.kept_open else nullcontext(root) as undamaged:
            outcome = _compared(target, read, target.read(undamaged))
    finally:
        _replace(choice, content)
    return outcome, f"{choice.relative_to(root)}, {what}"


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)  # a finished training has removed its folder
    path.unlink(missing_ok=True)  # it may be a hard link
    path.write_bytes(content)


def _compared(target: Target, read: Any, expected: Any) -> str:
    if read == expected:
        return "repaired or without effect, with the same result"
    if target.another_is_known:
        return "changed to another valid parameter, which the hash in the lineage shows"
    return f"{WRONG}{str(read)[:200]} instead of {str(expected)[:200]}"


@contextmanager
def copied(root: Path) -> Iterator[Path]:
    """Yield a copy of the project at a new path, so that no cache refers to an earlier one."""
    with tempfile.TemporaryDirectory(prefix="pedigree-chaos-") as folder:
        copy = Path(folder) / "project"
        shutil.copytree(root, copy, symlinks=True, ignore=shutil.ignore_patterns("runs", "__pycache__"))
        yield copy


def inject_files(times: int, seed: int) -> Result:
    """Run a tiny chain, and damage its files `times` times."""
    with tempfile.TemporaryDirectory(prefix="pedigree-chaos-") as folder:
        project = make_project(Path(folder) / "project")
        return inject(run_chain(project, "digits"), times, seed)
