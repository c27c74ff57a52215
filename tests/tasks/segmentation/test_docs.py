"""The commands and the code of docs/tasks/segmentation.md, as they are written there."""

import json
import re

import pytest
import torch
from PIL import Image

from components.contracts import Manifest
from components.tasks.segmentation import serve
from components.tasks.segmentation.model import build_model
from tests.conftest import copied
from tests.documents import blocks, loaded, page, request_of, run, train
from tests.tasks.segmentation import tiny
from tests.tasks.segmentation.test_train import FACTS
from tests.tasks.segmentation.values import values

PAGE = page("segmentation")
MANIFEST = Manifest(task="segmentation", splits={}, rejected=[], facts=FACTS | {"classes": [*"0123456789a"]})


def test_the_code_loads_the_weights_in_plain_torch_and_answers(tmp_path):
    params = values(train={"model": {"network": "resnet18", "width": 0.25, "decoder": 64}})
    weights = build_model(params, MANIFEST).state_dict()
    names = loaded(PAGE, weights, tmp_path, images=torch.zeros(2, 3, 40, 50))
    found = names["model"].state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    assert [classes.shape for classes in names["classes"]] == [(40, 50), (40, 50)]


def test_the_request_of_the_page_has_the_column_of_the_model(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"a photo")
    assert json.loads(request_of(PAGE, tmp_path)) == {"dataframe_records": [{"image": "YSBwaG90bw=="}]}
    assert serve.served(MANIFEST, values()).inputs.keys() == {"image"}


@pytest.mark.long
def test_the_commands_train_on_own_images_in_a_layout_of_the_page(project, tmp_path):
    printed = train(PAGE, "streets", tiny.write, project, tmp_path)
    assert re.search(r"^streets: miou [-.e\d]+ \(version 1, champion\)$", printed, re.MULTILINE)


@pytest.mark.long
def test_the_commands_write_masks_and_pictures_and_answer_in_the_form_of_the_page(chain_of, tmp_path):
    root = copied(chain_of("scene-masks").root, tmp_path / "project")
    images = root / "data/scene-masks/test/images"
    for number in range(1, 5):
        (images / f"{number:03d}.png").rename(images / f"{number:05d}.jpg")  # the format is told by the content
    drawing, writing, printing = (
        each.replace("data/scenes", "data/scene-masks") for each in blocks(PAGE, "pedigree predict")
    )
    run(drawing, root)
    assert len(list((root / "drawn/data/scene-masks/test/images").glob("0000[1-4].png"))) == 4
    run(writing, root)
    with Image.open(root / "masks/data/scene-masks/test/images/00001.png") as mask:
        assert mask.mode == "P"
    (example,) = blocks(PAGE, '"areas"')
    assert json.loads(run(printing, root)).keys() == set(re.findall(r'"(file|mask|classes|areas)"', example))
