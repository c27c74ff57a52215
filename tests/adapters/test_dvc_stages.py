"""Stages know what they depend on: dvc.yaml names exactly the modules that each of them imports."""

import shutil
from pathlib import Path

import grimp
import pytest
from ruamel.yaml import YAML

from components.adapters import dvc_stages
from components.errors import PedigreeError
from tests.conftest import ROOT
from tests.pipelines.test_cli import pedigree


def test_dvc_yaml_names_for_each_stage_exactly_the_modules_that_it_imports():
    assert dvc_stages.differences(ROOT) == []


@pytest.fixture
def checkout(tmp_path):
    """The code and dvc.yaml alone."""
    for name in ("components", "pipelines"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def deps(folder: Path, stage: str) -> list[str]:
    return YAML().load(folder / "dvc.yaml")["stages"][stage]["do"]["deps"]


def test_the_doctor_names_an_import_that_dvc_yaml_lacks_and_fix_writes_it_and_keeps_all_else(checkout):
    file, stage = checkout / "dvc.yaml", checkout / "components" / "stages" / "prepare.py"
    commented = file.read_text().replace("      params:", "      # why these\n      params:")
    commented = commented.replace("/dvc_data.py\n", "/dvc_data.py  # beside a name\n", 1)
    file.write_text(commented)
    code = stage.read_text()
    stage.write_text(f"{code}\n\ndef later():\n    from components.trust import bootstrap\n    return bootstrap\n")
    said = "dvc.yaml: prepare imports components/trust/bootstrap.py, which its deps lack: `pedigree doctor --fix`"
    told = pedigree(checkout, "doctor")
    assert (told.returncode, file.read_text()) == (1, commented)
    assert said in told.stdout
    assert pedigree(checkout, "doctor", "--fix").returncode == 0
    before, after = commented.splitlines(), file.read_text().splitlines()
    # Only the stages in whose imports it was not: each has one line more.
    assert [line for line in after if line not in before] == []
    assert "components/trust/bootstrap.py" in deps(checkout, "prepare")
    assert len(after) == len(before) + 2, "prepare, and train, which imports prepare"
    stage.write_text(code)
    told = pedigree(checkout, "doctor")
    assert told.returncode == 1
    assert "prepare imports no components/trust/bootstrap.py, which its deps name" in told.stdout
    assert pedigree(checkout, "doctor", "--fix").returncode == 0
    assert file.read_text() == commented


def test_the_doctor_of_another_checkout_does_not_judge_this_one(checkout):
    told = pedigree(checkout, "doctor", PYTHONSAFEPATH="1", PYTHONPATH=str(ROOT))
    assert told.returncode == 1
    assert f"error: this `pedigree` runs the code of {ROOT}, and not of {checkout}: use" in told.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages: [", "dvc.yaml is not YAML"),
        ("", "dvc.yaml has no stages"),
        ("stages:\n", "dvc.yaml has no stages"),
        ("stages:\n  train:\n    cmd: python -m components vision train\n", "dvc.yaml: train has no `foreach`"),
        (None, "there is no dvc.yaml"),
    ],
)
def test_a_dvc_yaml_that_is_none_is_a_sentence(tmp_path, text, said):
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    if text is not None:
        (tmp_path / "dvc.yaml").write_text(text)
    with pytest.raises(PedigreeError, match=said):
        dvc_stages.differences(tmp_path)


def test_a_package_runs_before_what_is_in_it_and_what_it_imports_too():
    graph = grimp.ImportGraph()
    packages = ("components", "components.a", "components.b", "components.c", "components.d")
    for name in (*packages, "components.a.deep", "components.b.deep"):
        graph.add_module(name)
    graph.add_import(importer="components.a.deep", imported="components.b.deep")
    graph.add_import(importer="components.b", imported="components.c")
    found = dvc_stages.imported(["components.a.deep"], graph)
    assert found == {*packages[:4], "components.a.deep", "components.b.deep"}
