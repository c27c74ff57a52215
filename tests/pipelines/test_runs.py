"""Which folder a flow run works in: its own, or that of the same flow that was cut off."""

import subprocess
import sys
from pathlib import Path

import pytest

from components import params, tasks
from pipelines import runs
from tests.conftest import ROOT


class KilledError(Exception):
    """Ends a block as a kill does."""


@pytest.fixture
def vision(project: Path):
    task = tasks.load("vision")
    return task, params.validate(task.params, params.read(project / "params.yaml"), ("tasks", "vision"))


def cut_off(root: Path, vision, flow_run: str) -> Path:
    with pytest.raises(KilledError), runs.folder(root, *vision, flow_run) as place:
        raise KilledError
    return place


def left(root: Path) -> list[runs.Record]:
    found: list[runs.Record] = []

    def keep(place: Path, record: runs.Record) -> runs.Record:
        found.extend([record] if runs.is_left(place, record) else [])
        return record

    runs.tend(root, keep)
    return found


def test_a_flow_that_was_settled_is_not_looked_at_again_until_somebody_takes_it_up(tmp_path, vision):
    cut_off(tmp_path, vision, "first")
    runs.tend(tmp_path, lambda place, record: record.model_copy(update={"settled": True}))
    assert left(tmp_path) == []
    cut_off(tmp_path, vision, "second")
    assert [(record.flow_run, record.earlier) for record in left(tmp_path)] == [("second", ["first"])]


def test_a_flow_that_was_cut_off_goes_on_in_its_folder_whoever_asks_for_it(tmp_path, vision):
    place = cut_off(tmp_path, vision, "first")
    assert [record.flow_run for record in left(tmp_path)] == ["first"]
    assert cut_off(tmp_path, vision, "first") == place
    assert [record.attempts for record in left(tmp_path)] == [2]
    with runs.folder(tmp_path, *vision, "second") as again:
        assert again == place
        assert left(tmp_path) == []
    assert left(tmp_path) == []
    with runs.folder(tmp_path, *vision, "third") as new:
        assert new != place


ANNOUNCE = """
import sys
from pathlib import Path
from components import params, tasks
from pipelines import runs
vision = tasks.load("vision")
values = params.validate(vision.params, params.read(Path(sys.argv[1], params.FILE)), ("tasks", "vision"))
runs.announce(Path(sys.argv[2]), vision, values, "first")
"""


def test_a_flow_run_whose_process_died_before_it_had_a_folder_is_known(project, tmp_path, vision):
    subprocess.run([sys.executable, "-c", ANNOUNCE, str(project), str(tmp_path)], cwd=ROOT, check=True)
    assert [(record.flow_run, record.attempts) for record in left(tmp_path)] == [("first", 0)]
    cut_off(tmp_path, vision, "second")
    assert [(record.flow_run, record.earlier) for record in left(tmp_path)] == [("second", ["first"])]


def test_a_flow_run_that_takes_up_another_leaves_nothing_of_its_own_beginning(tmp_path, vision):
    place = cut_off(tmp_path, vision, "first")
    runs.announce(tmp_path, *vision, "second")
    assert (place.parent / "second").exists()
    assert [record.flow_run for record in left(tmp_path)] == ["first"], "the second one has just begun"
    with runs.folder(tmp_path, *vision, "second") as taken:
        assert taken == place
        assert not (place.parent / "second").exists()


def test_a_flow_run_that_comes_back_to_a_folder_that_another_had_meanwhile_is_not_taken_for_a_dead_one(
    tmp_path, vision
):
    runs.announce(tmp_path, *vision, "first")
    place = cut_off(tmp_path, vision, "first")
    assert cut_off(tmp_path, vision, "second") == place
    runs.announce(tmp_path, *vision, "first")
    assert cut_off(tmp_path, vision, "first") == place
    assert [(record.flow_run, record.earlier) for record in left(tmp_path)] == [("first", ["second"])]


def test_another_parameter_is_another_flow(tmp_path, vision):
    place = cut_off(tmp_path, vision, "first")
    task, values = vision
    other = values.model_copy(update={"train": values.train.model_copy(update={"seed": 9})})
    with runs.folder(tmp_path, task, other, "second") as new:
        assert new != place


def test_the_number_of_workers_is_no_part_of_what_a_flow_is(tmp_path, vision):
    place = cut_off(tmp_path, vision, "first")
    task, values = vision
    more = values.model_copy(update={"train": values.train.model_copy(update={"workers": 4})})
    with runs.folder(tmp_path, task, more, "second") as again:
        assert again == place


def test_a_flow_that_another_process_has_is_left_alone(tmp_path, vision):
    place = cut_off(tmp_path, vision, "first")
    hold = (
        "import sys; from pathlib import Path; from components import locks\n"
        "with locks.alone(Path(sys.argv[1]), 'a test'): print('held', flush=True); sys.stdin.read()"
    )
    lock = place.with_name(f".{place.name}.lock")
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        assert left(tmp_path) == []
        with runs.folder(tmp_path, *vision, "second") as new:
            assert new != place
        other.kill()
    assert [record.flow_run for record in left(tmp_path)] == ["first"]
