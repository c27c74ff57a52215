"""What a failed flow logs: its error is one sentence, as everywhere else."""

import logging

import pytest

from components.errors import DEBUG, PedigreeError
from pipelines import (
    flow,  # noqa: F401 - importing it adds the filter
    output,
)


@pytest.mark.parametrize("name", output.RUNS)
@pytest.mark.parametrize(
    ("error", "debug", "shown"),
    [(PedigreeError("a file is missing"), "", False), (PedigreeError("a"), "1", True), (KeyError("a"), "", True)],
)
def test_the_traceback_of_an_error_that_is_a_sentence_is_logged_only_for_debugging(
    monkeypatch, name, error, debug, shown
):
    monkeypatch.setenv(DEBUG, debug)
    logger, records = logging.getLogger(name), []
    monkeypatch.setattr(logger, "handle", lambda record: records.append(record) if logger.filter(record) else None)
    logger.error("it failed", exc_info=error)
    logger.error("Finished in state Failed('a file is missing')")
    assert [bool(record.exc_info) for record in records] == [True, False][not shown :]
