"""Numbers and texts in, all of them optional, and a class with its reasons out, or one sentence that says why."""

import pytest
import torch

from components.contracts import Rejected
from components.errors import PedigreeError
from components.tables import facts, shapley
from components.tasks.tabular import serve
from components.tasks.tabular.model import build_model
from tests.tasks.tabular import tiny
from tests.tasks.tabular.values import prepared, values

ROW = {"age": 70.0, "weight": 80.5, "sex": "f", "town": "Ulm", "admitted": "2025-03-01"}


def served_with(folder, **options):
    raw = folder / "raw"
    raw.mkdir()
    tiny.write(raw)
    made = prepared(raw, folder / "prepared", **options)
    params = values(prepare=options)
    torch.manual_seed(0)
    model = build_model(params, made.manifest)
    for each in model.parameters():  # embeddings of bins begin at 0
        torch.nn.init.normal_(each, std=0.3)
    return serve.load_predict(model, made.manifest, params), serve.served(made.manifest, params), made, raw


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return served_with(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def predict(found):
    return found[0]


def test_every_number_is_an_optional_double_and_every_other_column_an_optional_string(found):
    _, served, _, _ = found
    assert served.inputs == {
        "age": "double",
        "weight": "double",
        "sex": "string",
        "town": "string",
        "admitted": "string",
    }
    assert served.optional == {*served.inputs}


def test_a_row_without_any_cell_is_answered(predict):
    empty, nothing = predict([{}, {"age": None, "weight": float("nan"), "sex": None}], {})
    assert empty == nothing
    assert empty["label"] in ("ill", "well")


def test_the_answer_names_columns_with_a_category_that_training_had_not(predict):
    known, other = predict([ROW, {**ROW, "town": "Jena", "sex": "x"}], {})
    assert known["unseen"] == []
    assert other["unseen"] == ["sex", "town"]


def test_the_label_is_the_positive_class_from_the_threshold_of_the_costs_on(predict):
    (answer,) = predict([ROW], {})
    assert answer["threshold"] == pytest.approx(1 / 6)
    assert (answer["label"] == "ill") == (answer["probabilities"]["ill"] >= 1 / 6)


def test_all_reasons_add_up_to_the_difference_from_the_usual_row(found):
    predict, _, made, _ = found
    (answer,) = predict([ROW], {"reasons": 5})
    usual = shapley.usual_row(facts.of(made.manifest))
    known = facts.of(made.manifest)
    row = {column.name: float(value) for column, value in zip(known.numbers, usual.number, strict=True)}
    row |= {
        column.name: column.categories[index - 3]
        for column, index in zip(known.categories, usual.category, strict=True)
    }
    day = int(row["admitted"])
    row["admitted"] = str(torch.tensor(day).numpy().astype("datetime64[D]"))
    (other,) = predict([row], {})
    odds = [_odds(each["probabilities"]["ill"]) for each in (answer, other)]
    assert answer["reasons"].keys() == ROW.keys()
    assert sum(answer["reasons"].values()) == pytest.approx(odds[0] - odds[1], abs=1e-2)
    assert predict([ROW], {"reasons": 2})[0]["reasons"] == dict([*answer["reasons"].items()][:2])


def _odds(probability):
    return torch.logit(torch.tensor(probability, dtype=torch.float64)).item()


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("age", "old", "'old' in the column 'age' is no number like the others; send another"),
        ("age", True, "expected a number in the column age and found bool; send another"),
        ("age", 1e300, "1e+300 in the column age is too large; send another"),
        ("sex", ["f"], "expected a string in the column sex and found list; send another"),
        ("admitted", "soon", "'soon' in the column 'admitted' is no date like the others; send another"),
    ],
)
def test_a_cell_that_cannot_be_read_rejects_its_row_alone(predict, column, value, reason):
    first, rejected, last = predict([ROW, {**ROW, column: value}, ROW], {})
    assert first == last
    assert rejected == Rejected(f"the row cannot be used: {reason}")


def test_an_unknown_param_is_one_sentence(predict):
    with pytest.raises(PedigreeError, match="'reason' is unknown; did you mean reasons"):
        predict([ROW], {"reason": 3})


def test_the_test_rows_are_requests_that_are_read_as_they_were_prepared(found):
    _, served, made, raw = found
    own = list(serve.rows(made, lambda: raw))
    assert len(own) == made.manifest.splits["test"].samples
    assert all(row.keys() == served.inputs.keys() for row in own)
    lines = {tuple(line) for line in tiny.rows()}
    for row in own:
        weight = "" if row["weight"] is None else f"{row['weight']:.1f}"
        key = (f"{row['age']:g}", weight, row["sex"], row["town"], row["admitted"])
        assert any(line[:5] == key for line in lines)


def test_a_quantity_is_answered_with_its_value(tmp_path):
    predict, served, _, _ = served_with(tmp_path, target="age", problem="regression", positive="")
    assert "value" in served.outputs
    (answer,) = predict([{"weight": 70.0}], {"reasons": 1})
    assert isinstance(answer["value"], float)
    assert len(answer["reasons"]) == 1
