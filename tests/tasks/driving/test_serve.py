"""Cars of a scene in; acceleration, lane and plan out. It needs no simulator."""

import json

import pytest

from components.contracts import Rejected
from components.tasks.driving import TASK, serve
from components.training import model_files
from tests.conftest import ROOT
from tests.running import python

EGO = {"x": 100.0, "y": 4.0, "heading": 0.0, "speed": 25.0, "ego": True}
OTHER = {"x": 130.0, "y": 4.0, "heading": 0.0, "speed": 20.0}


@pytest.fixture(scope="module")
def predict(chain_of):
    return model_files.load_predict(TASK, chain_of("highway").trained.folder)


def test_the_order_of_the_cars_the_form_of_the_list_and_sizes_left_out_change_nothing(predict):
    sized = {"length": 5.0, "width": 2.0}
    rows = [[EGO, OTHER], [OTHER, EGO], json.dumps([EGO, OTHER]), [EGO | sized, OTHER | sized | {"ego": False}]]
    answers = predict([{"cars": cars} for cars in rows], {})
    assert all(answer == answers[0] for answer in answers)


def test_scenes_of_different_numbers_of_cars_are_answered_together_as_alone(predict):
    scenes = [[EGO], [EGO, OTHER], [EGO, OTHER, OTHER | {"x": 60.0}]]
    together = predict([{"cars": cars} for cars in scenes], {})
    alone = [predict([{"cars": cars}], {})[0] for cars in scenes]
    for one, other in zip(together, alone, strict=True):
        assert one["lane"] == other["lane"]
        assert one["acceleration"] == pytest.approx(other["acceleration"], rel=1e-9)


@pytest.mark.parametrize(
    ("cars", "reason"),
    [
        ([OTHER], "0 of its 1 cars have `ego: true`; mark the one that you drive"),
        ([EGO, EGO], "2 of its 2 cars have `ego: true`"),
        ([], "0 of its 0 cars"),
        (
            [EGO | {"y": 40.0}],
            "at x = 100, y = 40 is in no lane that it may use; lanes there: 0 at y = 0, 1 at ",
        ),
        ([EGO | {"x": -400.0}], "is in no lane that it may use; lanes there: none"),
        ([EGO | {"speed": -1.0}], "car 0: speed: Input should be greater than or equal to 0"),
        ([EGO, {"x": 1.0}], "car 1: y: Field required"),
        ([EGO | {"x": float("nan")}], "car 0: x: Input should be a finite number"),
        ([EGO | {"colour": "red"}], "car 0: colour: Extra inputs are not permitted"),
        ([EGO, 7], "car 1: its fields: Input should be"),
        ([EGO] * 1001, "1,001 cars are more than 1,000; send those near the ego car"),
        ("[{", "the text in the column cars is not JSON"),
        (None, "expected a list of cars in the column cars and found null"),
    ],
)
def test_a_scene_that_cannot_be_used_is_rejected_with_the_reason_and_the_others_are_answered(predict, cars, reason):
    rejected, answer = predict([{"cars": cars}, {"cars": [EGO]}], {})
    assert isinstance(rejected, Rejected)
    assert rejected.reason.startswith("the scene cannot be used: ")
    assert reason in rejected.reason
    assert answer["plan"]


def test_the_picture_of_an_answer_is_a_png(predict):
    row = {"cars": [EGO, OTHER]}
    assert serve.draw(row, predict([row], {})[0]).startswith(b"\x89PNG")


@pytest.mark.long
def test_a_version_answers_where_no_simulator_is_installed(chain_of, tmp_path):
    code = f"""
import sys
sys.modules["highway_env"] = sys.modules["gymnasium"] = sys.modules["pygame"] = None
from pathlib import Path
from components.tasks.driving import TASK
from components.training import model_files
predict = model_files.load_predict(TASK, Path({str(chain_of("highway").trained.folder)!r}))
print(predict([{{"cars": [{EGO!r}]}}], {{}})[0]["lane"])
"""
    done = python(ROOT, 100, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("0", "1", "2")
