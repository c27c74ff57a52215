"""The rows of a request, however MLflow's server hands them on."""

import numpy as np
import pytest

from components.requests import unfolded

SOUND = {"audio": "binary", "samples": "doubles", "rate": "long"}


@pytest.mark.parametrize(
    ("row", "rows"),
    [
        ({"audio": ["a", "b"]}, [{"audio": "a"}, {"audio": "b"}]),
        ({"audio": np.array(["a", "b"])}, [{"audio": "a"}, {"audio": "b"}]),
        (
            {"samples": [[0.0, 0.1], [0.2]], "rate": [8000, 16_000]},
            [{"samples": [0.0, 0.1], "rate": 8000}, {"samples": [0.2], "rate": 16_000}],
        ),
    ],
)
def test_several_rows_that_arrive_as_one_row_of_lists_are_several_again(row, rows):
    assert unfolded([row], SOUND) == rows


@pytest.mark.parametrize(
    "rows",
    [
        [{"audio": "a"}],
        [{"samples": [0.0, 0.1], "rate": 8000}],
        [{"samples": [0.0, 0.1]}],
        [{"samples": []}],
        [{"audio": []}],
        [{"audio": np.array([])}],
        [{"samples": [], "rate": []}],
        [{"audio": ["a", "b"], "rate": [1]}],
        [{"audio": ["a"]}, {"audio": ["b"]}],
        [{}],
        [],
    ],
)
def test_rows_that_arrive_as_rows_stay_as_they_are(rows):
    assert unfolded(rows, SOUND) == rows
