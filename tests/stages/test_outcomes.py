"""outcomes.csv keeps what was found on each test sample, however many rows that is."""

import numpy as np
import pytest

from components.contracts import Outcomes
from components.errors import PedigreeError
from components.stages.evaluate import _write_outcomes, read_outcomes
from components.training import model_files

ROWS = Outcomes(
    ["a.png", "b, c.png", "none.png", "d.png"],
    {"probability": np.array([0.9, 0.1, 1 / 3, 0.5]), "box": np.arange(16.0).reshape(4, 4)},
    np.array([0, 3, 1, 3]),
    ["ann", "bob", "bob", "ann"],
    {"class": ["cat", "dog", "cat", "cat"], "site": ["north", "north", "south", "north"]},
)


def stored(folder, outcomes):
    _write_outcomes(folder / "outcomes.csv", outcomes)
    return read_outcomes(folder / "outcomes.csv")


def test_samples_keep_their_order_and_their_rows_and_one_without_rows_is_still_there(tmp_path):
    """Two versions have rows on other samples, and are compared sample by sample."""
    found = stored(tmp_path, ROWS)
    assert list(found.samples) == ROWS.samples
    assert found.sample.tolist() == [0, 1, 3, 3]
    order = [0, 2, 1, 3]
    for name, column in ROWS.columns.items():
        assert np.array_equal(found.columns[name], column[order])
    assert list(found.clusters) == ROWS.clusters
    assert found.groups == {kind: [names[row] for row in order] for kind, names in ROWS.groups.items()}


def test_what_was_read_is_written_the_same_again(tmp_path):
    found = stored(tmp_path, ROWS)
    first = (tmp_path / "outcomes.csv").read_bytes()
    stored(tmp_path, found)
    assert (tmp_path / "outcomes.csv").read_bytes() == first


def test_names_that_a_spreadsheet_takes_for_formulas_are_written_and_read_as_they_are(tmp_path):
    names = ["=1+1", "+1", "-1", "@a", "\t=1", 'a,"b', "\x1b[2J"]
    found = stored(tmp_path, Outcomes(names, {"correct": np.ones(7)}, clusters=names, groups={"class": names}))
    assert (list(found.samples), list(found.clusters), list(found.groups["class"])) == (names, names, names)


def test_a_row_a_sample_is_the_usual(tmp_path):
    found = stored(tmp_path, Outcomes(["a", "b"], {"correct": np.array([1.0, 0.0])}))
    assert found.sample is None
    assert (list(found.samples), found.columns["correct"].tolist()) == (["a", "b"], [1, 0])
    assert (tuple(found.clusters), found.groups) == ((), {})


def test_a_test_split_on_which_nothing_was_found_has_its_samples(tmp_path):
    nothing = {"probability": np.zeros(0), "box": np.zeros((0, 4))}
    found = stored(tmp_path, Outcomes(["a", "b"], nothing, np.zeros(0, np.int64)))
    assert list(found.samples) == ["a", "b"]
    assert found.row_samples.tolist() == []
    assert {name: column.shape for name, column in found.columns.items()} == {"probability": (0,), "box": (0, 4)}


@pytest.mark.parametrize("text", ["", "sample,cluster,correct\na,,yes\n", "sample,cluster,correct\na,\n", "a\nb\n"])
def test_a_damaged_file_is_one_sentence(tmp_path, text):
    (tmp_path / "outcomes.csv").write_text(text)
    with pytest.raises(PedigreeError, match=r"outcomes\.csv is missing or damaged: run the evaluate stage again"):
        read_outcomes(tmp_path / "outcomes.csv")


def test_outcomes_of_versions_from_before_they_were_a_table_are_read(tmp_path):
    (tmp_path / "outcomes.csv").write_text("sample,class,source,sum,count\na,cat,ann,1.0,1\nb,dog,bob,0.0,2\n")
    found = read_outcomes(tmp_path / "outcomes.csv")
    assert list(found.samples) == ["a", "b"]
    assert {name: column.tolist() for name, column in found.columns.items()} == {"sum": [1, 0], "count": [1, 2]}
    assert list(found.clusters) == ["ann", "bob"]
    assert {kind: list(names) for kind, names in found.groups.items()} == {"class": ["cat", "dog"]}


@pytest.mark.parametrize("name", ["digits", "words"])
def test_a_served_classifier_has_the_outcomes_of_its_evaluation(chain_of, name):
    chain = chain_of(name)
    predict = model_files.load_predict(chain.task, chain.trained.folder)
    rows = list(chain.task.rows(chain.prepared, lambda: chain.raw))
    found = chain.task.outcomes_from(predict(rows, chain.task.row_params), chain.prepared)
    evaluated = read_outcomes(chain.evaluated.folder)
    assert (list(found.samples), list(found.clusters)) == (list(evaluated.samples), list(evaluated.clusters))
    assert found.groups == evaluated.groups
    assert found.columns["correct"].tolist() == evaluated.columns["correct"].tolist()
