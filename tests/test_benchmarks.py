"""The page that tells what benchmarks found."""

import shutil

from benchmarks import report
from tests.conftest import ROOT


def test_the_page_of_figures_says_what_was_measured_and_nothing_else(tmp_path, monkeypatch):
    shutil.copy(report.KEPT, tmp_path)
    (tmp_path / "images").mkdir()
    monkeypatch.setattr(report, "DOCS", tmp_path)
    report.write()
    assert (tmp_path / "performance.md").read_text() == (ROOT / "docs" / "performance.md").read_text()
    assert (tmp_path / "images" / "throughput.png").stat().st_size > 10_000
