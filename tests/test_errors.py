"""What people meet when something is wrong that nobody has thought of."""

import errno
import os

import httpx
import pytest
from mlflow.exceptions import MlflowException, RestException
from sqlalchemy.exc import OperationalError

from components.errors import last_sentence


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EIO, os.strerror(errno.EIO), "build/x"), "build/x: Input/output error: check it"),
        (FileExistsError(errno.EEXIST, "File exists", "build"), "build: File exists: check it"),
        (OSError(errno.ENOSPC, "full", "build/x"), "build/x: the disk is full: free some space"),
        (
            RestException({"error_code": "PERMISSION_DENIED", "message": "no"}),
            "MLflow returned an error (PERM",
        ),
        (MlflowException("http://ann:word@host is away\nmore"), "(http://host is away): check it"),
        (MlflowException("url: /a?token=word, http://host/a?word"), "(url: /a http://host/a): check it"),
        (OperationalError("select", {}, Exception("locked")), "the database returned an error (("),
        (httpx.ConnectError("refused"), "Prefect's server returned an error (refused)"),
    ],
)
def test_what_a_tool_or_a_disk_rejects_is_a_sentence(error, said):
    reported = last_sentence(error)
    assert reported is not None
    assert said in reported
    assert "\n" not in reported


def test_a_mistake_of_our_own_is_no_sentence():
    assert last_sentence(KeyError("x")) is None
