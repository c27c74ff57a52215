"""python -P answering.py FOLDER: answer with the registered model in a folder, as its own code does.

A version carries the source of `components` that it was registered with, and MLflow puts that first on the path
of imports; so nothing here may import `components`, or this checkout's code would answer in its stead.

A request is a line of JSON on standard input, the answer a line on standard output: `{"answers": [...]}`, or
`{"refused": reason}` for all of its rows. The first line of all says whether the model was loaded.
"""

import base64
import json
import os
import sys
from typing import Any, TextIO

import mlflow
import pandas as pd
from mlflow.pyfunc import PyFuncModel


def main(folder: str) -> None:
    """Answer until standard input ends."""
    # What libraries print goes to standard error: only answers stand on the standard output that we were given.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        model = mlflow.pyfunc.load_model(folder)
    except Exception as error:  # code of any age may fail in any way
        _tell(out, {"refused": _reason(error)})
        raise
    _tell(out, {"answers": []})
    for line in sys.stdin:
        _tell(out, _answer(model, json.loads(line)))


def _answer(model: PyFuncModel, request: dict[str, Any]) -> dict[str, Any]:
    contents = [base64.b64decode(each) if request["binary"] else each for each in request["contents"]]
    rows = pd.DataFrame({request["column"]: pd.Series(contents, dtype=object)})
    try:
        answers = pd.DataFrame(model.predict(rows, params=request["params"]))
    except Exception as error:  # as above; the caller then asks for fewer rows
        return {"refused": _reason(error)}
    return {"answers": answers.to_dict("records")}


def _reason(error: Exception) -> str:
    """Return the sentence of an MLflow error, which is the model's own, and of others their kind too."""
    said = getattr(error, "message", None)
    return str(said) if said else f"{type(error).__name__}: {error}"


def _tell(out: TextIO, line: dict[str, Any]) -> None:
    # numpy's numbers and arrays are what a model may give beside Python's own.
    out.write(json.dumps(line, default=lambda value: value.tolist()) + "\n")
    out.flush()


if __name__ == "__main__":
    main(sys.argv[1])
