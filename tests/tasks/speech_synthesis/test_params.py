"""Parameters with which no sound could be made are rejected in a sentence."""

import pytest

from components.errors import PedigreeError
from tests.tasks.speech_synthesis.values import values


def test_an_even_kernel_is_rejected_with_the_next_odd_one():
    with pytest.raises(PedigreeError, match="kernel 4 is even: make it odd, such as 5"):
        values(train={"model": {"kernel": 4}})


def test_frames_that_hardly_overlap_are_rejected():
    with pytest.raises(
        PedigreeError, match=r"hop 0\.03 is over half of features\.window 0\.05, so sound cannot be"
    ):
        values(prepare={"features": {"window": 0.05, "hop": 0.03}})
