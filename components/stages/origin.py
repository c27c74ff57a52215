"""What can be said, when a training begins, of where its model comes from."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from components import files
from components.adapters import dvc_data, git, mlflow_runs
from components.contracts import Event, Manifest
from components.errors import PedigreeError
from components.stages.fit import source_now
from components.training.saved import Saved
from components.trust import lineage
from components.trust.lineage import NONE, Code, Data, Lineage, Machine, Runs

_LOADED = source_now()
"""The hash of the source as it was when Python read it."""


@dataclass(frozen=True)
class Origin:
    """The project that a training belongs to."""

    root: Path
    flow_run: str = NONE
    """Id of Prefect's flow run, where there is one."""


class Beginning(BaseModel):
    """What is known before the first update, when nobody can have changed the tree or the data meanwhile."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    started: str
    code: Code
    diff: bytes
    data: Data


def beginning(root: Path, manifest: Manifest) -> Beginning:
    """Look at the project as it is when a training begins.

    Raises:
        PedigreeError: components/ is not what this process runs any more.
    """
    if source_now() != _LOADED:
        raise PedigreeError(
            "components/ was edited since this command began, which runs what was there then: run the same command "
            "again, which takes what is there now"
        )
    started = datetime.now(UTC).isoformat(timespec="seconds")
    code, diff = _code(root)
    return Beginning(started=started, code=code, diff=diff, data=_data(root, manifest))


def write(
    folder: Path, known: Beginning, described: Saved, begun: Event, earlier: list[str], runs: Runs
) -> Lineage:
    """Write the lineage, and what is in no commit, beside the weights in `folder`.

    Args:
        folder: The model's.
        known: From before the training.
        described: What model.json says.
        begun: What rank 0 told when it began, the last time.
        earlier: On what it had been trained before, where that was something else.
        runs: Under which names the tools know of it.
    """
    made = Lineage(
        task=described.task,
        started=known.started,
        data=known.data,
        code=known.code,
        params=described.params,
        params_sha256=lineage.digest(described.params),
        seed=described.seed,
        machine=_machine(begun, earlier),
        runs=runs,
        weights=described.weights_sha256,
    )
    files.write_text(folder / lineage.FILE, made.model_dump_json(indent=2) + "\n")
    if known.diff:
        (folder / lineage.DIFF).write_bytes(known.diff)
    return made


def _code(root: Path) -> tuple[Code, bytes]:
    """Return which code this is, and what of it is in no commit, as `git apply` takes it."""
    tree, lock = git.tree(root), root / "requirements.lock"
    return Code(
        commit=tree.commit,
        dirty=bool(tree.diff),
        components=source_now(),
        lock=files.sha256(lock) if lock.is_file() else NONE,
    ), tree.diff


def _data(root: Path, manifest: Manifest) -> Data:
    """Return which data these are; what data/ holds is pinned only while it is what data.dvc says."""
    pin = dvc_data.pinned(root)
    return Data(
        pinned=pin if pin and dvc_data.hash_or_none(root / dvc_data.DATA) == pin else NONE,
        raw=manifest.raw,
        prepared=lineage.of_prepared(manifest),
        test_split=manifest.splits["test"].sha256,
    )


def _machine(begun: Event, earlier: list[str]) -> Machine:
    """Return on what a training runs that told this when it began."""
    here = mlflow_runs.environment()
    return Machine(
        device=begun["device"],
        world=begun["world"],
        python=here["python"],
        platform=here["platform"],
        packages=here["packages"],
        earlier=earlier,
    )
