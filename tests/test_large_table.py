"""The benchmark of a large table, on few rows."""

import shutil
from pathlib import Path

from benchmarks import large, large_table, memory, report
from components.stages import prepare
from components.tables import facts

ROWS = 2_000


def here(module, arguments, cores=None, folder=None):
    """Run a step in this process, which is not watched."""
    _, step, _, seconds = arguments
    found = (large_table.STEPS | large_table.CONTENDERS)[step](folder, float(seconds))
    return found | {"memory": 1.0, "memory of one": 1.0, "disk": memory.size(folder)}


def test_a_generated_table_is_prepared_trained_on_and_compared_and_what_was_found_is_on_the_page(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(large_table, "PIECE", 800)
    monkeypatch.setattr(large_table, "SETTINGS", (*large_table.SETTINGS, "train.workers=0", "train.batch_size=256"))
    monkeypatch.setattr(memory, "watched", here)
    monkeypatch.setattr(large, "WARM_UP", 0.0)
    monkeypatch.setattr(large, "trained", lambda *_: {"rate": 1.0})  # takes seconds, and is interrupted
    (tmp_path / "docs" / "images").mkdir(parents=True)
    monkeypatch.setattr(report, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(report, "RECORDS", Path(shutil.copy(report.RECORDS, tmp_path)))
    large_table.measure(tmp_path / "work", ROWS, rounds=1, seconds=0.0)

    data = prepare.load(tmp_path / "work" / "prepared")
    known = facts.of(data.manifest)
    assert sum(part.samples for part in data.manifest.splits.values()) == ROWS
    assert [each.kind for each in known.numbers] == ["number"] * 30 + ["date"] * 3
    assert known.left_out[0].reason == "it numbers the rows"
    assert len(known.columns) + len(known.left_out) + 1 == 50
    units = [unit for split in data.manifest.splits for unit in {*facts.row_units(data.folder, split)}]
    assert len(units) == len({*units}) == ROWS - 2 * 8 - 4, "one in a hundred rows of a piece repeats another"

    page = (tmp_path / "docs" / "performance.md").read_text()
    lines = page.partition("## A large table")[2].splitlines()
    assert f"a generated table of {ROWS:,} rows and 50 columns" in page
    for name in (*large_table.STEPS, *large_table.CONTENDERS):
        assert sum(line.startswith(f"| {name} |") for line in lines) == 1
