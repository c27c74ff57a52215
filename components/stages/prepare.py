"""Raw files -> memory-mapped arrays and manifest.json."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from components import files
from components.adapters import dvc_data
from components.contracts import Manifest, Prepared, Task
from components.errors import PedigreeError
from components.params import TaskParams

MANIFEST = "manifest.json"


def prepare(task: Task[Any], params: TaskParams, raw: Path, out: Path) -> Prepared:
    """Prepare the raw folder into `out`, which is replaced only when all went well."""
    with files.replacing(out) as new:
        manifest = task.prepare(raw, new, params).model_copy(update={"raw": dvc_data.hash_or_none(raw)})
        files.write_json(new / MANIFEST, manifest.model_dump())
        files.seal(new)
    return Prepared(out, manifest)


def load(folder: Path) -> Prepared:
    """Take up what `prepare` wrote, on this or another day.

    Raises:
        PedigreeError: it is not there, or is not whole.
    """
    try:
        return Prepared(folder, Manifest.model_validate_json((folder / MANIFEST).read_bytes()))
    except FileNotFoundError:
        raise PedigreeError(f"{folder} holds no prepared data: run the prepare stage first") from None
    except ValidationError:
        raise PedigreeError(f"{folder / MANIFEST} is damaged: run the prepare stage again") from None


def run(task: Task[Any], params: TaskParams, root: Path) -> None:
    """Run the stage by itself, as dvc.yaml does: from data/<task>/ to build/<task>/prepared/."""
    prepare(task, params, root / "data" / task.name, root / "build" / task.name / "prepared")
