"""A few of the sets of parameters, and that they are drawn from the whole of each schema."""

import pytest

from components import params, tasks
from tests.chaos import parameters
from tests.conftest import TASKS


def test_valid_parameters_train_and_the_others_are_refused_with_the_name_of_the_field():
    result = parameters.blow_parameters(24, seed=1)
    assert result.failures == []
    assert "took a step" in result.told


@pytest.mark.parametrize("name", TASKS)
def test_every_choice_of_every_field_is_drawn(name):
    model, drawn = tasks.load(name).params, []
    strategy = parameters.valid(model, parameters.usual(name))
    parameters.draw(strategy, lambda tree: drawn.append(params.flat(tree)), times=600, seed=0)
    for path, field in parameters.leaves(model).items():
        assert {tree.get(".".join(path)) for tree in drawn} >= set(parameters.choices(field)), path
