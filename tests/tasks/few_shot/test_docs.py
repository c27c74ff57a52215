"""The commands, the code and the metrics of docs/tasks/few_shot.md, as they are written there."""

import json
import re
import shutil
from contextlib import chdir

import pytest
import torch

from components import models
from components.images.embedded import glyphs
from components.tasks.few_shot import TASK, model, prepare
from components.training import model_files
from tests.conftest import ROOT, copied
from tests.documents import blocks, page, run
from tests.documents import metrics as named_metrics
from tests.tasks.few_shot.test_teach import write_letters

PAGE = page("few_shot")


def test_the_page_names_the_alphabets_of_testing_and_the_profile():
    named = re.search(r"five\s\(([^)]*)\)", PAGE)[1]
    assert [name.lower() for name in re.split(r",\s", named)] == [*glyphs.ALPHABETS["test"]]
    assert f"{glyphs.IMAGES} images of each" in PAGE
    assert models.profile(ROOT, "omniglot").task == TASK.name
    assert "profile `omniglot`" in re.sub(r"\s+", " ", PAGE)


def test_the_code_makes_the_embeddings_of_the_trained_network_and_the_table_names_its_metrics(chain_of, tmp_path):
    chain = chain_of("glyphs")
    shutil.copytree(chain.trained.folder, tmp_path / "build" / "glyphs" / "model")
    (code,) = blocks(PAGE, "load_file")
    width = chain.values.train.model.width
    names = {"torch": torch}
    with chdir(tmp_path):
        exec(code.replace("64", str(width)), names)
    network = model.network(model_files.rebuild(chain.task, chain.trained.folder))
    images = prepare.load_split(chain.prepared.folder, "test").image[:4]
    with torch.inference_mode():
        torch.testing.assert_close(names["network"](network.normalize(images)).flatten(1), network(images))
    measured = {name.partition("/")[0] for name in chain.evaluated.metrics}
    assert named_metrics(PAGE) == {name for name in measured if not re.search("_(low|high)$", name)}


@pytest.mark.long
def test_the_commands_answer_and_teach_in_the_form_of_the_page(chain_of, tmp_path):
    chain = chain_of("glyphs")
    root = copied(chain.root, tmp_path / "project")
    (command,) = blocks(PAGE, "--format json")
    file = next(iter(sorted((root / "data" / "glyphs").rglob("*.bmp")))).relative_to(root)
    answer = json.loads(run(re.sub(r"data/\S+", str(file), command), root))
    (example,) = blocks(PAGE, '"probability"')
    assert {*answer} == {*re.findall(r'"(\w+)": ', example)}
    run("git init -q && dvc init -q", root)
    letters = write_letters(tmp_path / "letters")
    (teach,) = (block for block in blocks(PAGE, "pedigree teach") if block.count("\n") == 1)
    printed = run(teach.replace("FOLDER", str(letters)), root)
    assert "glyphs: accuracy" in printed
