"""`pedigree`: the command line. What a command needs is imported inside it, so that `--help` answers at once."""

import gc
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from components import models
from components.errors import DEBUG, PedigreeError, report
from components.runtime import addresses, interrupts, surroundings
from pipelines import output

VERSION = "Registered version: digits (its champion), digits@challenger (its newest version), or digits/3."

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def pedigree(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Also show the traceback of an error.")] = False,
) -> None:
    """From raw images, text or speech to a registered model with full lineage.

    Commands that take a version accept MODEL (its champion), MODEL@challenger (its newest version) or MODEL/3;
    `pedigree versions MODEL` lists them.
    """
    if debug:
        os.environ[DEBUG] = "1"
    context.obj = Path.cwd()  # the user's relative paths start here
    os.chdir(project_root())
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("pedigree").setLevel(logging.INFO)


def project_root() -> Path:
    """Return the nearest folder, from the current one upwards, that contains a params.yaml."""
    for folder in (here := Path.cwd(), *here.parents):
        if (folder / "params.yaml").is_file():
            return folder
    raise PedigreeError(
        f"{here} is not inside a Pedigree project: there is no params.yaml here or above; run in a project"
    )


@app.command()
def data(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...", help="Models whose data to restore (default: the embedded data sets)."
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Restore the data of every model in params.yaml.")
    ] = False,
    accept: Annotated[
        bool,
        typer.Option(
            "--accept", help="Pin the present files as new versions (default without MODEL: all data sets)."
        ),
    ] = False,
    public: Annotated[
        str | None,
        typer.Option("--fetch", metavar="SET", help="Replace the data set with a public one, such as cifar10."),
    ] = None,
    anew: Annotated[
        bool,
        typer.Option("--resplit", help="Draw a new test split from all samples, for all models of the data set."),
    ] = False,
) -> None:
    """Restore pinned data sets from DVC's cache or remote, or write them from the installed packages."""
    from components.project import data as project_data
    from components.project import resplit

    root, wanted = Path.cwd(), names or []
    if everything and wanted:
        raise typer.BadParameter("name models or use --all, not both")
    if anew:
        if len(wanted) != 1 or accept or public:
            raise typer.BadParameter("--resplit takes exactly one model, and no other option")
        for message in resplit.draw_anew(root, wanted[0]):
            output.echo(message)
    elif public is None:
        for message in project_data.bring_all(root, wanted, accept, everything):
            output.echo(message)
    elif len(wanted) != 1 or accept:
        raise typer.BadParameter("--fetch takes exactly one model and pins the data itself: leave out --accept")
    else:
        (data_set,) = project_data.of_models(models.chosen(models.read(root), wanted))
        output.echo(project_data.fetch(root, data_set, public, root / models.BUILD / models.DOWNLOADS))


@app.command()
def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the new model, in lower-case letters, digits and hyphens.")],
    like: Annotated[str, typer.Option(metavar="MODEL", help="Model whose task and parameters to reuse.")],
    folder: Annotated[Path, typer.Option("--data", metavar="FOLDER", help="Folder of raw files to copy.")],
    profile: Annotated[str | None, typer.Option(help="Override parameters with profiles/PROFILE.yaml.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Set a parameter: prepare.seconds=2. Can be repeated.")
    ] = None,
) -> None:
    """Add a model to params.yaml with another model's parameters; copy its data to data/NAME and pin them."""
    from pipelines import new as command

    command.add(Path.cwd(), name, like, context.obj / folder, profile, settings or [])


@app.command("list")
def list_models() -> None:
    """List the models in params.yaml with their data and champions."""
    from pipelines import listing as command

    command.show(Path.cwd())


@app.command("params")
def parameters(
    model: Annotated[str, typer.Argument(help="Model in params.yaml.")],
    prefix: Annotated[str, typer.Argument(help="Section or parameter, such as train.model (default: all).")] = "",
) -> None:
    """List a model's parameters, each with its value, its choices or bounds, and its meaning."""
    from pipelines import parameters as command

    command.show(Path.cwd(), model, prefix)


@app.command()
def run(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Models in params.yaml (default: all).")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Without MODEL: run only the models of this task.")] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            help="Override parameters with profiles/PROFILE.yaml; without MODEL, run all models of its task."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override one parameter, such as train.epochs=3."),
    ] = None,
) -> None:
    """Run flows from raw data to registered models in this process; no server is needed."""
    from pipelines import run as command

    if names and task:
        raise typer.BadParameter("name models or a task, not both")
    command.run(Path.cwd(), names or [], task, profile, settings or [])


@app.command()
def teach(
    context: typer.Context,
    version: Annotated[str, typer.Argument(metavar="MODEL", help=VERSION)],
    folder: Annotated[
        Path,
        typer.Argument(
            help="Images as FOLDER/support/CLASS/FILE, such as five of each, and others as FOLDER/test/CLASS/FILE."
        ),
    ],
) -> None:
    """Register a version that knows the classes of a folder, without training; it has to pass the gate."""
    from pipelines import teach as command

    command.teach(Path.cwd(), version, context.obj / folder)


@app.command("versions")
def list_versions(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="Registered model name.")],
) -> None:
    """List a model's versions with their scores, aliases, data and verdicts, the newest first."""
    from pipelines import versions as command

    command.list_versions(Path.cwd(), name)


@app.command()
def trace(
    version: Annotated[str | None, typer.Argument(help=VERSION)] = None,
    data: Annotated[
        str | None, typer.Option(help="First characters of a data hash: list the versions trained on it.")
    ] = None,
) -> None:
    """Show a version's lineage and which parts of it still exist, or list the versions trained on given data."""
    if (version is None) == (data is None):
        raise typer.BadParameter("name a version, or a hash with --data")
    from pipelines import versions as command

    command.trace(Path.cwd(), version, data)


@app.command()
def verify(
    version: Annotated[str | None, typer.Argument(help=VERSION)] = None,
    everything: Annotated[bool, typer.Option("--all", help="Verify all versions of all models.")] = False,
) -> None:
    """Recompute every hash in a version's lineage; exits with 1 if something contradicts it."""
    if (version is None) != everything:
        raise typer.BadParameter("name a version, or --all")
    from pipelines import versions as command

    if not command.verify(Path.cwd(), version):
        raise typer.Exit(1)


@app.command()
def reproduce(
    version: Annotated[str, typer.Argument(help=VERSION)],
    here: Annotated[
        bool, typer.Option("--here", help="Use the code of this checkout instead of the version's own.")
    ] = False,
) -> None:
    """Train a version again from its commit, data and parameters; exits with 1 if the result differs."""
    from pipelines import versions as command

    if not command.reproduce(Path.cwd(), version, here):
        raise typer.Exit(1)


@app.command()
def diff(
    old: Annotated[str, typer.Argument(help=VERSION)],
    new: Annotated[str, typer.Argument(help="Registered version to compare with it.")],
) -> None:
    """Compare two versions: data, code, parameters, metrics, and the samples on which they disagree."""
    from pipelines import versions as command

    command.diff(Path.cwd(), old, new)


@app.command()
def gate(
    model: Annotated[str, typer.Argument(help="Model in params.yaml.")],
) -> None:
    """Report which difference from a model's champion its test split can detect."""
    from pipelines import versions as command

    command.power(Path.cwd(), model)


@app.command()
def promote(
    model: Annotated[
        str, typer.Argument(help="Registered version, digits/3 or digits@challenger, or the model's name alone.")
    ],
    why: Annotated[str, typer.Option(help="Reason, recorded with the promotion.")],
    number: Annotated[
        int | None, typer.Argument(metavar="[VERSION]", help="Version number, after the model's name alone.")
    ] = None,
) -> None:
    """Make a version the champion, regardless of the gate's verdict."""
    from pipelines import versions as command

    if number is None and not {"/", "@"} & {*model}:
        raise typer.BadParameter(f"name the version, too, such as {model}/3")
    command.promote(Path.cwd(), model if number is None else f"{model}/{number}", why)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="Registered model name.")],
    why: Annotated[str, typer.Option(help="Reason, recorded with the rollback.")],
) -> None:
    """Make the previous champion the champion again."""
    from pipelines import versions as command

    command.rollback(Path.cwd(), name, why)


@app.command()
def predict(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help=VERSION)],
    files: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders (all files in them), or - for standard input. Of a model of texts, also tables: "
            ".csv, .tsv or .jsonl. Of a model that takes no files, tables of rows: .jsonl or .csv."
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set one request parameter, such as temperature=0.8."),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="table, json, or a format of the model's own, such as coco of a detector (default: table in a "
            "terminal, otherwise JSON lines).",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write images, sound and other files of the answers here."),
    ] = None,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also draw each answer on its file, as FOLDER/NAME.png."),
    ] = None,
) -> None:
    """Print a registered model's predictions for files; exits with 1 if any file is rejected."""
    from components.adapters.version_process import FormatError
    from pipelines import predict as command

    if files.count("-") > 1:
        raise typer.BadParameter("standard input can be read only once: give - once")
    try:
        params = command.given(settings or [])
    except PedigreeError as error:
        raise typer.BadParameter(str(error)) from None
    form = form or ("table" if sys.stdout.isatty() else "json")
    output = command.Output(form, out, draw)
    try:
        good = command.predict(Path.cwd(), context.obj, model, files, params, output, bool(os.environ.get(DEBUG)))
    except FormatError as error:
        raise typer.BadParameter(str(error), param_hint="--format") from None
    if not good:
        raise typer.Exit(1)


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help=VERSION)],
    port: Annotated[
        int, typer.Option(envvar=addresses.SERVE.variable, min=1, max=65535, help="Port on 127.0.0.1.")
    ] = addresses.SERVE.default,
) -> None:
    """Serve a registered model over HTTP with MLflow's scoring server; Ctrl-C stops it."""
    from pipelines import serve as command

    command.serve(Path.cwd(), model, port)


@app.command()
def ui(
    port: Annotated[
        int, typer.Option(envvar=addresses.MLFLOW.variable, min=1, max=65535, help="Port on 127.0.0.1.")
    ] = addresses.MLFLOW.default,
) -> None:
    """Serve the MLflow UI on 127.0.0.1; Ctrl-C stops it."""
    from pipelines import ui as command

    command.ui(Path.cwd(), port)


@app.command()
def up(
    prefect_port: Annotated[
        int, typer.Option(envvar=addresses.PREFECT.variable, min=1, max=65535, help="Port of the Prefect server.")
    ] = addresses.PREFECT.default,
    mlflow_port: Annotated[
        int, typer.Option(envvar=addresses.MLFLOW.variable, min=1, max=65535, help="Port of the MLflow UI.")
    ] = addresses.MLFLOW.default,
) -> None:
    """Start the Prefect server, the deployments and the MLflow UI on 127.0.0.1; Ctrl-C stops all of them."""
    from pipelines import up as command

    if prefect_port == mlflow_port:
        raise typer.BadParameter(f"--prefect-port and --mlflow-port are both {mlflow_port}: choose two ports")
    command.up(Path.cwd(), prefect_port, mlflow_port)


@app.command()
def clean(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    interrupted: Annotated[
        bool, typer.Option("--interrupted", help="Also remove interrupted work that could be resumed.")
    ] = False,
) -> None:
    """Remove finished runs, reproductions, orphaned trainings and stale worktrees from build/, but no version."""
    from pipelines import clean as command

    command.clean(Path.cwd(), dry_run, interrupted)


@app.command()
def doctor(
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Write stage dependencies into dvc.yaml and deployments into prefect.yaml."),
    ] = False,
) -> None:
    """Check the project for problems; exits with 1 if any are found."""
    from pipelines import doctor as command

    if not command.doctor(Path.cwd(), fix):
        raise typer.Exit(1)


def main() -> None:
    """Run the command; print an error that the user can solve as one sentence and exit with 1."""
    surroundings.settle()
    output.keep_writable()
    try:
        addresses.expect_valid_environment()
        with interrupts.interruptible():
            app()
    except Exception as error:
        output.echo(report(error, bool(os.environ.get(DEBUG))), err=True)
        sys.exit(1)
    finally:
        gc.freeze()  # else the exiting interpreter traverses all objects of torch and the rest (docs/profile.md)
