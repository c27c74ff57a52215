"""The commands and the code of docs/tasks/object_detection.md, as they are written there."""

import json
import re

import pytest
import torch

from components.contracts import Manifest
from components.tasks.object_detection import serve
from components.tasks.object_detection.model import build_model
from tests.conftest import copied
from tests.documents import blocks, loaded, page, request_of, run, train
from tests.tasks.object_detection import tiny
from tests.tasks.object_detection.values import facts, values

PAGE = page("object_detection")
MANIFEST = Manifest(
    task="object_detection",
    splits={},
    rejected=[],
    facts=facts(classes=[*"0123456789"], mean=[0.5] * 3, std=[0.2] * 3),
)


def test_the_code_loads_the_weights_in_plain_torch(tmp_path):
    params = values(train={"model": {"network": "resnet18", "width": 0.25, "neck": 48}})
    weights = build_model(params, MANIFEST).state_dict()
    found = loaded(PAGE, weights, tmp_path)["model"].state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


def test_the_request_of_the_page_has_the_columns_and_params_of_the_model(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"a photo")
    request = json.loads(request_of(PAGE, tmp_path))
    served = serve.served(MANIFEST, values())
    assert request.keys() == {"dataframe_records", "params"}
    assert request["dataframe_records"] == [{"image": "YSBwaG90bw=="}]
    assert request["params"].keys() == served.params.keys()
    assert served.inputs.keys() == {"image"}


@pytest.mark.long
def test_the_commands_train_on_own_images_in_a_layout_of_the_page(project, tmp_path):
    printed = train(PAGE, "cells", tiny.write, project, tmp_path)
    assert re.search(r"^cells: map [-.e\d]+ \(version 1, champion\)$", printed, re.MULTILINE)


@pytest.mark.long
def test_the_commands_answer_in_the_forms_of_the_page_and_cocos_tools_read_the_results(chain_of, tmp_path):
    from faster_coco_eval import COCO

    root = copied(chain_of("scenes").root, tmp_path / "project")
    drawing, results = blocks(PAGE, "pedigree predict")
    answer = json.loads(run(drawing.replace("\n", " --set threshold=0\n"), root))
    (example,) = blocks(PAGE, '"boxes"')
    assert answer.keys() == json.loads(example).keys()
    assert answer["boxes"][0].keys() == json.loads(example)["boxes"][0].keys()
    assert (root / "drawn/data/scenes/test/images/00001.png").is_file()
    run(results, root)
    entries = json.loads((root / "results.json").read_text())
    (entry,) = re.findall(r"`({.image_id.*?})`", PAGE)
    assert entries[0].keys() == json.loads(entry).keys()
    truth = COCO(root / "data/scenes/test/_annotations.coco.json")
    assert len(truth.loadRes(entries).anns) == len(entries)
