"""The model as MLflow loads it ("models from code"): no pickle, only this file, `components` and the weights."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.machinery import FileFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

ERROR = "error"
"""Column of an answer with the reason of a rejected row; only present if a row of the request was rejected."""
_CODE = Path(__file__).absolute().with_name("code")
"""The version's own source. While a version is logged, this file is elsewhere and has no source beside it."""
_HASHES = _CODE / "SHA256SUMS"


class ServedModel(PythonModel):
    """Serves a saved network of any task."""

    def load_context(self, context: PythonModelContext) -> None:
        """Rebuild the network from its files.

        Raises:
            MlflowException: this process has imported other code than the version's.
        """
        _expect_own_code()
        # Not before the check: code of another version may lack what these import.
        from components import requests, tasks
        from components.training import model_files

        folder = Path(context.artifacts["model"])
        described = model_files.load_saved(folder)
        task = tasks.load(described.task)
        self._predict = model_files.load_predict(task, folder)
        self.draw = task.draw
        """Draws an answer on its row, as a PNG; None if the task's answers have no picture."""
        served = task.served(described.manifest, task.params.model_validate(described.params))
        objects = {name: partial(_in_a_list, entries) for name, entries in served.objects.items()}
        self.formats: dict[str, Callable[[str, Any], Any]] = {**served.formats, **objects}
        """By name: turns the path of a file and its answer into entries of a format of the field."""
        self._readers = served.readers
        self._rows = partial(requests.unfolded, inputs=served.inputs)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return one row for each row of inputs: the answer, or only the reason in the column `error`.

        Raises:
            MlflowException: no row could be answered; the server returns its message.
        """
        # As in `load_context`: what is imported as `components` may be a program's own package.
        from components.contracts import Rejected
        from components.display import first
        from components.errors import PedigreeError

        # A table without columns also has rows, which to_dict("records") would omit.
        rows = model_input.to_dict("records") if len(model_input.columns) else [{} for _ in model_input.index]
        try:
            answers = self._predict(self._rows([{str(k): v for k, v in row.items()} for row in rows]), params or {})
        except PedigreeError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        reasons = [f"row {i}: {each.reason}" for i, each in enumerate(answers) if isinstance(each, Rejected)]
        if reasons and len(reasons) == len(answers):
            raise MlflowException.invalid_parameter_value("\n".join(first(reasons)))
        if not reasons:
            return pd.DataFrame(answers)
        columns = next(list(each) for each in answers if not isinstance(each, Rejected))
        nothing = dict.fromkeys(columns)
        table = [
            {**nothing, ERROR: each.reason} if isinstance(each, Rejected) else {**each, ERROR: None}
            for each in answers
        ]
        return pd.DataFrame(table, dtype=object)  # else pandas replaces missing values by NaN, which is not JSON

    def read(self, suffix: str, file: str) -> Iterator[dict[str, Any]]:
        """Yield the `id` of each row of a file and the `row`, or the `reason` why there is none.

        If the file cannot be read, or not from some row on, the last has a `problem` alone.
        """
        from components.contracts import Rejected
        from components.errors import PedigreeError

        try:
            for name, row in self._readers[suffix](Path(file)):
                if isinstance(row, Rejected):
                    yield {"id": name, "reason": row.reason}
                else:
                    yield {"id": name, "row": row}
        except PedigreeError as error:
            yield {"problem": str(error)}


def _in_a_list(entries: Callable[[str, Any], Any], file: str, answer: Any) -> list[Any]:
    return [entries(file, answer)]


class _Registered(SourceFileLoader):
    """Loads a module from its source, where Python would prefer bytecode, if it is what was registered."""

    def get_code(self, fullname: str) -> CodeType:
        """Compile a module's source.

        Raises:
            MlflowException: it was changed or added after registration.
        """
        path = self.get_filename(fullname)
        source = self.get_data(path)
        name = Path(path).relative_to(_CODE).as_posix()
        if f"{hashlib.sha256(source).hexdigest()}  {name}" not in _HASHES.read_text(encoding="utf-8").splitlines():
            raise MlflowException.invalid_parameter_value(
                f"{path} was changed or added after the version was registered: restore the version's files from a "
                "copy of the store, or train again"
            )
        return self.source_to_code(source, path)


def _finder(folder: str) -> FileFinder:
    if not _of_version(folder):
        raise ImportError(folder)  # as an entry of sys.path_hooks says that the folder is none of its own
    return FileFinder(folder, (_Registered, [".py"]))


def _of_version(folder: str) -> bool:
    return Path(folder).absolute().is_relative_to(_CODE)


def _import_what_was_registered() -> None:
    """Import modules of the version's source by `_Registered` only: no bytecode, no compiled extension."""
    sys.path_hooks.insert(0, _finder)
    for folder in filter(_of_version, list(sys.path_importer_cache)):
        del sys.path_importer_cache[folder]


def _expect_own_code() -> None:
    """Check that `components` in this process is the version's own source.

    MLflow puts that source first in sys.path, which has no effect if the process has imported `components` already.

    Raises:
        MlflowException: it is other source, which would answer instead.
    """
    import components

    own, loaded = _CODE / "components", _folder(components)
    if own.is_dir() and own.resolve() != loaded.resolve() and _source(own) != _source(loaded):
        raise MlflowException.invalid_parameter_value(
            f"this process has imported `components` from {loaded}, whose code differs from that of the version in "
            f"{_CODE.parent}: load each version in a process of its own, before `components` is imported, or use "
            "`pedigree predict` or `pedigree serve`"
        )


def _folder(module: ModuleType) -> Path:
    """Return the folder of a package, or the file of a plain module of that name."""
    return Path(next(iter(getattr(module, "__path__", [module.__file__]))))


def _source(package: Path) -> dict[str, bytes]:
    """Return the content of each module of a package."""
    return {path.relative_to(package).as_posix(): path.read_bytes() for path in package.rglob("*.py")}


if _CODE.is_dir():
    _import_what_was_registered()
mlflow.models.set_model(ServedModel())
