"""The commands, the code and the metrics of docs/tasks/speech_synthesis.md, as they are written there."""

import json
import re
import shutil
from contextlib import chdir

import pytest
import soundfile

from components.tasks.speech_synthesis import evaluate, serve
from tests.conftest import copied
from tests.documents import blocks, page, run
from tests.documents import metrics as named_metrics
from tests.tasks.speech_synthesis.values import manifest, values

PAGE = page("speech_synthesis")
ONLY_WITH_A_RECOGNISER = {"wer", "wer_of_recordings", "wer_of_understood"}


def test_the_request_of_the_page_has_the_columns_and_params_of_the_model():
    (block,) = blocks(PAGE, "curl")
    sent = json.loads(re.search(r"'(\{.*\})'", block)[1])
    served = serve.served(manifest(), values())
    assert {*sent["dataframe_records"][0]} == {*served.inputs}
    assert {*sent["params"]} <= {*served.params}


@pytest.mark.long
def test_the_code_speaks_with_the_trained_network_and_the_table_names_its_metrics(chain_of, tmp_path):
    chain = chain_of("voice")
    shutil.copytree(chain.trained.folder, tmp_path / "build" / "voice" / "model")
    (code,) = blocks(PAGE, "rebuild(")
    names = {}
    with chdir(tmp_path):
        exec(code, names)
    assert names["sound"].ndim == 1
    measured = {name.partition("/")[0] for name in chain.evaluated.metrics}
    plain = {name for name in measured if not re.search("_(low|high)$", name)}
    assert named_metrics(PAGE) - ONLY_WITH_A_RECOGNISER == plain
    assert evaluate.score(chain.prepared.manifest).name in plain


@pytest.mark.long
def test_the_commands_write_a_wav_file_for_each_line(chain_of, tmp_path):
    root = copied(chain_of("voice").root, tmp_path / "project")
    (command,) = blocks(PAGE, "--set speed=0.8")
    (root / "lines.txt").write_text("ae io\nua\n")
    run(command, root)
    files = sorted((root / "spoken").rglob("*.wav"))
    assert len(files) == 2
    assert all(soundfile.info(file).frames for file in files)
