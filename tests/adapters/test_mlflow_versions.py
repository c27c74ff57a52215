"""Versions carry requirements that an index has, and answer with their own code or not at all."""

import shutil
import subprocess
import sys

import mlflow
import pytest

from components.adapters import mlflow_versions
from tests.running import python


@pytest.mark.parametrize(
    ("installed", "required"), [("2.14.1+cpu", "2.14.1"), ("2.14.1", "2.14.1"), ("1.0rc1+cu130.post2", "1.0rc1")]
)
def test_a_requirement_of_a_version_has_no_local_label(tmp_path, monkeypatch, installed, required):
    info = tmp_path / f"a_dependency-{installed}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: a-dependency\nVersion: {installed}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert mlflow_versions._requirement("a-dependency") == f"a-dependency=={required}"


LOAD = """
import sys
import mlflow
for folder in sys.argv[1:]:
    try:
        mlflow.pyfunc.load_model(folder)
    except Exception as error:
        print(str(error).splitlines()[0])
    else:
        import components
        print("loaded with", components.__path__[0])
"""


@pytest.fixture
def versions(chain, tmp_path):
    """The files of one version three times; the code of the last one differs."""
    folders = [tmp_path / name for name in ("first", "same", "other")]
    downloaded = mlflow.artifacts.download_artifacts(f"models:/digits/{chain.registered.version}")
    for folder in folders:
        shutil.copytree(downloaded, folder)
    with (folders[-1] / "code/components/training/inference.py").open("a") as file:
        file.write("\n# another version's code\n")
    return folders


def loaded(tmp_path, *arguments):
    return python(tmp_path, 120, "-P", "-c", LOAD, *map(str, arguments), PYTHONPATH="").stdout.splitlines()


def test_a_process_that_has_loaded_one_version_refuses_another_ones_code_and_takes_the_same_code(
    versions, tmp_path
):
    first, same, other = versions
    said = loaded(tmp_path, first, same, other)
    assert said[:2] == [f"loaded with {first}/code/components"] * 2
    assert f"imported `components` from {first}/code/components, whose code differs from that of the" in said[2]
    assert f"version in {other}: load each version in a process of its own" in said[2]
    assert loaded(tmp_path, other) == [f"loaded with {other}/code/components"]


@pytest.mark.parametrize("own", ["components/__init__.py", pytest.param("components.py", marks=pytest.mark.long)])
def test_a_process_that_has_a_package_of_its_own_of_that_name_refuses_a_version(versions, tmp_path, own):
    (tmp_path / own).parent.mkdir(exist_ok=True)
    (tmp_path / own).write_text("")
    code = f"import components\n{LOAD}"
    done = python(tmp_path, 120, "-c", code, str(versions[0]), PYTHONPATH=str(tmp_path))
    assert "whose code differs from that of the version" in done.stdout, done.stderr


def test_a_process_that_has_imported_a_checkout_refuses_a_version_of_other_code(versions):
    """Even one whose modules the checkout's code lacks."""
    *_, other = versions
    (other / "code/components/training/model_files.py").rename(other / "code/components/training/files.py")
    code = f"import components.models\n{LOAD}"
    done = subprocess.run([sys.executable, "-c", code, str(other)], capture_output=True, text=True, check=False)
    assert "whose code differs from that of the version" in done.stdout, done.stderr
