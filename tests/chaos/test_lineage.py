"""A few random sequences: what a version says of its data is true."""

import pytest

from tests.chaos import lineage


@pytest.mark.long
def test_no_version_names_data_that_did_not_make_it_and_verify_finds_what_contradicts_it():
    result = lineage.inject_lineage(1, seed=1)
    assert result.failures == []
    assert "0 versions" not in result.summary
