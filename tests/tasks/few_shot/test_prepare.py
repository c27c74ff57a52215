"""Raw folders that are split by class, and folders of classes to know."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.errors import PedigreeError
from components.images.labels import class_splits
from components.tasks.few_shot import prepare


def draw(folder: Path, count: int = 3, first: int = 0) -> None:
    """Write images of noise, each another one."""
    folder.mkdir(parents=True)
    for number in range(first, first + count):
        generator = np.random.default_rng([number, *folder.as_posix().encode()])
        Image.fromarray(generator.integers(0, 256, (28, 28), np.uint8)).save(folder / f"{number}.png")


def options(chain, **changes):
    return chain.values.prepare.model_copy(update=changes)


@pytest.fixture
def chain(chain_of):
    """The small alphabets."""
    return chain_of("glyphs")


def test_classes_of_testing_are_none_of_those_of_training_and_whole_groups_are_drawn(chain, tmp_path):
    for group in "abcde":
        for name in "xyz":
            draw(tmp_path / group / name)
    survey = class_splits.survey(tmp_path, options(chain))
    groups = [{name.split("/")[0] for name in survey.folders[split]} for split in ("train", "val", "test")]
    assert set.union(*groups) == set("abcde")
    assert sum(map(len, groups)) == 5
    assert survey.drawn == "3 of 15 classes, 1 of 5 groups"
    assert survey.names[:3] == [*survey.folders["val"]], "those that the version knows come first"


def test_classes_without_groups_are_drawn_one_by_one(chain, tmp_path):
    for name in "abcdefghij":
        draw(tmp_path / name)
    survey = class_splits.survey(tmp_path, options(chain))
    assert {split: len(classes) for split, classes in survey.folders.items()} == {"train": 6, "test": 2, "val": 2}
    assert survey.drawn == "2 of 10 classes, drawn one by one"


@pytest.mark.parametrize(
    ("folders", "problem"),
    [
        (["train/a", "train/b", "train/c", "train/d", "test/a", "test/e"], "a is in train and in test"),
        (["train/a", "train/b", "train/c", "train/d", "test/e"], "test has 1 class: each split needs at least two"),
        (["a", "b", "c"], "3 classes are too few to draw test from"),
        (["train/a", "Training/b"], "are each the folder of train"),
        ([], "there are no images"),
    ],
)
def test_a_folder_that_cannot_be_split_by_class_is_one_sentence(chain, tmp_path, folders, problem):
    for folder in folders:
        draw(tmp_path / folder)
    with pytest.raises(PedigreeError, match=problem):
        class_splits.survey(tmp_path, options(chain))


def test_a_class_of_one_image_is_named(chain, tmp_path):
    for name in "abcdefgh":
        draw(tmp_path / name, count=1 + (name != "c"))
    with pytest.raises(PedigreeError, match=r"needs at least 2 images, .* and c \(1\) has fewer"):
        class_splits.survey(tmp_path, options(chain))


def test_each_class_of_validation_is_in_an_episode_once(chain):
    split = prepare.load_split(chain.prepared.folder, "val")
    labels = split.label[split.episodes]
    assert set(labels.unique().tolist()) == set(split.label.unique().tolist())
    assert (labels == labels[:, :, :1]).all(), "the images of a class are of this class"
    assert all(len(set(each)) == len(each) for each in labels[:, :, 0].tolist())
    assert all(len(set(each)) == len(each) for each in split.episodes.flatten(1).tolist())


def taught(chain, raw: Path, out: Path):
    out.mkdir()
    section = options(chain, taught=True)
    return prepare.prepare(raw, out, chain.values.model_copy(update={"prepare": section}))


def test_the_support_is_trained_on_and_the_folder_test_has_its_classes(chain, tmp_path):
    for name in "ab":
        draw(tmp_path / "raw" / "support" / name, 5)
        draw(tmp_path / "raw" / "test" / name, 2, first=5)
    manifest = taught(chain, tmp_path / "raw", tmp_path / "out")
    assert manifest.facts["classes"] == ["a", "b"]
    assert manifest.facts["known"] == 2
    assert (manifest.splits["train"].samples, manifest.splits["test"].samples) == (10, 4)
    assert not manifest.untested


def test_without_a_folder_test_the_support_is_tested_on_and_the_manifest_says_so(chain, tmp_path):
    for name in "ab":
        draw(tmp_path / "raw" / name, 3)
    manifest = taught(chain, tmp_path / "raw", tmp_path / "out")
    assert manifest.splits["test"] == manifest.splits["train"]
    assert manifest.untested == prepare.NO_TEST
    assert len(prepare.load_split(tmp_path / "out", "test")) == 6


@pytest.mark.parametrize(
    ("folders", "problem"),
    [
        (["support/a", "support/b", "test/a"], "b is in one of them alone"),
        (["support/a", "test/a"], "has 1 class to learn"),
    ],
)
def test_classes_to_learn_that_cannot_be_tested_are_one_sentence(tmp_path, folders, problem):
    for folder in folders:
        draw(tmp_path / folder)
    with pytest.raises(PedigreeError, match=problem):
        class_splits.of_support(tmp_path)
