"""Files that the stages read, truncated or with a flipped byte: noticed or without effect, never a wrong number."""

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from components import locks, params, tasks
from components.adapters import dvc_data, mlflow_store, mlflow_versions
from components.errors import sentence
from components.stages import compare, data, evaluate, prepare, register, registry, train
from components.stages.origin import Origin
from components.training import loop
from tests.chaos.results import Result
from tests.conftest import Chain, make_project, run_chain

UPDATES = 4
"""After which the training is cut off."""

Reader = Callable[[Path], Any]
"""Does with a copy of the project what the product does with the damaged file; what it returns can be compared."""


@dataclass(frozen=True)
class Target:
    """Files of one kind, and who reads them."""

    name: str
    files: str
    """A pattern below the project's folder."""
    read: Reader
    another_is_known: bool = False
    """Another valid value of it is another input, which the lineage tells from the first, and no damage."""
    kept_open: bool = False
    """Whoever reads it may have it still open afterwards: each damage is done to a copy of the project."""


def targets(chain: Chain) -> list[Target]:
    """Return all that a stage reads from files; a kind of file is added by a line here."""
    name = chain.task.name
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
            f"{CUT_OFF}/training/**/*",
            partial(_go_on, chain),
            kept_open=True,
        ),
        Target("params.yaml", params.FILE, _parameters, another_is_known=True),
        Target("data.dvc", dvc_data.PIN, _data),
        Target("raw data that data.dvc pins", f"data/{name}/**/*", _data),
        Target("dvc.lock", "dvc.lock", partial(_reproduce, chain)),
        Target("the lock of dvc repro, and its holder", "build/.dvc-repro.*", _alone),
    ]


def _folder(chain: Chain, root: Path) -> Path:
    mlflow_store.connect(root)
    return root / "build" / f"{chain.task.name}-chain"


def _train(chain: Chain, root: Path) -> Any:
    folder = _folder(chain, root)
    prepared = prepare.load(folder / "prepared")
    trained = train.train(chain.task, chain.values, prepared, root / "build" / "again", Origin(root), "again")
    return (trained.folder / "weights.safetensors").read_bytes()


def _evaluate(chain: Chain, root: Path) -> Any:
    folder = _folder(chain, root)
    prepared, trained = prepare.load(folder / "prepared"), train.load(folder / "model")
    return evaluate.evaluate(chain.task, chain.values, prepared, trained, root / "build" / "again").metrics


def _register(chain: Chain, root: Path) -> Any:
    folder = _folder(chain, root)
    prepared, trained = prepare.load(folder / "prepared"), train.load(folder / "model")
    evaluated = evaluate.load(folder / "evaluation")
    done = register.register(chain.task, chain.values, prepared, trained, evaluated, root / "build" / "again.json")
    return [rule for rule in done.verdict if "ms" not in str(rule["found"])]


CUT_OFF = "build/cut-off"
"""Of a training that was interrupted."""


def _cut_off(chain: Chain, root: Path) -> None:
    """Leave an unfinished training with two checkpoints."""
    update, made = loop._update, 0

    def some(*arguments: Any) -> Any:
        nonlocal made
        made += 1
        if made == UPDATES:
            raise KeyboardInterrupt
        return update(*arguments)

    loop._update = some
    try:
        with suppress(KeyboardInterrupt):
            _go_on(chain, root)
    finally:
        loop._update = update


def _go_on(chain: Chain, root: Path) -> Any:
    mlflow_store.connect(root)
    often = chain.values.train.model_copy(update={"checkpoint_seconds": 1e-9})
    values = chain.values.model_copy(update={"train": often})
    prepared = prepare.load(root / "build" / f"{chain.task.name}-chain" / "prepared")
    trained = train.train(chain.task, values, prepared, root / CUT_OFF / "model", Origin(root), "cut off")
    return (trained.folder / "weights.safetensors").read_bytes()


def _version(chain: Chain, root: Path) -> Any:
    """What programs say of a version: which is champion, its ancestry, its files, its numbers."""
    mlflow_store.connect(root)
    champion = mlflow_versions.find(chain.registered.name)
    with tempfile.TemporaryDirectory() as scratch:
        kept = mlflow_versions.files_of(champion, Path(scratch))
        metrics = evaluate.read_metrics(kept.metrics)
    address = f"{champion.name}/{champion.version}"
    compared = compare.compare(address, address, root)
    return champion.version, metrics, str(registry.trace(address, root)), compared.difference


def _parameters(root: Path) -> Any:
    values = params.read(root / params.FILE)
    return [params.validate(tasks.load(name).params, values, ("tasks", name)) for name in tasks.names(root)]


def _data(root: Path) -> Any:
    return data.bring(root, {}, accept=False), dvc_data.hash_or_none(root / "data")


def _reproduce(chain: Chain, root: Path) -> Any:
    dvc_data.repro(root, f"prepare@{chain.task.name}")
    return prepare.load(root / "build" / chain.task.name / "prepared").manifest


def _alone(root: Path) -> Any:
    locks.holder(root / "build" / ".dvc-repro.lock")  # as whoever waits reads it, whatever it says
    with dvc_data.alone(root):
        return "alone"


def damaged(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Return other bytes, and what was done to them: truncated, or a bit of one byte flipped."""
    if not content:
        return b"x", "a byte added"
    if rng.random() < 0.3:
        keep = rng.choice((0, len(content) // 2, len(content) - 1, rng.randrange(len(content))))
        return content[:keep], f"cut to {keep:,} of {len(content):,} bytes"
    place, bit = rng.randrange(len(content)), rng.randrange(8)
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[
        place + 1 :
    ], f"bit {bit} of byte {place:,}"


def blow(chain: Chain, times: int, seed: int) -> Result:
    """Damage one file of each kind in turn, so many times in all, and read it as the product does."""
    rng, known = random.Random(seed), targets(chain)
    found: dict[str, Counter[str]] = {}
    failures: list[str] = []
    with copied(chain.root) as shared:
        _cut_off(chain, shared)
        _reproduce(chain, shared)  # makes dvc.lock, and both files of the lock
        for number in range(times):
            target = known[number % len(known)]
            with copied(shared) if target.kept_open else nullcontext(shared) as root:
                said, what = _dealt(target, root, rng)
            if said.startswith(WRONG):
                failures.append(f"{target.name}, {what}: {said}")
            else:
                found.setdefault(said, Counter())[target.name] += 1
            if (number + 1) % 20 == 0:
                print(f"  {number + 1} of {times}, {len(failures)} failures", flush=True)
    told = "; ".join(
        f"{counts.total()} {what} ({', '.join(f'{name} {count}' for name, count in sorted(counts.items()))})"
        for what, counts in sorted(found.items())
    )
    return Result(times, f"{told}. {UNKNOWN}", failures)


WRONG = "wrong: "
UNKNOWN = (
    "Numbers that MLflow's own pages draw straight from mlflow.db have no hash; what the stages and the gate "
    "go by has one"
)


def _dealt(target: Target, root: Path, rng: random.Random) -> tuple[str, str]:
    """Damage a file, read it, and bring it back; return what came of it, and what was done."""
    choice = rng.choice(sorted(path for path in root.glob(target.files) if path.is_file()))
    content = choice.read_bytes()
    other, what = damaged(content, rng)
    try:
        _replace(choice, other)
        read = target.read(root)
    except Exception as error:
        said = "refused with a sentence"
        if not sentence(error):
            said = f"{WRONG}{type(error).__name__}: {str(error)[:200]}"
    else:
        _replace(choice, content)
        with copied(root) if target.kept_open else nullcontext(root) as whole:
            said = _compared(target, read, target.read(whole))
    finally:
        _replace(choice, content)
    return said, f"{choice.relative_to(root)}, {what}"


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)  # a training that is over has removed its own
    path.unlink(missing_ok=True)  # it may be a hard link
    path.write_bytes(content)


def _compared(target: Target, read: Any, right: Any) -> str:
    if read == right:
        return "mended, or of no effect: the result was the same"
    if target.another_is_known:
        return "another valid parameter, which its hash in the lineage tells from the one before"
    return f"{WRONG}{str(read)[:200]} instead of {str(right)[:200]}"


@contextmanager
def copied(root: Path) -> Iterator[Path]:
    """Give a copy of the project of its own name, so that nothing remembers the one before."""
    with tempfile.TemporaryDirectory(prefix="pedigree-chaos-") as folder:
        copy = Path(folder) / "project"
        shutil.copytree(root, copy, symlinks=True, ignore=shutil.ignore_patterns("runs", "__pycache__"))
        yield copy


def blow_files(times: int, seed: int) -> Result:
    """Run a tiny chain, and damage its files so many times."""
    with tempfile.TemporaryDirectory(prefix="pedigree-chaos-") as folder:
        project = make_project(Path(folder) / "project")
        return blow(run_chain(project, "vision"), times, seed)
