"""The lineage as people read it."""

import pytest

from components.trust.lineage import Code, Data, Lineage, Machine, Runs, Source, changes


def ancestry(sources=(), pinned="d" * 32 + ".dir", **code):
    known = {"commit": "c" * 40, "dirty": False, "components": "5" * 64, "lock": "none"}
    return Lineage(
        task="image_classification",
        started="2026-11-24T08:00:00+00:00",
        data=Data(name="digits", pinned=pinned, raw="d" * 32 + ".dir", prepared="a" * 64, test_split="e" * 64),
        code=Code(**{**known, **code}),
        params={},
        params_sha256="b" * 64,
        seed=7,
        machine=Machine(device="cpu | two\ncores", world=2, python="3.11.7", platform="Linux", packages={}),
        runs=Runs(prefect="none", ray="1" * 32, mlflow="1" * 32),
        sources=dict(sources),
        weights="f" * 64,
    )


def test_the_ancestry_is_a_table_of_the_beginnings_of_hashes():
    lines = ancestry().markdown().splitlines()
    assert lines[:3] == ["| made from | which |", "|---|---|", "| data | digits, `dddddddddddd` |"]
    assert "| commit | `cccccccccccc` |" in lines
    assert "| params | `bbbbbbbbbbbb`, seed 7 |" in lines
    assert "| lock | none |" in lines


def test_data_that_nothing_pins_are_said_to_be_so():
    assert "| data | digits, `dddddddddddd`, not pinned |" in ancestry(pinned="none").markdown()


def test_what_training_started_from_is_part_of_the_ancestry_and_another_start_is_a_change():
    began = {"train.init.from": Source(named="models:/base@champion", exact="models:/base/3", sha256="1" * 64)}
    other = {"train.init.from": began["train.init.from"].model_copy(update={"sha256": "2" * 64})}
    assert "| train.init.from | models:/base/3, `111111111111` |" in ancestry(began).markdown()
    assert changes(ancestry(began), ancestry(began)) == []
    (change,) = changes(ancestry(began), ancestry(other))
    assert change == ("sources", f"train.init.from {'1' * 64}", f"train.init.from {'2' * 64}")


@pytest.mark.parametrize(
    ("only", "said"),
    [
        ([], "uncommitted changes"),
        (["params.yaml"], "uncommitted changes of params.yaml alone"),
        (["data.dvc", "params.yaml"], "uncommitted changes of data.dvc and params.yaml alone"),
        (["a", "b", "c"], "uncommitted changes of a, b and c alone"),
    ],
)
def test_uncommitted_changes_are_named_with_where_they_lie_and_those_of_no_code_as_such(only, said):
    described = ancestry(dirty=True, only=only).markdown()
    assert f"| commit | `cccccccccccc`, with {said}: see uncommitted.diff |" in described


def test_a_devices_name_cannot_break_the_table():
    assert "| machine | cpu \\| two cores, 2 worker(s), Python 3.11.7 |" in ancestry().markdown()
