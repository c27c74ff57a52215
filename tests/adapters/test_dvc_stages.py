"""Stages know what they depend on: dvc.yaml names the modules and packages that each of them imports."""

import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from components import models
from components.adapters import dvc_stages
from components.errors import PedigreeError
from pipelines import prefect_yaml
from tests.conftest import PARAMS, ROOT
from tests.pipelines.test_cli import pedigree


def test_dvc_yaml_names_for_each_stage_what_it_imports_and_nothing_else():
    assert dvc_stages.differences(ROOT) == []


def test_a_package_is_one_dependency_except_for_the_stages_each_of_which_is_one():
    named = deps(ROOT, "train")
    assert {"components/training", "components/adapters", "components/stages/train.py"} <= {*named}
    assert not [name for name in named if name.startswith(("components/training/", "components/adapters/"))]
    assert not {"components/registry", "components/stages", "components/stages/register.py"} & {*named}


@pytest.fixture
def checkout(tmp_path):
    """The code and dvc.yaml alone."""
    for name in ("components", "pipelines"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "dvc.yaml", tmp_path / "dvc.yaml")
    shutil.copyfile(PARAMS, tmp_path / "params.yaml")
    (tmp_path / "prefect.yaml").write_text(prefect_yaml.text(tmp_path, models.listed(models.read(tmp_path))))
    return tmp_path


def deps(folder: Path, stage: str) -> list[str]:
    return YAML().load(folder / "dvc.yaml")["stages"][stage]["do"]["deps"]


@pytest.mark.long
def test_the_doctor_names_an_import_that_dvc_yaml_lacks_and_fix_writes_it_and_keeps_all_else(checkout):
    file, stage = checkout / "dvc.yaml", checkout / "components" / "stages" / "prepare.py"
    commented = file.read_text().replace("      params:", "      # why these\n      params:")
    commented = commented.replace("/errors.py\n", "/errors.py  # beside a name\n", 1)
    file.write_text(commented)
    code = stage.read_text()
    stage.write_text(f"{code}\n\ndef later():\n    from components import yaml_text\n    return yaml_text\n")
    said = "dvc.yaml: prepare imports components/yaml_text.py, which its deps lack: `pedigree doctor --fix`"
    done = pedigree(checkout, "doctor")
    assert (done.returncode, file.read_text()) == (1, commented)
    assert said in done.stdout
    assert pedigree(checkout, "doctor", "--fix").returncode == 0
    before, after = commented.splitlines(), file.read_text().splitlines()
    # All stages import prepare: each has one line more.
    assert [line.strip() for line in after if line not in before] == ["- components/yaml_text.py"] * 4
    assert "components/yaml_text.py" in deps(checkout, "prepare")
    assert len(after) == len(before) + 4
    stage.write_text(code)
    done = pedigree(checkout, "doctor")
    assert done.returncode == 1
    assert "prepare does not import components/yaml_text.py, which its deps name" in done.stdout
    assert pedigree(checkout, "doctor", "--fix").returncode == 0
    assert file.read_text() == commented


def test_the_doctor_says_which_model_does_not_name_its_data_and_fix_writes_the_deployments(checkout):
    file = checkout / "params.yaml"
    text = (
        file.read_text().replace("    data: words\n", "") + "\n  words-again: {task: spoken_words, data: words}\n"
    )
    file.write_text(text)
    done = pedigree(checkout, "doctor")
    line = text.splitlines().index("  words:") + 1
    said = f"params.yaml:{line}: words has no `data:`, so DVC cannot run any stage of any model: add `data: words`"
    assert done.returncode == 1
    assert said in done.stdout
    assert "prefect.yaml does not have one deployment per model: `pedigree doctor --fix` writes them" in done.stdout
    done = pedigree(checkout, "doctor", "--fix")
    assert (done.returncode, done.stdout.splitlines()) == (1, [said]), "a person's own file is theirs to edit"
    assert "entrypoint: pipelines/flow.py:model_words_again" in (checkout / "prefect.yaml").read_text()


def test_the_doctor_of_another_checkout_does_not_judge_this_one(checkout):
    done = pedigree(checkout, "doctor", PYTHONSAFEPATH="1", PYTHONPATH=str(ROOT))
    assert done.returncode == 1
    assert f"error: this `pedigree` runs the code of {ROOT}, not of {checkout}: use" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages: [", "dvc.yaml is not YAML"),
        ("", "dvc.yaml has no stages"),
        ("stages:\n", "dvc.yaml has no stages"),
        ("stages:\n  train:\n    cmd: python -m components digits train\n", "dvc.yaml: train has no `foreach`"),
        ("stages: {train: {foreach: 3, do: {deps: 5}}}\n", "dvc.yaml: train has no `foreach` with `do` and `deps`"),
        (None, "there is no dvc.yaml"),
    ],
)
def test_a_dvc_yaml_that_is_none_is_a_sentence(tmp_path, text, said):
    if text is not None:
        (tmp_path / "dvc.yaml").write_text(text)
    with pytest.raises(PedigreeError, match=said):
        dvc_stages.differences(tmp_path)
