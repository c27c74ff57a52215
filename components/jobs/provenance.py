"""The provenance of a training: recorded when it starts, written as the model's lineage when it ends."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from components import params
from components.adapters import dvc_data, git, mlflow_runs
from components.contracts import Event, Manifest
from components.datasets import raw_files
from components.errors import PedigreeError
from components.runtime import files
from components.training.model_files import Saved
from components.trust import imports, lineage
from components.trust.imports import Imported
from components.trust.lineage import NONE, Code, Data, Lineage, Machine, Runs, Source

log = logging.getLogger("pedigree.provenance")

_LOADED = imports.hashes()
"""The hash of each module's source at the time it was imported."""


class Provenance(BaseModel):
    """Provenance recorded before the first update, so that later edits of code or data cannot falsify it."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    started: str
    code: Code
    diff: bytes
    data: Data


def record(root: Path, manifest: Manifest, code: Imported) -> Provenance:
    """Record the state of the project at the start of a training that runs `code`.

    Raises:
        PedigreeError: the code differs from what this process has imported.
    """
    if edited := code.differs_from(_LOADED):
        raise PedigreeError(
            f"{edited} was edited after this command had imported it: run the same command again to use the edited "
            "code"
        )
    started = datetime.now(UTC).isoformat(timespec="seconds")
    state, diff = _code(root)
    return Provenance(started=started, code=state, diff=diff, data=_data(root, manifest))


def write(
    folder: Path,
    provenance: Provenance,
    described: Saved,
    sources: Mapping[str, Source],
    start: Event,
    earlier: list[str],
    runs: Runs,
) -> Lineage:
    """Write the lineage and uncommitted changes beside the weights in `folder`.

    Args:
        folder: The model's folder.
        provenance: Recorded at the start of the training.
        described: Content of model.json.
        sources: The sources that parameters name.
        start: Rank 0's last start event.
        earlier: Machines used before that one, if they differ.
        runs: Names of the runs in other tools.
    """
    ancestry = Lineage(
        model=described.model,
        task=described.task,
        started=provenance.started,
        data=provenance.data,
        code=provenance.code,
        params=described.params,
        params_sha256=lineage.digest(described.params),
        seed=described.seed,
        machine=_machine(start, earlier),
        runs=runs,
        sources=dict(sources),
        weights=described.weights_sha256,
    )
    files.write_text(folder / lineage.FILE, ancestry.model_dump_json(indent=2) + "\n")
    if provenance.diff:
        (folder / lineage.DIFF).write_bytes(provenance.diff)
    return ancestry


_SETTINGS = frozenset((params.FILE, dvc_data.PIN, "prefect.yaml"))
"""Files that hold no code. dvc.lock is not among them, as its changes are none."""


def _code(root: Path) -> tuple[Code, bytes]:
    """Return the identity of the code, and its uncommitted changes in the format of `git apply`."""
    tree, lock = git.tree(root), root / "requirements.lock"
    if count := len(tree.secret):
        what = "1 file that may hold secrets is" if count == 1 else f"{count} files that may hold secrets are"
        log.warning("%s recorded by name and hash only: %s", what, raw_files.listed(tree.secret))
    if count := len(tree.new):
        what = "1 new file is" if count == 1 else f"{count} new files are"
        log.info("%s stored with the run in %s: %s", what, lineage.DIFF, raw_files.listed(tree.new))
    return Code(
        commit=tree.commit,
        dirty=bool(tree.diff),
        only=list(tree.changed) if _SETTINGS.issuperset(tree.changed) else [],
        components=imports.source_now(),
        lock=files.sha256(lock) if lock.is_file() else NONE,
    ), tree.diff


def _data(root: Path, manifest: Manifest) -> Data:
    """Return the identity of the data, which count as pinned only if a pin was exactly what was prepared."""
    pinned = manifest.pinned or dvc_data.pinned(root, manifest.data) == manifest.raw
    return Data(
        name=manifest.data,
        pinned=manifest.raw if pinned else NONE,
        raw=manifest.raw,
        prepared=lineage.of_prepared(manifest),
        test_split=manifest.splits["test"].sha256,
    )


def _machine(start: Event, earlier: list[str]) -> Machine:
    """Return the machine of a training, from its start event and this process's environment."""
    environment = mlflow_runs.environment()
    return Machine(
        device=start["device"],
        world=start["world"],
        python=environment["python"],
        platform=environment["platform"],
        packages=environment["packages"],
        earlier=earlier,
    )
