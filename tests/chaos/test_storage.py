"""The blow to storage that takes seconds; the others are dealt by `make chaos`."""

import os
import shutil

import pytest

from tests.chaos import storage
from tests.conftest import copy_project


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("unshare"), reason="it needs root, for a mount of its own")
def test_a_read_only_checkout_is_a_sentence_for_a_stage_and_for_a_flow(tmp_path):
    copy_project(tmp_path / "project")
    assert storage.read_only(tmp_path / "project", expected="") == []
