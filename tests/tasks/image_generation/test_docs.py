"""The commands and the code of docs/tasks/image_generation.md, as they are written there."""

import json
import re
import shutil

import pytest
import torch
import torchvision
from safetensors.torch import load_file

from tests.conftest import copied
from tests.documents import blocks, metrics, page, run, train
from tests.tasks.image_generation import tiny

PAGE = page("image_generation")


def test_the_code_loads_the_weights_in_plain_torch(chain_of):
    chain = chain_of("made-digits")
    (code,) = blocks(PAGE, "load_file")
    tiny = code.replace("classes=10", "classes=4").replace("width=48", "width=8")
    tiny = tiny.replace("build/made-digits/model", str(chain.trained.folder))
    names: dict[str, object] = {}
    exec(tiny, names)
    found, expected = names["model"].state_dict(), load_file(chain.trained.folder / "weights.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_each_metric_is_on_the_page_and_each_one_of_the_page_is_measured(chain_of):
    chain = chain_of("made-digits")
    found = {re.sub("(_low|_high)?(/.*)?$", "", name) for name in chain.evaluated.metrics}
    assert metrics(PAGE) == found | {"fid"}


def test_the_request_of_the_page_has_columns_of_the_model(chain_of):
    chain = chain_of("made-digits")
    (block,) = blocks(PAGE, "curl -H")
    (row,) = json.loads(re.search("--data '(.*)'", block)[1])["dataframe_records"]
    assert row.keys() <= chain.task.served(chain.prepared.manifest, chain.values).inputs.keys()


@pytest.mark.long
def test_the_commands_train_on_own_images(project, tmp_path):
    printed = train(PAGE, "faces", tiny.write, project, tmp_path)
    assert re.search(r"^faces: frechet [\d.]+ \(version 1, champion\)$", printed, re.MULTILINE)


@pytest.mark.long
def test_the_commands_measure_fid_once_the_file_is_there(project, tmp_path):
    root = shutil.copytree(project, tmp_path / "project", ignore=shutil.ignore_patterns("build", ".prefect"))
    (block,) = blocks(PAGE, "evaluate.inception=")
    download, command = block.splitlines()
    network = torchvision.models.inception_v3(num_classes=1008, aux_logits=False, init_weights=False)
    torch.save(network.state_dict(), root / download.split()[2])  # there is no network here
    run(command, root)
    assert json.loads((root / "build/made-digits/latest/metrics.json").read_text())["fid"] > 0


@pytest.mark.long
def test_the_commands_write_the_images_that_the_page_names(chain_of, tmp_path):
    root = copied(chain_of("made-digits").root, tmp_path / "project")
    (commands,) = blocks(PAGE, "pedigree predict")
    (root / "rows.csv").write_text("class,count\n0,2\n3,\n")
    run(commands.replace('"7"', '"2"'), root)
    assert sorted(path.name for path in (root / "seven").iterdir()) == [f"stdin-1-{n}.png" for n in range(1, 5)]
    drawn = ["rows-2-1.png", "rows-2-2.png", "rows-3-1.png"]
    assert sorted(path.name for path in (root / "drawn").iterdir()) == drawn
