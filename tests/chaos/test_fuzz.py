"""A few of the corrupt files, and small files that claim to be huge."""

import pytest

from tests.chaos import fuzz
from tests.chaos.watched import watched

SMALL = 48 * 2**20
"""Bytes of memory: a fifth of what the smallest of the bombs would take."""


@pytest.mark.long
def test_corrupt_raw_files_are_read_or_rejected_without_a_crash_a_hang_or_much_memory():
    assert fuzz.inject_files(200, seed=1).failures == []


def test_the_files_that_are_mutated_are_read_as_they_are():
    for kind in ("image", "audio", "text"):
        for content in fuzz.genuine(kind):
            assert fuzz.read_content(kind, content) == "read"
    assert fuzz.read_content("yaml", fuzz.genuine("yaml")[0]) == "read"


def test_parameters_that_are_a_bomb_are_rejected_with_a_sentence():
    for content in fuzz.genuine("yaml")[-4:]:
        assert "params.yaml" in fuzz.read_content("yaml", content)


@pytest.mark.long
@pytest.mark.parametrize("reader", [fuzz.prepare_bomb, fuzz.ask_with_bomb])
def test_a_bomb_is_rejected_before_it_is_decoded(reader):
    twice = [*fuzz.bombs(), *fuzz.bombs()]
    for each in list(watched(reader, twice, processes=1, limit=60))[len(fuzz.bombs()) :]:  # the first calls import
        assert not each.problem
        assert each.returned != "read", each
        assert each.grown < SMALL, each
