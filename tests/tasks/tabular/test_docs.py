"""The request and the profiles of docs/tasks/tabular.md, as they are written there."""

import json

import pytest
import torch
from safetensors.torch import save_file

from components import models
from components.tasks.tabular import TASK, serve
from components.tasks.tabular.model import build_model
from tests.conftest import ROOT
from tests.documents import blocks, page
from tests.tasks.tabular import tiny
from tests.tasks.tabular.values import prepared, values

PAGE = page("tabular")


def test_the_request_of_the_page_is_json_with_columns_of_german_credit(tmp_path):
    (block,) = blocks(PAGE, "curl")
    sent = json.loads(block.partition("-d '")[2].partition("'\n")[0].removesuffix("'"))
    assert {*sent["params"]} == {"reasons"}
    assert {*sent["dataframe_records"][0]} == {"duration_in_month", "credit_amount", "purpose"}


def test_the_answer_of_the_page_has_the_columns_of_an_answer(tmp_path):
    (tmp_path / "raw").mkdir()
    tiny.write(tmp_path / "raw")
    made = prepared(tmp_path / "raw", tmp_path / "prepared")
    (block,) = blocks(PAGE, '{"predictions"')
    (answer,) = json.loads(block)["predictions"]
    assert answer.keys() == serve.served(made.manifest, values()).outputs.keys()


def test_the_code_loads_the_weights_and_computes_logits(tmp_path):
    (tmp_path / "raw").mkdir()
    tiny.write(tmp_path / "raw")
    made = prepared(tmp_path / "raw", tmp_path / "prepared")
    built = build_model(values(), made.manifest).eval()
    save_file(built.state_dict(), tmp_path / "weights.safetensors")
    (code,) = blocks(PAGE, "load_file")
    batch = TASK.load_split(made.folder, "test").__getitems__(torch.arange(4))
    names = {
        "params": values(),
        "manifest": made.manifest,
        "number": batch["number"],
        "category": batch["category"],
    }
    exec(code.replace('"weights.safetensors"', repr(str(tmp_path / "weights.safetensors"))), names)
    assert torch.equal(names["logits"], built(batch["number"], batch["category"]))


@pytest.mark.parametrize("name", ["german", "taiwan", "diabetes-brfss", "heart", "heart-shift", "fraud-oracle"])
def test_the_profiles_are_those_of_the_task(name):
    profile = models.profile(ROOT, name)
    assert profile.task == TASK.name
    assert models.load(ROOT, "disease", profile).params.prepare.slices is not None
