"""The commands, the code and the metrics of docs/tasks/speech_to_text.md, as they are written there."""

import json
import re
import shutil
from contextlib import chdir

import pytest
import torch

from components.tasks.speech_to_text import evaluate, serve
from tests.conftest import copied
from tests.documents import blocks, page, request_of, run
from tests.documents import metrics as named_metrics
from tests.tasks.speech_to_text import tiny
from tests.tasks.speech_to_text.test_train import manifest
from tests.tasks.speech_to_text.values import values

PAGE = page("speech_to_text")


def test_the_request_of_the_page_has_the_columns_of_the_model(tmp_path):
    (tmp_path / "data" / "commands").mkdir(parents=True)
    (tmp_path / "data" / "commands" / "0000.wav").write_bytes(b"sound")
    (row,) = json.loads(request_of(PAGE, tmp_path))["dataframe_records"]
    assert {*row} == {*serve.served(manifest(), values()).inputs}


@pytest.mark.long
def test_the_code_rebuilds_the_trained_network_and_the_table_names_its_metrics(chain_of, tmp_path):
    chain = chain_of("commands")
    shutil.copytree(chain.trained.folder, tmp_path / "build" / "commands" / "model")
    (code,) = blocks(PAGE, "rebuild(")
    names = {"sound": torch.ones(2, 4000, dtype=torch.int16), "length": torch.tensor([4000, 2000])}
    with chdir(tmp_path):
        exec(code, names)
    assert names["log_probs"].shape[:2] == (2, 13)
    measured = {name.partition("/")[0] for name in chain.evaluated.metrics}
    plain = {name for name in measured if not re.search("_(low|high)$", name)}
    assert named_metrics(PAGE) == plain
    assert evaluate.score(chain.prepared.manifest).name in plain


@pytest.mark.long
def test_the_commands_answer_a_file_in_the_form_of_the_page(chain_of, tmp_path):
    root = copied(chain_of("commands").root, tmp_path / "project")
    name, _, _ = tiny.recordings()[0]
    for suffix in (".wav", ".txt"):
        (root / "data" / "commands" / f"{name}{suffix}").rename(root / "data" / "commands" / f"0000{suffix}")
    (command,) = blocks(PAGE, "--format json")
    answer = json.loads(run(command, root))
    (example,) = blocks(PAGE, '"confidence"')
    assert {*answer} == {*re.findall(r'"(\w+)": ', example.partition("[")[0])}
