"""`pedigree clean`: removes what nothing needs from build/, and reports each item and its size."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.filesize import decimal

from components import models, tasks
from components.adapters import mlflow_store
from components.jobs import job
from components.project import clean as project_clean
from components.project.clean import Removable
from components.runtime import presence
from components.stages import summary
from components.trust import imports
from pipelines import output, runs
from pipelines.crashed import YOUNG

log = logging.getLogger("pedigree.clean")


def clean(root: Path, dry_run: bool, interrupted: bool) -> None:
    """Remove finished flow runs, orphaned trainings, reproductions, and leftovers of killed processes.

    Args:
        root: The project's folder.
        dry_run: Only list what would be removed.
        interrupted: Also remove interrupted work that could be resumed.

    Raises:
        PedigreeError: MLflow does not answer, so what versions need is unknown; or a file is not valid YAML.
    """
    if not (root / "build").is_dir():
        output.echo("Nothing to remove: there is no build/ here.")
        return
    mlflow_store.connect(root)
    if not dry_run:
        presence.end_orphans(root)  # orphans would go on writing
        for sentence in job.end_orphans(root / "build"):
            log.info(sentence)
    named = project_clean.named(root, _sources(root))
    items = [
        each for each in [*flow_runs(root), *project_clean.found(root)] if not project_clean.needs(each, named)
    ]
    chosen = project_clean.without_inner([each for each in items if interrupted or not each.resumable])
    removed = []
    for item, size in zip(chosen, project_clean.freed(chosen), strict=True):
        path = f"{item.path.relative_to(root)}{_with_links(root, item)}"
        if dry_run or project_clean.remove(item, root):
            removed.append(size)
            output.echo(f"{item.what:<20} {decimal(size):>10}  {path}")
        else:
            output.echo(f"{item.what:<20} {'kept':>10}  {path}, in use by a process")
    count = f"{len(removed)} {'item' if len(removed) == 1 else 'items'}"
    output.echo(f"{'Would remove' if dry_run else 'Removed'} {count}, {decimal(sum(removed))}.")
    if resumable := [] if interrupted else project_clean.without_inner([each for each in items if each.resumable]):
        output.echo(
            f"Kept {len(resumable)} interrupted {'item' if len(resumable) == 1 else 'items'} "
            f"({decimal(sum(project_clean.freed(resumable)))}) that the same command would resume: --interrupted "
            "removes them, too."
        )


def _with_links(root: Path, item: Removable) -> str:
    links = [str(part.relative_to(root)) for part in item.parts if part.is_symlink()]
    return f" (and {', '.join(links)}, which links to it)" if links else ""


def flow_runs(root: Path) -> Iterator[Removable]:
    """Yield the folders of flow runs that no process uses."""
    folders = [folder for folder in sorted((root / runs.RUNS).glob("[!.]*")) if folder.is_dir()]
    code = _training_code(root) if folders else {}
    links = [link for link in (root / models.BUILD).glob(f"*/{summary.LATEST}") if link.is_symlink()]
    for folder in folders:
        with runs.if_free(root, folder) as (free, record):
            if record is None or _is_settled(folder, record):
                parts = [folder, *folder.parent.glob(f".{folder.name}.lock*")]
            else:
                parts = sorted(each for each in folder.iterdir() if each.name != runs.RECORD)
        parts += [link for link in links if link.resolve().is_relative_to(folder.resolve())]
        if free and parts:
            done = record is not None and record.done
            resumable = record is not None and not done and record.training_code == code.get(record.model)
            what = "finished run" if done else "interrupted run" if resumable else "orphaned run"
            yield Removable(what, folder, parts, resumable, partial(_if_free, root, folder))


def _sources(root: Path) -> list[str]:
    """Return what the parameters of unfinished flow runs name, such as `--set train.init.from=…`."""
    return [source for record in runs.records(root) if not record.done for source in record.sources]


@contextmanager
def _if_free(root: Path, folder: Path) -> Iterator[bool]:
    with runs.if_free(root, folder) as (free, _):
        yield free


def _training_code(root: Path) -> dict[str, str]:
    """Return the hash of the training code of each model in params.yaml."""
    return {
        each.name: imports.of_training(tasks.load(each.task)).sha256 for each in models.listed(models.read(root))
    }


def _is_settled(folder: Path, record: runs.Record) -> bool:
    """Return whether nothing needs the record: Prefect knows how the flow ended, and has for a while."""
    if record.earlier or not (record.done or record.settled):
        return False
    written = datetime.fromtimestamp((folder / runs.RECORD).stat().st_mtime, UTC)
    return (record.done and folder.name == record.flow_run) or datetime.now(UTC) - written > YOUNG
