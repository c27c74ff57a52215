"""Damage to each kind of file, and changes that would otherwise give wrong results."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.adapters import mlflow_store, mlflow_versions
from components.errors import DamagedError, PedigreeError
from components.registry import promote, trace
from components.stages import evaluate, prepare, register, train
from tests.chaos import corruption


@pytest.mark.long
def test_damage_to_any_file_is_noticed_or_changes_nothing(chain):
    assert corruption.inject(chain, len(corruption.targets(chain)), seed=1).failures == []


@pytest.fixture(scope="module")
def shared(chain):
    with corruption.copied(chain.root) as root:
        yield root


@pytest.fixture
def copy(chain, shared):
    mlflow_store.connect(shared)
    yield shared
    mlflow_store.connect(chain.root)


@pytest.fixture
def database(chain, copy):
    """The database of a separate copy, which no process has open."""
    with corruption.copied(copy) as root:
        yield root / "mlflow.db"


@pytest.fixture
def change():
    """Replace the first match in a file by other bytes for one test; the file can still be parsed."""
    before = {}

    def put(path, old, new):
        before[path] = path.read_bytes()
        changed = re.sub(old, new, before[path], count=1)
        assert changed != before[path]
        path.unlink()
        path.write_bytes(changed)

    yield put
    for path, content in before.items():
        path.write_bytes(content)


def stages(chain, root):
    """Return what training, evaluation and registration do with the folders of a copy."""
    folder = root / "build" / f"{chain.model.name}-chain"
    model, out = replace(chain.model, root=root), root / "build" / "again"

    def prepared():
        return prepare.load(folder / "prepared")

    def trained():
        return train.load(folder / "model")

    return {
        "train": lambda: train.train(model, prepared(), out),
        "evaluate": lambda: evaluate.evaluate(model, prepared(), trained(), out),
        "register": lambda: register.register(
            model, prepared(), trained(), evaluate.load(folder / "evaluation"), out
        ),
    }


@pytest.mark.parametrize(
    ("stage", "file", "old", "new"),
    [
        ("train", "prepared/train.images.npy", rb"\x00(?=[^\x00]{3})", b"\x01"),
        ("train", "prepared/manifest.json", rb'"mean": \[\s+0.1', b'"mean": [0.2'),
        ("evaluate", "prepared/test.labels.npy", rb"\x01\x00{7}$|\x02\x00{7}", b"\x03" + bytes(7)),
        ("evaluate", "model/model.json", rb'"std":\s*\[\s+0', b'"std": [1'),
        ("evaluate", "model/history.csv", rb"0\.", b"1."),
        ("register", "evaluation/metrics.json", rb'"accuracy": \d', b'"accuracy": 7'),
        ("register", "evaluation/examples/outcomes.csv", rb",0\.0\r\n", b",1.0\r\n"),
        ("register", "model/lineage.json", rb'"seed": 0', b'"seed": 1'),
    ],
)
def test_a_value_that_became_another_one_is_no_result_but_a_sentence(chain, copy, change, stage, file, old, new):
    change(copy / "build" / f"{chain.model.name}-chain" / file, old, new)
    with pytest.raises(DamagedError, match=rf"{file} is damaged or missing, .*: run the \w+ stage again"):
        stages(chain, copy)[stage]()


def test_a_changed_number_among_a_versions_files_is_noticed_and_traced(chain, copy, change):
    version = MlflowClient().get_model_version("digits", str(chain.registered.version))
    (metrics,) = (copy / "mlruns").glob(f"digits/models/{Path(version.source).name}/**/artifacts/metrics.json")
    change(metrics, rb'"accuracy": \d', b'"accuracy": 7')
    version = mlflow_versions.find(f"digits/{chain.registered.version}")
    with pytest.raises(
        DamagedError, match=r"the files of digits version \d+ .* differ from those that were registered"
    ):
        mlflow_versions.fetch(version, copy / "build" / "fetched")
    (weights,) = [part for part in trace.trace("digits", copy).parents if part.what == "weights"]
    assert weights.where == trace.DAMAGED


def test_bytecode_that_mlflow_left_beside_a_versions_code_is_no_damage_and_is_not_run(chain, copy):
    version = MlflowClient().get_model_version("digits", str(chain.registered.version))
    (code,) = (copy / "mlruns").glob(f"digits/models/{Path(version.source).name}/**/code/components/training")
    (code / "__pycache__" / "__pycache__").mkdir(parents=True, exist_ok=True)
    (code / "__pycache__" / "model_files.cpython-311.pyc").write_bytes(b"what Python would run")
    version = mlflow_versions.find(f"digits/{chain.registered.version}")
    fetched = mlflow_versions.fetch(version, copy / "build" / "fetched")
    assert (fetched / "code" / "components" / "training" / "model_files.py").is_file()
    assert not list(fetched.rglob("__pycache__"))


def test_a_changed_digit_in_a_versions_lineage_is_noticed(database):
    content = database.read_bytes()
    assert b'"seed":0' in content
    database.write_bytes(content.replace(b'"seed":0', b'"seed":1'))
    mlflow_store.connect(database.parent)
    with pytest.raises(DamagedError, match=r"the tags of digits version \d+ in MLflow's database are damaged"):
        trace.lineage_of(mlflow_versions.find("digits"))


def test_a_changed_digit_in_the_list_of_promotions_is_noticed(database):
    content = database.read_bytes()
    assert b'"steps": [{"version": 1' in content
    database.write_bytes(content.replace(b'"steps": [{"version": 1', b'"steps": [{"version": 2'))
    mlflow_store.connect(database.parent)
    with pytest.raises(DamagedError, match="the record of digits's promotions in MLflow's database is damaged"):
        promote.rollback("digits", "a digit", database.parent)


def test_a_database_that_was_emptied_is_not_taken_for_a_new_one(database):
    database.write_bytes(b"")
    with pytest.raises(PedigreeError, match=r"mlflow\.db is empty, and mlruns beside it holds files"):
        mlflow_store.connect(database.parent)
