"""The storage faults that take less than a minute; `make chaos` injects the others."""

import os
import shutil

import pytest

from tests.chaos import storage
from tests.conftest import copy_project

MOUNTS = pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("unshare"), reason="it needs root, for a mount of its own"
)


@MOUNTS
@pytest.mark.long
@pytest.mark.parametrize("fault", [storage.read_only, storage.full_home])
def test_a_checkout_in_which_nothing_can_be_written_is_a_sentence_at_once(tmp_path, fault):
    copy_project(tmp_path / "project")
    assert fault(tmp_path / "project", expected="") == []
