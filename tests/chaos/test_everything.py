"""Everything at once in one checkout, one round with two faults."""

import re
import time

import pytest

from tests.chaos import everything, kills
from tests.conftest import MODELS
from tests.running import free_ports, up

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

TWO = MODELS[:2]
"""Models; `make chaos` takes all."""


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    folder = tmp_path_factory.mktemp("everything") / "project"
    folder.mkdir()
    ports = kills.project(folder)
    everything.prepare_all(folder, TWO)
    expected = everything.undisturbed(folder, TWO)
    (ui,) = free_ports(1)
    with up(folder, ports) as running, everything.pages(folder, ui):
        day = everything.Day(running, expected)
        everything.while_it_lasts(0, day, ui, 2 * ["the serving process"])
    return day


def test_flows_dvc_repro_and_mlflow_ui_in_one_checkout_all_succeed_though_processes_are_killed(day):
    assert day.failures == []
    assert day.done["flows"] == len(TWO)
    assert day.done["dvc repro"] == 2
    assert sum(count for what, count in day.done.items() if what.startswith("SIGKILL")) > 0


def test_of_two_dvc_repro_one_waits_and_each_that_waits_says_for_what(day):
    assert day.waits
    named = r"waiting for (?!another ).+ \(pid \d+ on .+\)"
    assert [line for line in day.waits if not re.fullmatch(named, line)] == []


def test_flows_that_were_killed_leave_one_run_each_with_every_step_once(day):
    assert len(day.flows) == len(TWO)
    for flow, name in day.flows.items():
        assert kills.wrong(day.folder, flow, day.expected[name]) == []


def test_no_process_is_left_when_up_is_taken_down(day):
    assert kills.orphans(day.folder) == []


def test_a_flow_run_whose_serving_process_dies_before_it_has_done_anything_begins_again(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    with up(folder, kills.project(folder)) as running:
        flow_run = running.submit(MODELS[0], {"train": {"epochs": 1}})
        while running.state(flow_run) == "SCHEDULED":
            time.sleep(0.05)
        assert not (folder / "build" / "runs" / flow_run).exists()
        assert kills.kill_child(running, "the serving process")
        end = time.monotonic() + 400
        while (state := running.state(flow_run)) != "COMPLETED":
            assert time.monotonic() < end, (state, running.log()[-3000:])
            time.sleep(0.5)
