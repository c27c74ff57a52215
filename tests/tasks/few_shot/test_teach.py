"""A version that is taught new classes: by which images, with which verdict, and made again."""

import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from components.adapters import dvc_data, mlflow_store, mlflow_versions
from components.errors import PedigreeError
from components.images.embedded.glyphs import write_glyphs
from components.registry import reproduce, teach, trace
from components.stages import evaluate
from tests.conftest import commit, copied

GEORGIAN = {"georgian": (0x10D0, 0x10D3)}


def write_letters(folder: Path, test: bool = True) -> Path:
    """Write four letters of another alphabet, five images of each to know them by, and three to test."""
    write_glyphs(folder.with_name(f"{folder.name}-drawn"), {"all": GEORGIAN}, 8)
    for file in sorted(folder.with_name(f"{folder.name}-drawn").rglob("*.bmp")):
        part = "support" if int(file.stem) < 5 else "test"
        if part == "support" or test:
            target = folder / part / file.parent.name / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return folder


@pytest.fixture(scope="module")
def taught(project, chain_of, tmp_path_factory) -> Path:
    """A project with a trained version, taught letters without tests in version 2, and with tests in version 3."""
    chain_of("glyphs")
    root = copied(project, tmp_path_factory.mktemp("teach") / "project")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=root, check=True)
    commit(root, "A project with a trained version")
    mlflow_store.connect(root)
    # A champion would answer in a process of its own, which takes seconds.
    mlflow.MlflowClient().delete_registered_model_alias("glyphs", mlflow_versions.CHAMPION)
    teach.teach("glyphs/1", write_letters(root.with_name("untested"), test=False), root)
    teach.teach("glyphs/2", write_letters(root.with_name("letters")), root)
    return root


def test_a_taught_version_knows_the_new_classes_and_is_made_of_the_trained_version_and_the_pinned_folder(taught):
    mlflow_store.connect(taught)
    version = mlflow_versions.find("glyphs/3")
    ancestry = trace.lineage_of(version)
    assert ancestry.sources["train.init.from"].exact == "models:/glyphs/1", "although version 2 was named"
    assert ancestry.sources["train.init.from"].sha256 == trace.lineage_of(mlflow_versions.find("glyphs/1")).weights
    assert (ancestry.data.name, ancestry.data.pinned) == ("letters", dvc_data.pinned(taught, "letters"))
    model = mlflow.pyfunc.load_model("models:/glyphs/3")
    image = next((taught.with_name("letters") / "test").rglob("*.bmp")).read_bytes()
    (answer,) = pd.DataFrame(model.predict(pd.DataFrame([{"image": image}]))).to_dict("records")
    assert set(answer["probabilities"]) == {"10d0-an", "10d1-ban", "10d2-gan", "10d3-don"}


def test_the_gate_demands_what_evaluation_found_for_so_many_classes(taught):
    mlflow_store.connect(taught)
    parent = mlflow_versions.files_of(mlflow_versions.find("glyphs/1"), taught / "build" / "parent")
    metrics = evaluate.read_metrics(parent.metrics)
    gate = trace.lineage_of(mlflow_versions.find("glyphs/3")).params["register"]["gate"]
    assert (
        metrics["accuracy/5-way 5-shot"] <= gate["at_least"]["accuracy"] + 0.03 <= metrics["accuracy/2-way 5-shot"]
    )


def test_without_images_to_test_on_a_version_stays_challenger_and_says_why(taught):
    mlflow_store.connect(taught)
    version = mlflow_versions.find("glyphs/2")
    assert "there is no folder test" in version.tags[mlflow_versions.REASON]
    assert mlflow_versions.aliases("glyphs").get(mlflow_versions.CHAMPION) != 2


def test_what_cannot_be_taught_is_one_sentence_and_changes_nothing(taught, tmp_path):
    mlflow_store.connect(taught)
    before = (taught / dvc_data.PIN).read_text()
    (tmp_path / "empty").mkdir()
    with pytest.raises(PedigreeError, match="is not a folder with files"):
        teach.teach("glyphs/1", tmp_path / "empty", taught)
    (tmp_path / "one" / "a").mkdir(parents=True)
    shutil.copyfile(next(taught.with_name("letters").rglob("*.bmp")), tmp_path / "one" / "a" / "1.bmp")
    with pytest.raises(PedigreeError, match="has 1 class to learn"):
        teach.teach("glyphs/1", tmp_path / "one", taught)
    other = tmp_path / "glyphs"
    shutil.copytree(taught.with_name("letters"), other)
    with pytest.raises(PedigreeError, match=r"data/glyphs has other files than .* is the data set of a model"):
        teach.teach("glyphs/1", other, taught)
    (taught / "data" / "letters" / "more").write_text("not in DVC's cache")
    shutil.copytree(taught.with_name("untested"), tmp_path / "letters")
    with pytest.raises(PedigreeError, match=r"data/letters has other files than .* would be lost"):
        teach.teach("glyphs/1", tmp_path / "letters", taught)
    (taught / "data" / "letters" / "more").unlink()
    assert (taught / dvc_data.PIN).read_text() == before


@pytest.mark.long
def test_a_taught_version_is_made_again_to_the_last_bit(taught, tmp_path):
    mlflow_store.connect(taught)
    assert reproduce.reproduce("glyphs/3", taught, here=True).verdict == "identical"
