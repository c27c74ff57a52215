"""A few sets of parameters, and a check that they cover every schema."""

import pytest

from components import params, tasks
from tests.chaos import parameters
from tests.conftest import MODEL_OF

FIRST, *OTHERS = MODEL_OF
"""Hundreds of draws take seconds: those of the other tasks wait for `make test-long`."""


@pytest.mark.long
def test_valid_parameters_train_and_the_others_are_rejected_with_the_name_of_the_field():
    result = parameters.inject_parameters(12, seed=1)
    assert result.failures == []
    assert "took a step" in result.summary


@pytest.mark.parametrize("name", [FIRST, *(pytest.param(name, marks=pytest.mark.long) for name in OTHERS)])
def test_every_choice_of_every_field_is_drawn(name):
    model, drawn = tasks.load(name).params, []
    strategy = parameters.valid(model, parameters.usual(name))
    parameters.draw(strategy, lambda tree: drawn.append(params.flat(tree)), times=600, seed=0)
    for path, field in parameters.leaves(model).items():
        found = [tree.get(".".join(path)) for tree in drawn]
        assert all(choice in found for choice in parameters.choices(field)), path
