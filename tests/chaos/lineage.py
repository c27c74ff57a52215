"""Random sequences of edits, pins, preparations and trainings: what a version says of its data is always true.

A toy model is driven in process, in a project of its own, by `python -m tests.chaos.lineage PROJECT TIMES SEED`.
"""

import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from components import models
from components.adapters import dvc_cache, dvc_data, mlflow_store, mlflow_versions
from components.adapters.mlflow_versions import Version
from components.contracts import Evaluated, Prepared, Trained
from components.errors import PedigreeError
from components.models import Model
from components.registry import trace
from components.registry.verify import verify
from components.stages import evaluate, prepare, register, train
from components.trust.lineage import NONE
from tests.chaos.results import Result
from tests.toy import tiny

ROOT = Path(__file__).parents[2]
STEPS = 12
"""Steps of a sequence."""
NAME = "line"

Contents = dict[str, bytes]
"""Bytes of files by path below the raw folder."""


def project(folder: Path) -> None:
    """Make a project with the toy task, under git and DVC."""
    for name in ("components", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data").mkdir()
    (folder / "params.yaml").write_text("models:\n")
    tiny.add(folder)
    (folder / ".gitignore").write_text("/build/\n/data/\n/mlruns/\nmlflow.db*\n__pycache__/\n")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder, check=True)
    author = ["-c", "user.name=Ann Author", "-c", "user.email=ann@example.org"]
    for command in (["add", "--all"], [*author, "commit", "--quiet", "--message", "A toy"]):
        subprocess.run(["git", *command], cwd=folder, check=True)


def inject_lineage(times: int, seed: int) -> Result:
    """Run random sequences; return what was found."""
    with tempfile.TemporaryDirectory(prefix="pedigree-lineage-") as scratch:
        folder = Path(scratch) / "project"
        folder.mkdir()
        project(folder)
        done = subprocess.run(
            [sys.executable, "-m", "tests.chaos.lineage", str(folder), str(times), str(seed)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(["", str(ROOT)])},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            return Result(times, "", [f"the sequences ended with exit code {done.returncode}"])
        found = json.loads(done.stdout.splitlines()[-1])
    steps = ", ".join(f"{name} {count}" for name, count in sorted(found["steps"].items()))
    planted = ", ".join(f"{name} {count}" for name, count in sorted(found["planted"].items()))
    return Result(
        times,
        f"{found['versions']} versions, none of which names data that did not make it; {found['unpinned']} say "
        f"that their data were not pinned; steps taken: {steps}; steps refused: {found['refused']}; `verify` found "
        f"every contradiction planted ({planted})",
        found["failures"],
    )


@dataclass
class Sequence:
    """One sequence of random steps on the toy model."""

    model: Model
    chance: random.Random
    away: Path
    """Folder outside the project for what links point to."""
    steps: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    read: dict[str, Contents] = field(default_factory=dict)
    """What preparation read, by the folder that it wrote."""
    prepared: Prepared | None = None
    trained: Trained | None = None
    evaluated: Evaluated | None = None
    made_from: Contents | None = None
    """What the prepared data were read from."""
    trained_on: Contents | None = None
    versions: list[tuple[Version, Contents]] = field(default_factory=list)

    @property
    def raw(self) -> Path:
        return self.model.raw

    def run(self) -> None:
        """Take random steps; those that the product refuses change nothing."""
        self._begin()
        for _ in range(STEPS):
            self._take(self.chance.choice(EDITS + 4 * STAGES_))
        for step in (Sequence.prepare, Sequence.train, Sequence.register):
            self._take(step)

    def _take(self, step: Callable[["Sequence"], None]) -> None:
        try:
            step(self)
            self.steps[step.__name__] += 1
        except PedigreeError:
            self.refused += 1

    def _begin(self) -> None:
        for folder in (self.raw, self.away):
            if folder.is_symlink():
                folder.unlink()
            shutil.rmtree(folder, ignore_errors=True)
        for name in ("a", "b"):
            for number in range(3):
                file = self.raw / name / f"{number}.csv"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(self._points())

    def _points(self) -> str:
        return "".join(f"{self.chance.random():.3f},{self.chance.random():.3f}\n" for _ in range(8))

    def _file(self) -> Path:
        found = sorted(path for path in self.raw.glob("*/*.csv") if path.is_file())
        if not found:
            raise PedigreeError("no file to change")
        return self.chance.choice(found)

    def edit(self) -> None:
        """Replace a file, or a number in it."""
        self._file().write_text(self._points())

    def add(self) -> None:
        """Add a file."""
        folder = self._file().parent
        (folder / f"{self.chance.randrange(1000)}.csv").write_text(self._points())

    def remove(self) -> None:
        """Remove a file."""
        self._file().unlink()

    def rename(self) -> None:
        """Rename a class folder."""
        folder = self._file().parent
        folder.rename(folder.with_name(f"folder {self.chance.randrange(1000)}"))

    def link_folder(self) -> None:
        """Put a folder elsewhere, and a link in its place."""
        folder = self._file().parent
        if folder.is_symlink():
            raise PedigreeError("it is one")
        self.away.mkdir(exist_ok=True)
        target = self.away / f"{self.chance.randrange(10**6)}"
        folder.rename(target)
        folder.symlink_to(target)

    def link_raw(self) -> None:
        """Put the whole data set elsewhere, and a link in its place; or take such a link back."""
        if self.raw.is_symlink():
            target = self.raw.resolve()
            self.raw.unlink()
            target.rename(self.raw)
            return
        self.away.mkdir(exist_ok=True)
        target = self.away / f"raw {self.chance.randrange(10**6)}"
        self.raw.rename(target)
        self.raw.symlink_to(target)

    def unlink(self) -> None:
        """Replace links to folders by the folders."""
        for link in [path for path in self.raw.glob("*") if path.is_symlink()]:
            target = link.resolve()
            link.unlink()
            if target.is_dir():
                target.rename(link)

    def link_file(self) -> None:
        """Add a link to a file."""
        file = self._file()
        file.with_name(f"link {self.chance.randrange(1000)}.csv").symlink_to(file)

    def break_link(self) -> None:
        """Add a link to nothing, whose name is not that of a sample."""
        self._file().with_name(f"broken {self.chance.randrange(1000)}").symlink_to("nowhere")

    def nest(self) -> None:
        """Make a folder a DVC project of its own, or undo that."""
        nested = self._file().parent / ".dvc"
        if nested.exists():
            nested.rmdir()
        else:
            nested.mkdir()

    def clean(self) -> None:
        """Remove what cannot be pinned."""
        if self.raw.is_symlink():
            self.link_raw()
        self.unlink()
        for path in [*self.raw.rglob("*")]:
            if path.name == ".dvc":
                path.rmdir()
            elif path.is_symlink() and not path.exists():
                path.unlink()

    def accept(self) -> None:
        """Pin the data."""
        dvc_data.add(self.model.root, self.model.data)

    def prepare(self) -> None:
        """Prepare; sometimes a file changes meanwhile."""
        task, disturb, contents = self.model.task, self.chance.random() < 0.2, Contents()

        def read(raw: Path, out: Path, params: Any) -> Any:
            contents.update(_contents(raw))
            manifest = task.prepare(raw, out, params)
            if disturb:
                self.chance.choice((Sequence.edit, Sequence.add, Sequence.remove))(self)
            return manifest

        model = replace(self.model, task=replace(task, prepare=read))
        self.prepared = prepare.prepare(model, self.raw, self.model.build / "prepared")
        self.made_from = contents

    def train(self) -> None:
        """Train on what was prepared last, and evaluate."""
        if self.prepared is None:
            raise PedigreeError("nothing is prepared")
        self.trained = None
        self.trained = train.train(self.model, self.prepared, self.model.build / "model")
        self.trained_on = self.made_from
        self.evaluated = evaluate.evaluate(self.model, self.prepared, self.trained, self.model.build / "evaluation")

    def register(self) -> None:
        """Register what was trained last."""
        if self.prepared is None or self.trained is None or self.evaluated is None or self.trained_on is None:
            raise PedigreeError("nothing is trained")
        if self.trained_on is not self.made_from:
            raise PedigreeError("the evaluation is of other data than the prepared ones")
        out = self.model.build / "registered.json"
        done = register.register(self.model, self.prepared, self.trained, self.evaluated, out)
        version = mlflow_versions.find(f"{done.name}/{done.version}")
        self.versions.append((version, self.trained_on))

    def wrong(self) -> Iterator[str]:
        """Return what is wrong with the versions of this sequence."""
        for version, contents in self.versions:
            ancestry, name = trace.lineage_of(version), f"version {version.version}"
            if ancestry.data.raw != hash_of(contents):
                yield f"{name} names the data {ancestry.data.raw} and was made from {hash_of(contents)}"
            if ancestry.data.pinned != NONE:
                with tempfile.TemporaryDirectory() as scratch:
                    dvc_cache.write_version(self.model.root, ancestry.data.pinned, Path(scratch))
                    if _contents(Path(scratch)) != contents:
                        yield f"{name} was made from other files than those that DVC has for it"
            elif "not pinned" not in version.tags[mlflow_versions.REASON]:
                yield f"{name} does not say that its data were not pinned"
            for check in verify(version, self.model.root):
                if check.state == "contradicted":
                    yield f"{name}: verify contradicts {check.entry}: {check.found}"


STAGES_ = (Sequence.prepare, Sequence.train, Sequence.register, Sequence.accept, Sequence.clean)
EDITS = (
    Sequence.edit,
    Sequence.add,
    Sequence.remove,
    Sequence.rename,
    Sequence.link_folder,
    Sequence.link_raw,
    Sequence.unlink,
    Sequence.link_file,
    Sequence.break_link,
    Sequence.nest,
)


def _contents(raw: Path) -> Contents:
    """Return all CSV files that a task could read, links followed."""
    found: Contents = {}
    for folder, _, names in os.walk(raw, followlinks=True):
        for name in names:
            path = Path(folder) / name
            if path.suffix == ".csv" and path.is_file():
                found[path.relative_to(raw).as_posix()] = path.read_bytes()
    return found


def hash_of(contents: Contents) -> str:
    """Return DVC's hash of a folder: the MD5 of its list of files with their MD5s."""
    md5 = {name: hashlib.md5(data, usedforsecurity=False).hexdigest() for name, data in contents.items()}
    listed = [{"md5": md5[name], "relpath": name} for name in sorted(md5, key=lambda name: tuple(name.split("/")))]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


@contextmanager
def damaged(*files: Path) -> Iterator[None]:
    """Flip a bit of each file, and keep its mode, as DVC trusts what is read-only."""
    before = {file: (file.stat().st_mode, file.read_bytes()) for file in files}
    for file, (mode, content) in before.items():
        changed = bytearray(content)
        changed[len(changed) // 2] ^= 1
        _write(file, bytes(changed), mode)
    yield
    for file, (mode, content) in before.items():
        _write(file, content, mode)


def _write(file: Path, content: bytes, mode: int) -> None:
    file.chmod(0o644)
    file.write_bytes(content)
    file.chmod(mode)


@contextmanager
def _edited_tag(root: Path, version: Version, key: str) -> Iterator[None]:
    where = "name = ? and version = ? and key = ?"
    which = [version.name, version.version, f"mlflow.pedigree.{key}"]
    with sqlite3.connect(root / "mlflow.db") as database:
        (before,) = database.execute(f"select value from model_version_tags where {where}", which).fetchone()
        edited = before.replace("a", "b", 1) if "a" in before else before + " "
        for value in (edited, before):
            database.execute(f"update model_version_tags set value = ? where {where}", [value, *which])
            database.commit()
            if value != before:
                yield


def plant(sequence: Sequence, version: Version) -> dict[str, Any]:
    """Return context managers that each plant a contradiction of a version, by name."""
    root, ancestry = sequence.model.root, trace.lineage_of(version)
    with tempfile.TemporaryDirectory() as scratch:
        mlflow_versions.files_of(version, Path(scratch))
    own = [path for path in (root / "mlruns").rglob("weights.safetensors") if _sha256(path) == ancestry.weights]
    planted: dict[str, Any] = {
        "its weights in the store": damaged(*own),
        "its lineage": _edited_tag(root, version, "lineage"),
        "its verdict": _edited_tag(root, version, "verdict"),
    }
    if sequence.prepared and sequence.trained_on is sequence.made_from:
        planted["a prepared array"] = damaged(sequence.prepared.folder / "test.points.npy")
    if ancestry.data.pinned != NONE:
        content = sequence.chance.choice([data for _, data in sorted(sequence.versions[-1][1].items())])
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        planted["a file in DVC's cache"] = damaged(root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:])
    return planted


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def main() -> None:
    """Run sequences in the project of the command line; print what was found as JSON."""
    root, times, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    mlflow_store.connect(root)
    model = models.load(root, NAME)
    steps, planted, failures = Counter[str](), Counter[str](), list[str]()
    versions = unpinned = refused = 0
    for number in range(times):
        chance = random.Random(f"{seed} {number}")
        sequence = Sequence(model, chance, root.parent / "away")
        sequence.run()
        failures += [f"sequence {number}: {each}" for each in sequence.wrong()]
        steps += sequence.steps
        refused += sequence.refused
        versions += len(sequence.versions)
        unpinned += sum(trace.lineage_of(version).data.pinned == NONE for version, _ in sequence.versions)
        if sequence.versions:
            address = f"{NAME}/{sequence.versions[-1][0].version}"
            for name, contradiction in plant(sequence, sequence.versions[-1][0]).items():
                with contradiction:
                    states = {check.state for check in verify(mlflow_versions.find(address), root)}
                planted[name] += 1
                if "contradicted" not in states:
                    failures.append(f"sequence {number}: verify did not find damage to {name}")
        if number % 10 == 9:
            print(f"  {number + 1} sequences, {versions} versions, {len(failures)} failures", file=sys.stderr)
    found = {"steps": steps, "planted": planted, "failures": failures}
    print(json.dumps({**found, "versions": versions, "unpinned": unpinned, "refused": refused}))


if __name__ == "__main__":
    main()
