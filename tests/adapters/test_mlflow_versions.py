"""Versions carry requirements that an index has, and answer with their own code or not at all."""

import importlib.util
import marshal
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from components.adapters import mlflow_store, mlflow_versions
from components.runtime import files
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
        shutil.copytree(downloaded, folder, ignore=shutil.ignore_patterns("__pycache__"))
    with (folders[-1] / "code/components/training/inference.py").open("a") as file:
        file.write("\n# another version's code\n")
    files.seal(folders[-1] / "code")
    return folders


def loaded(tmp_path, *arguments):
    return python(tmp_path, 120, "-P", "-c", LOAD, *map(str, arguments), PYTHONPATH="").stdout.splitlines()


def bytecode(canary: Path, what: str) -> bytes:
    """Return bytecode that leaves a file in `canary`, and that Python compares with no source (PEP 552)."""
    code = compile(f"open({str(canary / what)!r}, 'w').close()", what, "exec")
    return importlib.util.MAGIC_NUMBER + (0b01).to_bytes(4, "little") + bytes(8) + marshal.dumps(code)


def plant(version: Path, canary: Path) -> None:
    """Put beside a version's modules whatever Python could prefer to them, or to modules of libraries."""
    for source in list(version.rglob("*.py")):
        (source.parent / "__pycache__").mkdir(exist_ok=True)
        for planted in (source.parent / "__pycache__" / Path(cached(source)).name, source.with_suffix(".pyc")):
            if source.parent != version:
                planted.write_bytes(bytecode(canary, planted.name))
    for library in ("ruamel", "safetensors", "sitecustomize"):
        (version / "code" / f"{library}.pyc").write_bytes(bytecode(canary, library))
        (version / "code" / f"{library}{EXTENSION_SUFFIXES[0]}").write_bytes(b"what no loader may open")
    (version / "code" / "planted.pth").write_text(f"import pathlib; pathlib.Path({str(canary / 'pth')!r}).touch()")


def cached(source: Path) -> str:
    return importlib.util.cache_from_source(str(source))


def test_a_process_that_runs_one_versions_code_runs_no_bytecode_beside_it_and_refuses_another_versions_code(
    versions, tmp_path
):
    first, same, other = versions
    canary = tmp_path / "canary"
    canary.mkdir()
    plant(first, canary)
    (script,) = first.glob("*.py")
    with pytest.raises(OSError, match="File name too long"):
        Path(cached(script)).write_bytes(bytecode(canary, "script"))
    said = loaded(tmp_path, first, same, other)
    assert said[:2] == [f"loaded with {first}/code/components"] * 2
    assert f"imported `components` from {first}/code/components, whose code differs from that of the" in said[2]
    assert f"version in {other}: load each version in a process of its own" in said[2]
    assert not list(canary.iterdir())


@pytest.mark.long
def test_mlflows_own_commands_run_no_bytecode_that_was_put_into_the_store(chain, tmp_path):
    project, canary = tmp_path / "project", tmp_path / "canary"
    shutil.copytree(chain.root, project, ignore=shutil.ignore_patterns(".prefect"))
    canary.mkdir()
    mlflow_store.connect(project)  # which makes the copy's database name the copy's files
    mlflow_store.connect(chain.root)
    for version in (project / "mlruns" / "digits" / "models").glob("*/artifacts"):
        plant(version, canary)
        (example,) = version.glob(mlflow_versions.REQUEST)
    asked = ["-m", "models:/digits@champion", "--env-manager", "local", "-i", str(example), "-t", "json"]
    env = {"MLFLOW_TRACKING_URI": mlflow_store.store_beside(project), "PYTHONPATH": ""}
    for command in (["-m", "mlflow", "models", "predict", *asked], ["-P", "-c", LOAD, asked[1]]):
        done = python(tmp_path, 200, *command, **env)
        assert "probabilities" in done.stdout or "loaded with" in done.stdout, done.stdout + done.stderr
    assert not list(canary.iterdir())


def test_a_module_that_was_changed_or_added_after_registration_is_refused_before_it_runs(versions, monkeypatch):
    version, *_ = versions
    (script,) = version.glob("*.py")
    monkeypatch.setattr(sys, "path_hooks", [*sys.path_hooks])
    served = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location("served", script))
    spec.loader.exec_module(served)
    for module in ("components/errors.py", "ruamel.py", "components/new.py"):
        with (version / "code" / module).open("a") as file:
            file.write("\n# planted\n")
        finder = served._finder(str((version / "code" / module).parent))
        loader = finder.find_spec(Path(module).stem).loader
        with pytest.raises(MlflowException, match=rf"{module} was changed or added after the version"):
            loader.get_code(loader.name)
    assert served._finder(str(version / "code" / "components")).find_spec("weights").loader.get_code("weights")


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
    files.seal(other / "code")
    code = f"import components.models\n{LOAD}"
    done = subprocess.run([sys.executable, "-c", code, str(other)], capture_output=True, text=True, check=False)
    assert "whose code differs from that of the version" in done.stdout, done.stderr


def test_a_version_contains_no_file_that_may_hold_secrets_and_the_run_says_so(tmp_path, monkeypatch, caplog):
    source = tmp_path / "components"
    for name in ("__init__.py", "secret/__init__.py", "words.json", "prod.env", ".aws/config", "__pycache__/a.pyc"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("")
    monkeypatch.setattr(mlflow_versions, "_COMPONENTS", source)
    assert mlflow_versions._sealed_source(tmp_path / "copy")
    stored = {path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*.*")}
    assert stored == {f"components/{name}" for name in ("__init__.py", "secret/__init__.py", "words.json")}
    assert "not stored with the version, as they may hold secrets: components/.aws/config, components/prod.env" in (
        caplog.text
    )
