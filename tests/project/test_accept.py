"""What is accepted although it cannot be prepared is named at once."""

import shutil
import subprocess

import pytest

from components import models, tasks
from components.project import data as project_data
from tests import dvc_program
from tests.conftest import MODELS, PARAMS, TASK_OF, tiny


@pytest.fixture
def root(tmp_path):
    shutil.copyfile(PARAMS, tmp_path / "params.yaml")
    return tmp_path


def data_set(name):
    return project_data.DataSet(name, tasks.load(TASK_OF[name]), (name,))


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("digits", "cats/notes/a.txt", "cats has only folders and no images: move these folders up into"),
        ("docstrings", "paragraphs.en", "has no text: put .txt files there"),
        ("words", "yes.wav", "there are no sound files: run `pedigree data`, or put wav or flac files in"),
    ],
)
def test_files_that_no_preparation_takes_are_warned_of(root, caplog, name, file, said):
    path = root / "data" / name / file
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    project_data.warn_of_rejection(root, data_set(name))
    assert f"`pedigree run {name}` will fail: " in caplog.text
    assert said in caplog.text


@pytest.mark.parametrize("name", MODELS)
def test_files_that_can_be_prepared_are_not_warned_of(root, caplog, name):
    (root / "data" / name).mkdir(parents=True)
    tiny(name).write(root / "data" / name)
    project_data.warn_of_rejection(root, data_set(name))
    assert not [record for record in caplog.records if "will fail" in record.message]


def test_files_that_only_one_of_two_tasks_can_prepare_are_warned_of(root, caplog):
    params = root / "params.yaml"
    params.write_text(params.read_text().replace("data: words", "data: digits"))
    (root / "data" / "digits").mkdir(parents=True)
    tiny("digits").write(root / "data" / "digits")
    (data,) = (each for each in project_data.of_models(models.listed(models.read(root))) if each.name == "digits")
    assert data.models == ("digits", "words")
    project_data.warn_of_rejection(root, data)
    (warning,) = [record.message for record in caplog.records if "will fail" in record.message]
    assert warning.startswith("`pedigree run words` will fail: ")


def test_a_data_set_of_several_tasks_is_written_by_the_one_that_embeds_it(root):
    params = root / "params.yaml"
    params.write_text(params.read_text().replace("data: digits", "data: words"))
    (data,) = (each for each in project_data.of_models(models.listed(models.read(root))) if each.name == "words")
    assert data.models == ("digits", "words")
    assert data.embedded
    assert data.task.name == "spoken_words"


@pytest.mark.long
def test_the_warning_comes_with_the_pin(root, caplog, tmp_path_factory):
    (root / "data" / "docstrings").mkdir(parents=True)
    (root / "data" / "docstrings" / "paragraphs.en").write_text("mine")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    with dvc_program.without_settings(tmp_path_factory):
        dvc_program.dvc(root, "init")
        assert "pins it anew" in project_data.bring(root, data_set("docstrings"), accept=True)
    assert "`pedigree run docstrings` will fail: " in caplog.text
