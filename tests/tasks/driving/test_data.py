"""The embedded drives are simulated in a process of its own, of which one sentence says why it failed."""

import pytest

from components.errors import PedigreeError
from components.tasks.driving import closed_loop, data


def test_the_drives_are_written_by_another_process_which_says_how_far_it_is(tmp_path, monkeypatch):
    for name, value in (("SECONDS", 1), ("TRAIN", 2), ("TEST", 1)):
        monkeypatch.setattr(data, name, value)
    said: list[str] = []
    monkeypatch.setattr(data.Progress, "say", lambda self, line: said.append(line))
    data.highway(tmp_path)
    assert sorted(file.name for file in tmp_path.rglob("*.*")) == [
        *("0.csv", "1.csv", "1000000.csv", "SIMULATED.txt", "scenario.json")
    ]
    assert said[-1] == "test: 1 of 1 drives simulated"


def test_without_the_simulator_one_sentence_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(closed_loop, "find_spec", lambda name: None)
    with pytest.raises(PedigreeError, match=r"is not installed: install it with `uv pip install 'pedigree\[driv"):
        data.highway(tmp_path)


def test_a_simulator_that_fails_is_named_with_its_last_line(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "__file__", str(tmp_path / "data.py"))
    (tmp_path / "simulator.py").write_text("raise SystemExit('no road today')")
    with pytest.raises(PedigreeError, match=r"could not simulate the drives \(no road today\): reinstall"):
        data.highway(tmp_path)
