"""A registered version that answers files, in a process of its own and with the code it was registered with."""

import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.types.schema import ParamSpec

from components import processes
from components.adapters import mlflow_store, mlflow_versions
from components.adapters.mlflow_versions import Version
from components.errors import PedigreeError
from components.params import nearest

_SCRIPT = Path(__file__).with_name("answering.py")


@dataclass(frozen=True)
class Answering:
    """A version whose process runs."""

    name: str
    column: str
    """Of its inputs, the one that a file's content fills."""
    binary: bool
    """Whether that column takes bytes; it takes text otherwise."""
    params: Mapping[str, Any]
    """Of every request."""
    process: subprocess.Popen[str]

    def ask(self, contents: Sequence[bytes | str]) -> list[dict[str, Any]] | str:
        """Return an answer for each content, or the reason why at least one of them was refused.

        Raises:
            PedigreeError: the process is gone.
        """
        sent = [base64.b64encode(each).decode() if isinstance(each, bytes) else each for each in contents]
        request = {"column": self.column, "binary": self.binary, "contents": sent, "params": dict(self.params)}
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # then there is no answer either
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        return self.listen()

    def listen(self) -> list[dict[str, Any]] | str:
        """Return the next thing that the process has to say."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise PedigreeError(
                f"the process of {self.name} ended with exit code {self.process.wait()}: look whether memory ran "
                "out; `pedigree --debug predict …` shows what it said"
            )
        said: dict[str, Any] = json.loads(line)
        return str(said["refused"]) if "refused" in said else list(said["answers"])


@contextmanager
def answering(version: Version, params: Mapping[str, Any], debug: bool) -> Iterator[Answering]:
    """Load a version in a process that is gone when the block ends; with `debug` what it says can be seen.

    Raises:
        PedigreeError: its files are gone, it takes no files or not these params, or it cannot be loaded.
    """
    name = f"{version.name} version {version.version}"
    with tempfile.TemporaryDirectory(prefix="pedigree-") as scratch:
        folder = mlflow_versions.fetch(version, Path(scratch))
        try:
            described = Model.load(str(folder))
        except MlflowException:
            raise PedigreeError(f"{name} is no model that MLflow can load: register one with log_model") from None
        column, binary = _file_column(described, version)
        _check_params(described, params, name)
        with _process(folder, debug) as process:
            model = Answering(name, column, binary, params, process)
            if isinstance(problem := model.listen(), str):
                raise PedigreeError(
                    f"{name} cannot be loaded here ({problem}): install what its requirements.txt lists"
                )
            if isinstance(problem := model.ask([]), str):  # no rows: what is refused are the params
                raise PedigreeError(f"{name} refuses this: {problem}")
            yield model


@contextmanager
def _process(folder: Path, debug: bool) -> Iterator[subprocess.Popen[str]]:
    # -P keeps the script's folder, which is this checkout's, off the path of imports.
    with subprocess.Popen(
        [sys.executable, "-P", str(_SCRIPT), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if debug else subprocess.DEVNULL,
        env=os.environ | processes.keeping_memory() | {"MLFLOW_TRACKING_URI": mlflow_store.tracking_uri()},
        encoding="utf-8",
    ) as process:
        assert process.stdin is not None
        try:
            yield process
        finally:
            process.kill()
            with suppress(BrokenPipeError):  # something may have been left to write
                process.stdin.close()


def _file_column(described: Model, version: Version) -> tuple[str, bool]:
    column = (described.metadata or {}).get(mlflow_versions.FILE)
    inputs = described.get_input_schema()
    if column is None or inputs is None:
        raise PedigreeError(
            f"{version.name} version {version.version} does not say which of its columns a file fills: "
            f"ask it over `pedigree serve {version.name}/{version.version}`, or register it anew"
        )
    return column, str(inputs.input_dict()[column].type) == "DataType.binary"


def _check_params(described: Model, given: Mapping[str, Any], name: str) -> None:
    """Refuse what MLflow would pass over with a warning in a log: a param that the version does not know."""
    schema = described.get_params_schema()
    known = {spec.name: spec for spec in schema.params} if schema else {}
    for key, value in given.items():
        if key not in known:
            taken = f"it takes {', '.join(known)}" if known else "it takes none: leave it out"
            raise PedigreeError(f"--set {key}: {name} has no such param{nearest(key, known)}; {taken}")
        try:
            ParamSpec.validate_param_spec(value, known[key])
        except MlflowException:
            raise PedigreeError(
                f"--set {key}={value}: {name} takes a {known[key].dtype.name} there: give one"
            ) from None
