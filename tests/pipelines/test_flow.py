"""What a failed flow logs: its error is one sentence, as everywhere else."""

import errno
import logging

import pytest

from components.errors import DEBUG, PedigreeError
from pipelines import (
    flow,  # noqa: F401 - importing it adds the filter
    output,
)

READ_ONLY = "the file system is read-only: run in a writable folder"


@pytest.mark.parametrize("name", output.RUNS)
@pytest.mark.parametrize(
    ("error", "debug", "text"),
    [
        (PedigreeError("a file is missing"), "", "a file is missing"),
        (OSError(errno.EROFS, "", "out"), "", f"out: {READ_ONLY}; earlier results are untouched."),
        (PedigreeError("a"), "1", None),
        (KeyError("a"), "", None),
    ],
)
def test_the_traceback_of_an_error_that_is_a_sentence_is_logged_only_for_debugging(
    monkeypatch, name, error, debug, text
):
    monkeypatch.setenv(DEBUG, debug)
    logger, records = logging.getLogger(name), []
    monkeypatch.setattr(logger, "handle", lambda record: records.append(record) if logger.filter(record) else None)
    logger.error("it failed", exc_info=error)
    (record,) = records
    assert (record.getMessage(), bool(record.exc_info)) == ((text, False) if text else ("it failed", True))
