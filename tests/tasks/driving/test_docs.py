"""The commands, the code and the metrics of docs/tasks/driving.md, as they are written there."""

import json
import re
import shutil
from contextlib import chdir

import pytest
import torch

from components.tasks.driving import episodes, evaluate, simulator
from components.tasks.driving.road import FEATURES
from components.tasks.driving.serve import cars_of
from tests.conftest import copied
from tests.documents import blocks, page, run
from tests.documents import metrics as named_metrics

PAGE = page("driving")


def test_the_request_of_the_page_has_cars_with_one_ego_car_among_them():
    (block,) = blocks(PAGE, "curl")
    (row,) = json.loads(re.search(r"'(\{.*\})'", block)[1])["dataframe_records"]
    assert cars_of(row["cars"]).shape == (2, 6)
    assert cars_of(json.dumps(row["cars"]))[0, 0] == 100


def test_the_scenario_and_the_tracks_of_the_page_can_be_read(tmp_path):
    (scenario,) = blocks(PAGE, '"environment"')
    (tracks,) = blocks(PAGE, "frame,id")
    (tmp_path / "train").mkdir()
    (tmp_path / "scenario.json").write_text(scenario)
    (tmp_path / "train" / "monday.csv").write_text(tracks.replace(",8,0,", ",4,0,"))
    found = episodes.survey(tmp_path)
    assert episodes.read(tmp_path, "train/monday.csv", found.scenario.lanes).cars.shape == (1, 2, 6)
    assert tracks.splitlines()[0] == ",".join(simulator.COLUMNS)


def test_the_page_says_how_many_features_there_are():
    assert f"From these {len(FEATURES)} numbers" in PAGE


@pytest.mark.long
def test_the_code_rebuilds_the_trained_network_and_the_table_names_its_metrics(chain_of, tmp_path):
    chain = chain_of("highway")
    shutil.copytree(chain.trained.folder, tmp_path / "build" / "highway" / "model")
    (code,) = blocks(PAGE, "rebuild(")
    names = {"features": torch.zeros(2, len(FEATURES))}
    with chdir(tmp_path):
        exec(code, names)
    assert names["acceleration"].shape == (2,)
    assert names["change"].shape == (2, 3)
    plain = {name for name in chain.evaluated.metrics if not re.search("_(low|high)$", name)}
    assert named_metrics(PAGE) == plain
    assert evaluate.score(chain.prepared.manifest).name in plain


@pytest.mark.long
def test_the_commands_answer_scenes_in_the_form_of_the_page(chain_of, tmp_path):
    chain = chain_of("highway")
    root = copied(chain.root, tmp_path / "project")
    shutil.copytree(chain.evaluated.folder, root / "build" / "highway" / "latest" / "evaluation")
    (command,) = blocks(PAGE, "--format json")
    answer, *_ = map(json.loads, run(command, root).splitlines())
    (example,) = blocks(PAGE, '"plan"')
    assert {*answer} == {*re.findall(r'"(\w+)": ', example.partition("[")[0])}
    assert {*answer["plan"][0]} == {*re.findall(r'"(\w+)": ', example.partition("[")[2])}
