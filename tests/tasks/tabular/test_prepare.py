"""Every cell is read as text, and what a column holds is decided from all of it, or refused in one sentence."""

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import PedigreeError
from components.runtime import progress
from components.tables import baselines, facts
from components.tables.columns import MISSING, RARE, SPECIAL, UNSEEN
from tests.tasks.tabular import tiny
from tests.tasks.tabular.values import of_rows, prepared, values


def labels(count, seed=0):
    drawn = random.Random(seed)
    return [drawn.choice(["no", "yes"]) for _ in range(count)]


def table(folder, cells, name="x", count=60, **options):
    """Prepare a table with one column of the given cells, repeated, and one of noise."""
    drawn = random.Random(1)
    rows = [[cells[n % len(cells)], f"{drawn.gauss(0, 1):.4f}", label] for n, label in enumerate(labels(count))]
    return of_rows(folder, [name, "noise", "y"], rows, **options)


def column(made, name="x"):
    return next(each for each in facts.of(made.manifest).columns if each.name == name)


def numbers(made, name="x"):
    own = facts.of(made.manifest)
    place = [each.name for each in own.numbers].index(name)
    splits = [facts.load_split(made.folder, split)["number"][:, place] for split in ("train", "val", "test")]
    return {float(value) for split in splits for value in split.tolist() if not np.isnan(value)}


def refused(folder, cells, **options):
    with pytest.raises(PedigreeError) as error:
        table(folder, cells, **options)
    return str(error.value).removeprefix(f"{folder}/raw/")


@pytest.mark.parametrize(
    ("cells", "writing", "read"),
    [
        (["1.5", "2", "-3e1", "+4"], "point", {1.5, 2, -30, 4}),
        (["1,5", "2", "-3,25"], "comma", {1.5, 2, -3.25}),
        (["1,299.99", "12", "1,000,000"], "thousands_commas", {1299.99, 12, 1e6}),
        (["1.299,99", "12", "1.000.000"], "thousands_points", {1299.99, 12, 1e6}),
    ],
)
def test_numbers_are_read_in_each_of_four_ways_of_writing(tmp_path, cells, writing, read):
    rows = [[cells[n % len(cells)], str(n % 17), label] for n, label in enumerate(labels(60))]
    made = of_rows(tmp_path, ["x", "other", "y"], rows)
    assert column(made).writing == writing
    assert numbers(made) == {float(np.float32(each)) for each in read}


def test_numbers_that_can_be_read_in_two_ways_are_read_like_those_of_other_columns_or_refused(tmp_path):
    (tmp_path / "with").mkdir()
    assert numbers(table(tmp_path / "with", ["1.299", "2.500"])) == {np.float32(1.299), 2.5}
    (tmp_path / "raw").mkdir()
    rows = [["1.299" if n % 2 else "2.500", str(n % 17), label] for n, label in enumerate(labels(60))]
    tiny.write_csv(tmp_path / "raw" / "table.csv", rows, ("x", "other", "y"))
    with pytest.raises(PedigreeError, match=r"such as '(1\.299|2\.500)', can have thousands separators or three"):
        prepared(tmp_path / "raw", tmp_path / "one", slices=[], target="y", positive="")
    made = prepared(tmp_path / "raw", tmp_path / "two", slices=[], target="y", positive="", decimal="comma")
    assert numbers(made) == {1299, 2500}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_one_that_gives_all_lines_equally_many_cells(tmp_path, delimiter):
    tiny.write_csv(tmp_path / "table.csv", tiny.rows(), delimiter=delimiter)
    made = prepared(tmp_path, tmp_path / "prepared")
    assert [each.name for each in facts.of(made.manifest).columns] == [*tiny.COLUMNS[:-1]]


def test_a_delimiter_in_doubt_is_asked_for(tmp_path):
    (tmp_path / "table.csv").write_text("a,b;c\n" + "1,2;3\n" * 9)
    with pytest.raises(PedigreeError, match="a comma and a semicolon could each be between its cells: set prepare"):
        prepared(tmp_path, tmp_path / "prepared", target="a", slices=[])


def test_words_such_as_na_are_categories_unless_they_are_named_as_missing(tmp_path, caplog):
    for name, options in (("value", {}), ("missing", {"missing": ["NA"]})):
        (tmp_path / name).mkdir()
        made = table(tmp_path / name, ["NA", "ZA", "BW"], **options)
        assert ("NA" in column(made).categories) == (name == "value")
    assert "has 20 cells 'NA', which are taken for a category" in caplog.text


def test_numbers_with_a_word_among_them_are_refused_until_it_is_said_what_it_means(tmp_path):
    assert "the column 'x' has numbers and 20 cells '?': add the word to prepare.missing" in refused(
        tmp_path, ["1", "?", "3"]
    )
    (tmp_path / "named").mkdir()
    made = table(tmp_path / "named", ["1", "?", "3"], missing=["?"])
    assert column(made).kind == "number"
    assert column(made).missing


def test_dates_have_one_order_in_the_whole_column_or_are_refused(tmp_path):
    for name, cells, order in (
        ("iso", ["2026-01-02", "2025-12-31"], "iso"),
        ("day", ["31/01/2026", "02/01/2026"], "day_first"),
        ("month", ["01/31/2026", "01/02/2026"], "month_first"),
    ):
        (tmp_path / name).mkdir()
        assert column(table(tmp_path / name, cells)).order == order
    (tmp_path / "doubt").mkdir()
    assert "can have the day or the month first" in refused(tmp_path / "doubt", ["01/02/2026", "03/04/2026"])
    (tmp_path / "mixed").mkdir()
    assert "no order of day, month and year fits" in refused(tmp_path / "mixed", ["31/01/2026", "01/31/2026"])


def test_a_date_is_the_number_of_days_since_1970(tmp_path):
    made = table(tmp_path, ["1970-01-02", "1970-03-01", "1969-12-31"])
    assert numbers(made) == {1, 59, -1}


def test_a_column_with_a_leading_zero_is_a_category(tmp_path):
    assert column(table(tmp_path, ["01067", "80331", "20095"])).kind == "category"


def test_columns_that_identify_or_number_rows_are_left_out_with_the_reason(tmp_path):
    rows = [[str(n + 1), f"id-{n}", str(n % 7), "same", "", label] for n, label in enumerate(labels(60))]
    made = of_rows(tmp_path, ["number", "id", "x", "one", "none", "y"], rows)
    left = {each.name: each.reason for each in facts.of(made.manifest).left_out}
    assert left == {
        "number": "it numbers the rows",
        "id": "it identifies rows: 100% of its values differ",
        "one": "all cells are equal",
        "none": "it is empty",
    }


def test_a_column_that_alone_tells_the_target_stops_the_stage_unless_it_is_allowed(tmp_path):
    own = labels(80)
    rows = [[str(n % 9), {"no": "a", "yes": "b"}[label], label] for n, label in enumerate(own)]
    header = ["x", "made_later", "y"]
    with pytest.raises(PedigreeError, match="the column 'made_later' alone tells the target 'y'"):
        of_rows(tmp_path, header, rows)
    (tmp_path / "allowed").mkdir()
    of_rows(tmp_path / "allowed", header, rows, allow=["made_later"])


def test_equal_rows_are_in_one_split(tmp_path):
    rows = [[str(n // 4), str(n // 4 % 3), label] for n, label in enumerate(labels(160))]
    made = of_rows(tmp_path, ["a", "b", "y"], rows, allow=["a"])
    seen = {}
    for split in ("train", "val", "test"):
        for row in facts.load_split(made.folder, split)["number"].tolist():
            assert seen.setdefault(tuple(row), split) == split
    assert {*seen.values()} == {"train", "val", "test"}


def test_rows_that_are_also_in_the_given_test_table_are_left_out_of_training(tmp_path):
    own = tiny.rows(120)
    raw = tmp_path / "raw"
    raw.mkdir()
    tiny.write_csv(raw / "train.csv", own)
    tiny.write_csv(raw / "test.csv", [*own[:5], *tiny.rows(40, seed=9)])
    made = prepared(raw, tmp_path / "prepared")
    assert made.manifest.splits["test"].samples == 45
    (rejected,) = made.manifest.rejected
    assert rejected.reason == "5 rows also in the table for testing or validation, such as train.csv:2"


def test_a_group_is_in_one_split_and_is_no_feature(tmp_path):
    rows = [[f"p{n // 5}", str(n % 11), f"{n * 7 % 13}.5", label] for n, label in enumerate(labels(200))]
    made = of_rows(tmp_path, ["patient", "a", "b", "y"], rows, group="patient")
    groups = {
        split: {int(name.rpartition(":")[2]) // 5 for name in _places(made, split)}
        for split in ("train", "val", "test")
    }
    assert not groups["train"] & groups["test"]
    assert not groups["val"] & groups["test"]
    assert "patient" not in {each.name for each in facts.of(made.manifest).columns}


def _places(made, split):
    known = facts.of(made.manifest)
    return [f":{int(name.rpartition(':')[2]) - 2}" for name in facts.row_names(known, made.folder, split)]


def test_the_latest_rows_are_for_testing(tmp_path):
    rows = [[f"{1990 + n % 10}", f"{n * 7 % 13}.5", label] for n, label in enumerate(labels(200))]
    made = of_rows(tmp_path, ["year", "a", "y"], rows, time="year", test_share=0.2)
    tested = {int(name[1:]) % 10 for name in _places(made, "test")}
    assert tested == {8, 9}
    assert made.manifest.drawn == "the latest 40 of 200 rows"


def test_a_row_is_named_by_its_place_in_its_own_file(tmp_path):
    raw, own = tmp_path / "raw", tiny.rows(90)
    raw.mkdir()
    tiny.write_csv(raw / "a.csv", own[:40])
    cells = zip(*own[40:70], strict=True)
    pq.write_table(
        pa.table({name: pa.array(each) for name, each in zip(tiny.COLUMNS, cells, strict=True)}), raw / "b.parquet"
    )
    tiny.write_csv(raw / "c.csv", own[70:])
    made = prepared(raw, tmp_path / "prepared")
    known = facts.of(made.manifest)
    names = [name for split in made.manifest.splits for name in facts.row_names(known, made.folder, split)]
    assert {*names} == {
        *(f"a.csv:{line}" for line in range(2, 42)),
        *(f"b.parquet:row {row}" for row in range(1, 31)),
        *(f"c.csv:{line}" for line in range(2, 22)),
    }
    assert len(names) == 90
    ages = dict(zip(facts.row_names(known, made.folder, "train"), _numbers(made, "train"), strict=True))
    lines = {f"a.csv:{line + 2}": line for line in range(40)} | {
        f"b.parquet:row {n + 1}": 40 + n for n in range(30)
    }
    for name in ages.keys() & lines.keys():
        assert ages[name] == float(own[lines[name]][0])


def _numbers(made, split):
    return facts.load_split(made.folder, split)["number"][:, 0].tolist()


def test_fitting_baselines_on_many_rows_says_which_one_is_fitted_and_on_how_many(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", logger="pedigree.evaluate")
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    tiny.write(tmp_path)
    made = prepared(tmp_path, tmp_path / "prepared")
    train, val = (facts.load_split(made.folder, split) for split in ("train", "val"))
    for most in (len(train) + 1, len(train)):
        monkeypatch.setattr(baselines, "LONG", most)
        baselines.fitted(train, val, facts.of(made.manifest), seed=0)
        began = [line for line in caplog.messages if line.startswith("fitting the baseline")]
        expected = [f"fitting the baseline {name} on {len(train)} rows" for name in ("linear", "trees")]
        assert began == (expected if most == len(train) else [])
    assert "2 of 4 strengths of the penalty of linear fitted" in caplog.messages


def test_each_row_is_for_testing_in_one_of_the_folds(tmp_path):
    tiny.write(tmp_path)
    tested = []
    for number in (1, 2, 3):
        made = prepared(tmp_path, tmp_path / f"{number}", fold=f"{number}/3")
        tested += _places(made, "test")
    assert sorted(tested) == sorted({*tested})
    assert len(tested) == 160


def test_categories_are_those_of_training_and_others_are_rare_or_unseen(tmp_path):
    cells = ["a"] * 40 + ["b"] * 40 + ["once"] + [""] * 10
    made = table(tmp_path, cells, count=len(cells))
    own = column(made)
    assert own.categories == ["a", "b"]
    used = {int(each) for split in ("train", "val", "test") for each in _category(made, split)}
    assert used <= {UNSEEN, MISSING, RARE, SPECIAL, SPECIAL + 1}
    assert MISSING in used
    assert UNSEEN not in {int(each) for each in _category(made, "train")}


def _category(made, split):
    return facts.load_split(made.folder, split)["category"][:, 0]


def test_parquet_gives_the_same_columns_as_the_same_table_in_csv(tmp_path):
    for name in ("csv", "parquet"):
        (tmp_path / name).mkdir()
    own = tiny.rows()
    tiny.write_csv(tmp_path / "csv" / "patients.csv", own)
    cells = dict(zip(tiny.COLUMNS, zip(*own, strict=True), strict=True))
    arrays = {name: pa.array(values) for name, values in cells.items()}
    arrays["age"] = pa.array([int(each) for each in cells["age"]])
    arrays["weight"] = pa.array([float(each) if each else None for each in cells["weight"]])
    pq.write_table(pa.table(arrays), tmp_path / "parquet" / "patients.parquet")
    one, two = (prepared(tmp_path / name, tmp_path / f"{name}-out") for name in ("csv", "parquet"))
    assert one.manifest.splits == two.manifest.splits
    assert facts.of(one.manifest).columns == facts.of(two.manifest).columns


def test_a_byte_order_mark_and_quotes_around_labels_are_no_part_of_them(tmp_path):
    lines = "".join(f"{n % 17},{n * 7 % 13}.5,'{label}'\n" for n, label in enumerate(labels(60)))
    (tmp_path / "table.csv").write_text(f"a,b,y\n{lines}", encoding="utf-8-sig")
    made = prepared(tmp_path, tmp_path / "prepared", target="auto", positive="yes", slices=[])
    assert facts.of(made.manifest).classes == ["no", "yes"]
    assert [each.name for each in facts.of(made.manifest).columns] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "options", "reason"),
    [
        ("a,y\n" + "1,no\n" * 30, {}, "all rows have the target 'no': add others, or set prepare.target"),
        ("a,b,y\n" + "1,2,no\n" * 30 + "1,2\n", {}, "table.csv:32: 2 cells under 3 columns, with a comma"),
        ("a,a,y\n1,2,no\n", {}, "table.csv:1: two columns are called 'a': rename one of them"),
        ("1,2,3\n4,5,6\n", {}, "the first line, which should name the columns, holds numbers only"),
        ("a,b\n1,2\n", {"target": "auto"}, "no column called target, label or class: set prepare.target to one of"),
        ("a,y\n1,no\n", {"drop": ["z"]}, "has no column 'z' (there are 'a', 'y'): correct prepare.drop"),
        (",".join(f"c{n}" for n in range(5000)) + "\n", {}, "5,000 columns are over 2,000: leave out those"),
        (
            "a,y\n" + "".join(f"{n % 3},id{n}\n" for n in range(300)),
            {},
            "the target 'y' has 300 different values, more than the 100 classes",
        ),
        (
            "a,y\n" + "".join(f"{n % 3},{n}\n" for n in range(300)),
            {},
            "the target 'y' tells nothing, as it numbers the rows: name another",
        ),
    ],
)
def test_a_table_that_cannot_be_learnt_from_is_refused_in_one_sentence(tmp_path, text, options, reason):
    (tmp_path / "table.csv").write_text(text)
    chosen = {"target": "y", "positive": "", "slices": [], **options}
    with pytest.raises(PedigreeError) as error:
        prepared(tmp_path, tmp_path / "prepared", **chosen)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_two_tables_with_different_columns_are_refused_with_the_first_difference(tmp_path):
    tiny.write_csv(tmp_path / "a.csv", tiny.rows(30))
    tiny.write_csv(tmp_path / "b.csv", tiny.rows(30), header=[*tiny.COLUMNS[:-1], "result"])
    with pytest.raises(PedigreeError, match=r"b\.csv:1: it lacks the column 'outcome', unlike .*a\.csv: give both"):
        prepared(tmp_path, tmp_path / "prepared")


def test_a_spreadsheet_is_to_be_saved_as_csv(tmp_path):
    (tmp_path / "table.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(PedigreeError, match="is a spreadsheet: save it as CSV or Parquet"):
        prepared(tmp_path, tmp_path / "prepared")


def test_a_table_in_another_encoding_is_refused_until_it_is_named(tmp_path):
    lines = "".join(f"{'Köln' if n % 3 else 'Ulm'},{n % 7},{label}\n" for n, label in enumerate(labels(60)))
    (tmp_path / "table.csv").write_bytes(f"town,b,y\n{lines}".encode("cp1252"))
    options = {"target": "y", "positive": "", "slices": []}
    with pytest.raises(
        PedigreeError, match=r"is not UTF-8: save the file as UTF-8, or set prepare.encoding: cp1252"
    ):
        prepared(tmp_path, tmp_path / "one", **options)
    made = prepared(tmp_path, tmp_path / "two", **options, encoding="cp1252")
    assert column(made, "town").categories == ["Köln", "Ulm"]


def test_values_far_outside_all_others_are_said_to_look_like_codes(tmp_path, caplog):
    table(tmp_path, ["999", *map(str, range(20, 40))], count=84)
    assert "999 in the column 'x' looks like a code, far from all others" in caplog.text


def test_a_fold_is_one_of_several_parts(tmp_path):
    for wrong in ("0/5", "6/5", "1/1", "half"):
        with pytest.raises(PedigreeError, match="should be one of several parts, such as 1/5"):
            values(prepare={"fold": wrong})
