"""What can be said, when a training begins, of where its model comes from."""

from dataclasses import dataclass
from pathlib import Path

from components import files
from components.adapters import dvc_data, git, mlflow_store
from components.contracts import Event, Manifest
from components.trust import lineage
from components.trust.lineage import NONE, Code, Data, Machine

_COMPONENTS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Origin:
    """The project that a training belongs to."""

    root: Path
    flow_run: str = NONE
    """Id of Prefect's flow run, where there is one."""


def code(root: Path) -> tuple[Code, bytes]:
    """Return which code this is, and what of it is in no commit, as `git apply` takes it."""
    tree, lock = git.tree(root), root / "requirements.lock"
    return Code(
        commit=tree.commit,
        dirty=bool(tree.diff),
        components=lineage.of_source(_COMPONENTS),
        lock=files.sha256(lock) if lock.is_file() else NONE,
    ), tree.diff


def data(root: Path, manifest: Manifest) -> Data:
    """Return which data these are; what data/ holds is pinned only while it is what data.dvc says."""
    pin = dvc_data.pinned(root)
    return Data(
        pinned=pin if pin and dvc_data.hash_or_none(root / dvc_data.DATA) == pin else NONE,
        raw=manifest.raw,
        prepared=lineage.of_prepared(manifest),
        test_split=manifest.splits["test"].sha256,
    )


def machine(begun: Event) -> Machine:
    """Return on what a training runs that told this when it began."""
    here = mlflow_store.environment()
    return Machine(
        device=begun["device"],
        world=begun["world"],
        python=here["python"],
        platform=here["platform"],
        packages=here["packages"],
    )
