"""The commands, the code and the metrics of docs/tasks/translation.md, as they are written there."""

import json
import re

import pytest
import torch

from components.contracts import Manifest
from components.tasks.translation import serve
from components.tasks.translation.model import build_model
from tests.conftest import copied
from tests.documents import blocks, loaded, page, run, train
from tests.tasks.translation import tiny
from tests.tasks.translation.test_train import FACTS
from tests.tasks.translation.values import values

PAGE = page("translation")
MANIFEST = Manifest(task="translation", splits={}, rejected=[], facts=FACTS | {"vocabulary": 2000})


def test_the_code_loads_the_weights_in_plain_torch_and_computes_logits(tmp_path):
    params = values(train={"model": {"size": 128, "heads": 4, "inner": 256, "layers": 2, "dropout": 0.2}})
    torch.manual_seed(0)
    built = build_model(params, MANIFEST).eval()
    weights = built.state_dict()
    once = {name: tensor for name, tensor in weights.items() if name != "network.output.weight"}
    inputs = {
        "source": torch.tensor([[5, 6, 1]]),
        "length": torch.tensor([3]),
        "target": torch.tensor([[7, 8, 9, 1]]),
    }
    names = loaded(PAGE, once, tmp_path, **inputs)
    found = names["model"].state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    assert torch.equal(names["logits"], built(*inputs.values()))


def test_the_request_of_the_page_has_the_columns_and_params_of_the_model(tmp_path):
    (block,) = blocks(PAGE, "curl")
    sent = json.loads(run(block.partition("\n")[2].partition(" |\n")[0], tmp_path))
    served = serve.served(MANIFEST, values())
    assert {*sent["dataframe_records"][0]} == {*served.inputs}
    assert {*sent["params"]} == {*served.params}


@pytest.mark.long
def test_the_commands_train_on_own_texts_in_a_layout_of_the_page(project, tmp_path):
    def write(folder):
        folder.mkdir()
        tiny.write_parallel(folder, "train", tiny.pairs())
        for file in [*folder.iterdir()]:
            file.rename(file.with_suffix(".de" if file.suffix == ".xx" else file.suffix))

    printed = train(PAGE, "captions", write, project, tmp_path)
    assert re.search(r"^captions: bleu [\d.]+ \(version 1, champion\)$", printed, re.MULTILINE)


@pytest.mark.long
def test_the_commands_translate_a_text_and_each_line_of_a_file_and_answer_in_the_form_of_the_page(
    chain_of, tmp_path
):
    root = copied(chain_of("interface-fr").root, tmp_path / "project")
    (root / "lines.txt").write_text("one cat\ntwo dogs\n")
    lines, best = (block for block in blocks(PAGE, "pedigree predict") if "pedigree run" not in block)
    assert "translation" in run(lines, root)
    (example,) = blocks(PAGE, '"translations"')
    answers = [json.loads(line) for line in run(best, root).splitlines()]
    assert [answer["line"] for answer in answers] == [1, 2]
    assert answers[0].keys() == {*re.findall(r'"(\w+)": ', example.partition("[")[0])}
    assert max(len(answer["translations"]) for answer in answers) == 3
