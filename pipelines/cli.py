"""`pedigree`: the command line. What a command needs is imported inside it, so that `--help` answers at once."""

import gc
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from components import interrupts
from components.errors import PedigreeError, last_sentence

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

DEBUG = "PEDIGREE_DEBUG"


@app.callback()
def pedigree(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, too.")] = False,
) -> None:
    """From raw images, text or speech to a registered model whose whole ancestry is known."""
    if debug:
        os.environ[DEBUG] = "1"
    context.obj = Path.cwd()  # from where a person's paths are meant
    os.chdir(project_root())
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("pedigree").setLevel(logging.INFO)


def project_root() -> Path:
    """Return the nearest folder, from here upwards, that holds a params.yaml."""
    for folder in (here := Path.cwd(), *here.parents):
        if (folder / "params.yaml").is_file():
            return folder
    raise PedigreeError(
        f"{here} is not inside a Pedigree project: there is no params.yaml here or above; go into one"
    )


@app.command()
def data(
    name: Annotated[str | None, typer.Argument(help="A public data set to fetch, such as cifar10.")] = None,
    accept: Annotated[bool, typer.Option("--accept", help="Pin what is in data/ now as a new version.")] = False,
) -> None:
    """Bring the data that data.dvc pins: from DVC's remote, or rebuilt from the installed packages."""
    from components import tasks
    from components.stages import data as stage

    root = Path.cwd()
    known = {task: tasks.load(task) for task in tasks.names(root)}
    if name is None:
        typer.echo(stage.bring(root, known, accept))
    elif accept:
        raise typer.BadParameter("a public data set is pinned as it comes; leave --accept out")
    else:
        typer.echo(stage.fetch(root, known, name, root / "build" / "downloads"))


@app.command()
def run(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK]...", help="Tasks; all of them if none.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Lay profiles/PROFILE.yaml over params.yaml.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one parameter: train.epochs=3."),
    ] = None,
) -> None:
    """Run the flows from raw data to registered models, in this process, with no server needed."""
    from pipelines import run as door

    door.run(Path.cwd(), names or [], profile, settings or [])


@app.command()
def trace(
    version: Annotated[
        str | None, typer.Argument(help="A registered version: models:/vision@champion, or vision/3.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="The beginning of a data hash: name all versions that it made.")
    ] = None,
) -> None:
    """Show where a version came from, and what of that is still here; or what a data version has made."""
    if (version is None) == (data is None):
        raise typer.BadParameter("name a version, or a hash with --data")
    from pipelines import registry as door

    door.trace(Path.cwd(), version, data)


@app.command()
def reproduce(
    version: Annotated[str, typer.Argument(help="A registered version: models:/vision@champion, or vision/3.")],
    here: Annotated[
        bool, typer.Option("--here", help="With the code of this checkout instead of the version's own.")
    ] = False,
) -> None:
    """Train a version again from its own commit, data and parameters; exit code 1 if its weights differ."""
    from pipelines import registry as door

    if not door.reproduce(Path.cwd(), version, here):
        raise typer.Exit(1)


@app.command()
def diff(
    old: Annotated[str, typer.Argument(help="A registered version: models:/vision/2, or vision/2.")],
    new: Annotated[str, typer.Argument(help="The one to compare with it.")],
) -> None:
    """Show what is not the same in two versions: data, code, params, metrics, and the samples they disagree on."""
    from pipelines import registry as door

    door.diff(Path.cwd(), old, new)


@app.command()
def promote(
    name: Annotated[str, typer.Argument(help="Of the registered model.")],
    version: Annotated[int, typer.Argument(help="Its number.")],
    why: Annotated[str, typer.Option(help="The reason, which is kept.")],
) -> None:
    """Make a version the champion, whatever the gate said."""
    from pipelines import registry as door

    door.promote(Path.cwd(), name, version, why)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="Of the registered model.")],
    why: Annotated[str, typer.Option(help="The reason, which is kept.")],
) -> None:
    """Make the version that was champion before the present one the champion again."""
    from pipelines import registry as door

    door.rollback(Path.cwd(), name, why)


@app.command()
def predict(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="A registered version: vision (its champion), models:/vision@champion, vision/3.")
    ],
    files: Annotated[
        list[str], typer.Argument(help="Files; folders, for all files in them; - for standard input.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set one param of the request: temperature=0.8."),
    ] = None,
    form: Annotated[
        Literal["json", "table"] | None,
        typer.Option("--format", help="JSON lines, or a table; a table if none is given, in a terminal."),
    ] = None,
) -> None:
    """Print what a registered model answers to files; exit code 1 if it could not answer one of them."""
    from pipelines import predict as door

    if files.count("-") > 1:
        raise typer.BadParameter("standard input can be read once; name - once")
    try:
        params = door.given(settings or [])
    except PedigreeError as error:
        raise typer.BadParameter(str(error)) from None
    form = form or ("table" if sys.stdout.isatty() else "json")
    good = door.predict(Path.cwd(), context.obj, model, files, params, form, bool(os.environ.get(DEBUG)))
    if not good:
        raise typer.Exit(1)


@app.command()
def serve(
    model: Annotated[
        str, typer.Argument(help="A registered version: vision (its champion), models:/vision@champion, vision/3.")
    ],
    port: Annotated[int, typer.Option(min=1, max=65535, help="On 127.0.0.1.")] = 5001,
) -> None:
    """Answer requests to a registered model over HTTP, with MLflow's scoring server; Ctrl-C takes it down."""
    from pipelines import scoring as door

    door.serve(Path.cwd(), model, port)


@app.command()
def up() -> None:
    """Bring up Prefect's server, the deployments and MLflow's pages on 127.0.0.1; Ctrl-C takes all of it down."""
    from pipelines import up as door

    door.up(Path.cwd())


@app.command()
def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Write into dvc.yaml what its stages import.")] = False,
) -> None:
    """Say what is not as it should be in this project; exit code 1 if there is something."""
    from pipelines import doctor as door

    if not door.doctor(Path.cwd(), fix):
        raise typer.Exit(1)


def main() -> None:
    """Run the command; a problem that a sentence explains ends with that sentence and exit code 1."""
    try:
        with interrupts.interruptible():
            app()
    except Exception as error:
        text = last_sentence(error)
        if text is None or os.environ.get(DEBUG):
            raise
        typer.echo(f"error: {text}", err=True)
        sys.exit(1)
    finally:
        gc.freeze()  # Python would look through all that torch and the others have made: docs/profile.md
