"""The lineage as people read it."""

from components.trust.lineage import Code, Data, Lineage, Machine, Runs


def made(**code):
    known = {"commit": "c" * 40, "dirty": False, "components": "5" * 64, "lock": "none"}
    return Lineage(
        task="vision",
        started="2026-11-24T08:00:00+00:00",
        data=Data(pinned="d" * 32 + ".dir", raw="none", prepared="a" * 64, test_split="e" * 64),
        code=Code(**{**known, **code}),
        params={},
        params_sha256="b" * 64,
        seed=7,
        machine=Machine(device="cpu | two\ncores", world=2, python="3.11.7", platform="Linux", packages={}),
        runs=Runs(prefect="none", ray="1" * 32, mlflow="1" * 32),
        weights="f" * 64,
    )


def test_the_ancestry_is_a_table_of_the_beginnings_of_hashes():
    lines = made().markdown().splitlines()
    assert lines[:3] == ["| made from | which |", "|---|---|", "| data | `dddddddddddd`, of vision: none |"]
    assert "| commit | `cccccccccccc` |" in lines
    assert "| params | `bbbbbbbbbbbb`, seed 7 |" in lines
    assert "| lock | none |" in lines


def test_a_dirty_tree_is_called_dirty_and_where_its_difference_lies():
    assert "| commit | `cccccccccccc`, **dirty**: uncommitted.diff has the rest |" in made(dirty=True).markdown()


def test_a_devices_name_cannot_break_the_table():
    assert "| machine | cpu / two cores, 2 worker(s), Python 3.11.7 |" in made().markdown()
