"""A command that asks `pedigree serve` for a prediction over HTTP, to be pasted into a shell."""

import csv
import json
import shlex
from pathlib import Path

from mlflow.models import Model

from components.adapters.mlflow_versions import FILE, FILE_KIND, REQUEST

PLACEHOLDER = "FILE"
"""Stands for a file that the user names."""
LARGEST = 10_000
"""Characters of a request that is written into the command; Linux takes 128 KiB in an argument."""


def command(folder: Path, url: str, raw: Path) -> str:
    """Return a command of one or two lines for a version's own kind of input.

    A file reaches the server through a pipe, as no argument of a program could hold a photograph. The line breaks
    that `base64` and `echo` write between the quotes are removed by curl, as by `--data` from any file
    (https://curl.se/docs/manpage.html#-d).

    Args:
        folder: The version's files.
        url: Address of the server.
        raw: The data set of the version, from which a test sample is sent if it is there.
    """
    curl = f"curl -H 'content-type: application/json' {url}/invocations --data"
    metadata = Model.load(str(folder)).metadata or {}
    if metadata.get(FILE_KIND) == "binary":
        head = shlex.quote(f'{{"dataframe_records": [{{{json.dumps(metadata[FILE])}: "')
        return f"(echo {head}; base64 < {_sample(folder, raw)}; echo '\"}}]}}') |\n    {curl} @-"
    example = folder / REQUEST
    body = json.dumps(json.loads(example.read_bytes())) if example.exists() else '{"dataframe_records": [{}]}'
    return f"{curl} {shlex.quote(body if len(body) <= LARGEST else f'@{example}')}"


def _sample(folder: Path, raw: Path) -> str:
    """Return a test sample's file, quoted for a shell, or a placeholder if none of its names is a file there."""
    outcomes = folder / "artifacts" / "outcomes.csv"
    if outcomes.exists():
        with outcomes.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if (path := raw / row.get("sample", "")).is_file():
                    return shlex.quote(str(path.absolute()))
    return PLACEHOLDER
