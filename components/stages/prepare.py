"""Raw files -> memory-mapped arrays and manifest.json."""

import logging
from pathlib import Path

from pydantic import ValidationError

from components.adapters import dvc_data
from components.contracts import Manifest, Prepared
from components.datasets import ingest, raw_files
from components.errors import PedigreeError
from components.models import DATA, Model
from components.params import FilesPrepareParams
from components.runtime import files
from components.trust.lineage import NONE

log = logging.getLogger("pedigree.prepare")

MANIFEST = "manifest.json"


def prepare(model: Model, raw: Path, out: Path) -> Prepared:
    """Prepare the raw folder, usually `model.raw`, into `out`, which is replaced only on success."""
    present = dvc_data.survey(raw)
    with files.replacing(out) as new:
        before = dvc_data.hash_or_none(raw)
        try:
            manifest = model.task.prepare(raw, new, model.for_preparation())
        except PedigreeError:
            if present.rejected:  # perhaps the reason why there is too little
                log.warning(f"prepare {model.name}: {ingest.rejections(present.rejected)}")
            raise
        if dvc_data.hash_or_none(raw) != before:
            raise PedigreeError(f"{raw} was changed while it was read: run the same command again")
        pinned = before != NONE and dvc_data.pinned(model.root, model.data) == before
        identity = {"raw": before, "pinned": pinned, "data": model.data}
        rejected = sorted([*manifest.rejected, *present.rejected], key=lambda each: each.file)
        passed_over = {"rejected": rejected, "ignored": sorted([*manifest.ignored, *present.ignored])}
        if isinstance(section := model.params.prepare, FilesPrepareParams):
            accepted = sum(part.samples for part in manifest.splits.values())  # one file may hold many
            ingest.expect_few(raw, new, rejected, accepted + len(rejected), section.max_rejected)
        note = {"note": _note(model, manifest)}
        manifest = manifest.model_copy(update=identity | passed_over | note)
        files.write_json(new / MANIFEST, manifest.model_dump())
        files.seal(new)
    if manifest.drawn:
        number = model.params.prepare.resplit
        why = f"resplit is {number}" if number else f"{DATA}/{model.data} has no test split"
        log.info(f"prepare {model.name}: {why}: drew {manifest.drawn} for testing")
    if manifest.rejected:
        log.info(f"prepare {model.name}: {ingest.rejections(manifest.rejected)}")
    if manifest.ignored:
        log.info(f"prepare {model.name}: ignored {raw_files.listed(manifest.ignored)}")
    return Prepared(out, manifest)


def _note(model: Model, manifest: Manifest) -> str:
    """Return the task's note, and if the data were split anew, by which draw."""
    number = model.params.prepare.resplit
    anew = f"tested on draw {number} from all samples (prepare.resplit)" if number else ""
    return "; ".join(filter(None, (manifest.note, anew)))


def load(folder: Path) -> Prepared:
    """Load what `prepare` wrote.

    Raises:
        PedigreeError: it is missing or damaged.
    """
    try:
        return Prepared(folder, Manifest.model_validate_json((folder / MANIFEST).read_bytes()))
    except FileNotFoundError:
        raise PedigreeError(f"{folder} holds no prepared data: run the prepare stage first") from None
    except ValidationError:
        raise PedigreeError(f"{folder / MANIFEST} is damaged: run the prepare stage again") from None


def run(model: Model) -> None:
    """Run the stage alone, as dvc.yaml does, from data/<data>/ to build/<model>/prepared/.

    Raises:
        PedigreeError: the data set is missing or cannot be prepared.
    """
    model.expect_data()
    prepare(model, model.raw, model.build / "prepared")
