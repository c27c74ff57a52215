"""python -P answering.py FOLDER: answer requests with the registered model in a folder and its own code.

A version contains the source of `components` at its registration, and MLflow puts that first in sys.path. So
nothing here may import `components`, as this checkout's code would then answer instead.

A request is a line of JSON on standard input, the answer a line on standard output: `{"answers": [...]}`, or
`{"rejected": reason}` if all rows are rejected. The first line of output says whether the model was loaded. With
`draw` in a request, each answer has a picture in the column `drawn`. A request with a `format` has an answer in
place of rows, and gets its entries in that format. A request to `read` a file with a `suffix` opens it; each
request for the `next` rows then gets so many of them, or none at its end.
"""

import base64
import json
import os
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any, TextIO

import mlflow
import pandas as pd
from mlflow.pyfunc import PyFuncModel


def main(folder: str) -> None:
    """Answer requests until standard input ends."""
    # Anything that libraries print goes to standard error, so that standard output contains only answers.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        model = mlflow.pyfunc.load_model(folder)
    except Exception as error:  # code of any version may fail in any way
        _write(out, {"rejected": _reason(error)})
        raise
    _write(out, {"answers": []})
    rows: Iterator[Any] = iter(())  # of the file that is being read
    for line in sys.stdin:
        request = json.loads(line)
        if "read" in request:
            rows = model.unwrap_python_model().read(request["suffix"], request["read"])
            _write(out, {"answers": []})
        elif "next" in request:
            _write(out, _next(rows, request["next"]))
        else:
            _write(out, _formatted(model, request) if "format" in request else _answer(model, request))


def _answer(model: PyFuncModel, request: dict[str, Any]) -> dict[str, Any]:
    rows = request["rows"]
    columns = {name: [row[name] for row in rows] for name in request["columns"]}
    columns |= {name: [base64.b64decode(each) for each in columns[name]] for name in request["binary"]}
    # Without a type, pandas would make strings of another kind than those for which MLflow checks.
    series = {name: pd.Series(values, dtype=object) for name, values in columns.items()}
    table = pd.DataFrame(series, index=range(len(rows)))  # of a model without columns, too
    draw = getattr(model.unwrap_python_model(), "draw", None) if request["draw"] else None
    if request["draw"] and draw is None:
        return {"rejected": "it draws no pictures of its answers"}
    try:
        answers = pd.DataFrame(model.predict(table, params=request["params"]))
    except Exception as error:  # as above
        if not rows:
            return {"rejected": _reason(error)}
        if len(rows) == 1:
            return {"answers": [{"error": _reason(error)}]}
        # Older versions reject an entire request because of one row.
        alone = [_answer(model, {**request, "rows": [row]}) for row in rows]
        return {"answers": [row for each in alone for row in each["answers"]]}
    found = answers.to_dict("records")
    if draw is not None:
        for row, answer in zip(table.to_dict("records"), found, strict=True):
            if not answer.get("error"):
                answer["drawn"] = draw(row, answer)
    return {"answers": found}


def _next(rows: Iterator[Any], count: int) -> dict[str, Any]:
    try:
        return {"answers": list(islice(rows, count))}
    except Exception as error:  # as above
        return {"rejected": _reason(error)}


def _formatted(model: PyFuncModel, request: dict[str, Any]) -> dict[str, Any]:
    entries = model.unwrap_python_model().formats[request["format"]]
    return {"answers": list(entries(request["file"], request["answer"]))}


def _reason(error: Exception) -> str:
    """Return the message of an MLflow error, which is the model's own; of other errors, type and message."""
    message = getattr(error, "message", None)
    return str(message) if message else f"{type(error).__name__}: {error}"


def _write(out: TextIO, line: dict[str, Any]) -> None:
    out.write(json.dumps(line, default=_jsonable) + "\n")
    out.flush()


def _jsonable(value: Any) -> Any:
    """Convert bytes to base64, and NumPy's numbers and arrays to Python's."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value.tolist()


if __name__ == "__main__":
    main(sys.argv[1])
