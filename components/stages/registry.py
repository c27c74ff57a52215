"""What people do with registered versions: promote one, take the champion back, ask where one came from."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from components import files
from components.adapters import dvc_data, git, mlflow_runs, mlflow_versions
from components.adapters.mlflow_versions import Version
from components.errors import DamagedError, PedigreeError
from components.training import saved
from components.trust import lineage
from components.trust.lineage import NONE, Lineage

HERE, REMOTE, GONE, DAMAGED = "here", "in DVC's remote", "gone", "damaged"


@dataclass(frozen=True)
class Ancestor:
    """A line of the ancestry: what it is, which one, and whether it can still be had."""

    what: str
    which: str
    where: str = ""
    made_from: Sequence["Ancestor"] = field(default_factory=tuple)


def promote(address: str, why: str, root: Path) -> Version:
    """Make a version the champion, over the gate's head; who did so, when and why is kept.

    Raises:
        PedigreeError: there is no such version, or it is the champion already.
    """
    version = mlflow_versions.find(address)
    with mlflow_versions.changing(version.name):
        champion = mlflow_versions.version_at(version.name, mlflow_versions.CHAMPION)
        if champion and champion.version == version.version:
            raise PedigreeError(f"{version.name} version {version.version} is the champion already: nothing to do")
        mlflow_versions.promote(version, git.user(root), why)
    return version


def rollback(name: str, why: str, root: Path) -> Version:
    """Make the champion's predecessor the champion again.

    Raises:
        PedigreeError: there is no champion, or none was before it.
    """
    with mlflow_versions.changing(name):
        return _rolled_back(name, why, root)


def _rolled_back(name: str, why: str, root: Path) -> Version:
    champion = mlflow_versions.find(f"{name}@{mlflow_versions.CHAMPION}")
    known = {version.version: version for version in mlflow_versions.versions() if version.name == name}
    stack = _champions(mlflow_versions.promotions(name))
    while stack and (stack[-1] == champion.version or stack[-1] not in known):
        stack.pop()
    if not stack:
        raise PedigreeError(
            f"no champion of {name} was before version {champion.version}: promote another one with "
            f'`pedigree promote {name} VERSION --why "…"`'
        )
    version = known[stack[-1]]
    mlflow_versions.promote(version, git.user(root), why, back=True)
    return version


def _champions(steps: Sequence[mlflow_versions.Promotion]) -> list[int]:
    """Return the champions that a rollback can go back through, the present one last."""
    stack: list[int] = []
    for step in steps:
        if step["back"] and step["version"] in stack:
            while stack[-1] != step["version"]:
                stack.pop()
        else:
            stack.append(step["version"])
    return stack


def lineage_of(version: Version) -> Lineage:
    """Return where a version came from, from the version alone.

    Raises:
        PedigreeError: it was registered by hand, without saying, or what was said is damaged.
    """
    text, name = version.tags.get(lineage.TAG), f"{version.name} version {version.version}"
    if text is None:
        raise PedigreeError(
            f"{name} was registered without a lineage: only `pedigree run` and `dvc repro` write one"
        )
    mlflow_versions.expect_intact(version)
    return lineage.parse(text, f"the lineage of {name}")


def trace(address: str, root: Path) -> Ancestor:
    """Return a version's ancestry, and what of it is here, in the remote, or gone.

    Raises:
        PedigreeError: there is no such version, or it has no lineage.
    """
    version = mlflow_versions.find(address)
    made = lineage_of(version)
    data = Ancestor("data", f"{made.data.pinned} ({made.task}: {made.data.raw})", _data(made, root))
    commit = git.has(root, made.code.commit)
    code = Ancestor(
        "code",
        f"commit {made.code.commit}{', with uncommitted changes' if made.code.dirty else ''}",
        "" if made.code.commit == NONE else HERE if commit else GONE,
    )
    run = Ancestor(
        "run",
        f"MLflow {made.runs.mlflow}, Prefect {made.runs.prefect}, started {made.started}",
        HERE if mlflow_runs.has_run(made.runs.mlflow) else GONE,
    )
    machine = Ancestor(
        "machine", f"{made.machine.device}, {made.machine.world} worker(s), Python {made.machine.python}"
    )
    weights = Ancestor(
        "weights",
        made.weights,
        _weights(version, made),
        (
            Ancestor("prepared", made.data.prepared, _prepared(made, root), (data,)),
            Ancestor("test split", made.data.test_split),
            code,
            Ancestor("source of components", made.code.components),
            Ancestor("lock", made.code.lock),
            Ancestor("params", f"{made.params_sha256}, seed {made.seed}"),
            machine,
            run,
        ),
    )
    return Ancestor("version", f"{version.name} {version.version}", "", (*_promotions(version), weights))


def _promotions(version: Version) -> list[Ancestor]:
    steps = [step for step in mlflow_versions.promotions(version.name) if step["version"] == version.version]
    return [Ancestor("promoted", f"{step['when']} by {step['who']}: {step['why']}") for step in steps]


def _weights(version: Version, made: Lineage) -> str:
    try:
        with tempfile.TemporaryDirectory() as scratch:
            kept = mlflow_versions.files_of(version, Path(scratch))
            return HERE if files.sha256(kept.model / saved.WEIGHTS) == made.weights else DAMAGED
    except DamagedError:
        return DAMAGED
    except (PedigreeError, OSError):
        return GONE


def _prepared(made: Lineage, root: Path) -> str:
    for manifest in root.glob("build/**/prepared/manifest.json"):
        try:
            splits = json.loads(manifest.read_text())["splits"]
            if lineage.digest({name: split["sha256"] for name, split in splits.items()}) == made.data.prepared:
                return HERE
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return GONE


def _data(made: Lineage, root: Path) -> str:
    if made.data.pinned == NONE:
        return "in no version that was pinned"
    if not (root / ".dvc").is_dir():
        return "not to be known here, for this folder is no DVC project"
    if dvc_data.holds(root, made.data.pinned):
        return HERE
    try:
        return REMOTE if dvc_data.remote_holds(root, made.data.pinned) else GONE
    except PedigreeError as error:
        return f"not here; {error}"


def made_by(data: str) -> list[tuple[Version, Lineage]]:
    """Return all versions of all models that a data version made; `data` is the beginning of one of its hashes.

    Raises:
        PedigreeError: no version knows of it.
    """
    found = []
    for version in mlflow_versions.versions():
        try:
            made = lineage_of(version)
        except PedigreeError:  # registered by hand, or by code that is older than this
            continue
        else:
            if any(known.startswith(data) for known in (made.data.pinned, made.data.raw, made.data.prepared)):
                found.append((version, made))
    if not found:
        raise PedigreeError(
            f"no registered version was made from data {data}: look for hashes with `pedigree trace`"
        )
    return found
