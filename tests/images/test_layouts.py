"""Layouts of raw images besides folders of classes: a CSV manifest, and MedMNIST's arrays."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.errors import PedigreeError
from components.images.labels import csv_manifest, layouts, medmnist
from components.images.labels.image_lists import ANY
from components.params import read, validate
from components.tasks.image_classification.params import VisionParams

OPTIONS = validate(VisionParams, read(Path(__file__).parents[1] / "params.yaml"), ("models", "digits")).prepare


def options(**changes):
    return OPTIONS.model_copy(update=changes)


def find(raw: Path, layout: str = "auto", **changes) -> layouts.Source:
    return layouts.find(raw, layout, options(**changes))


def touch(raw: Path, *files: str) -> None:
    for file in files:
        (raw / file).parent.mkdir(parents=True, exist_ok=True)
        (raw / file).write_bytes(b"not read")


def manifest(raw: Path, text: str, name: str = "manifest.csv") -> None:
    raw.mkdir(exist_ok=True)
    (raw / name).write_text(text, encoding="utf-8")


def patients(raw: Path, count: int = 20, split: str = "") -> None:
    """Write a manifest of four images of each patient, two of each class."""
    rows = [
        f"i/{patient:02d}-{index}.png,{'ab'[index % 2]},P{patient:02d},{split}"
        for patient in range(count)
        for index in range(4)
    ]
    manifest(raw, "\n".join(["path,label,patient,split", *rows]))
    touch(raw, *(row.split(",")[0] for row in rows))


def parts(source: layouts.Source) -> dict[str, list[str]]:
    survey = source.survey
    return {
        split: sorted(file for name in survey.strata for file in survey.files(split, name))
        for split in ("train", "val", "test")
    }


def given(raw: Path, *rows: str) -> None:
    """Write a manifest with two images of each class in each split, and further rows."""
    usual = [
        f"{split}{number}{label}.png,{label},{split}"
        for split in ("train", "val", "test")
        for label in "ab"
        for number in range(2)
    ]
    manifest(raw, "\n".join(["path,label,split", *usual, *rows]))
    touch(raw, *(row.split(",")[0] for row in usual))


def test_a_manifest_gives_labels_and_splits(tmp_path):
    given(tmp_path)
    source = find(tmp_path)
    assert source.format == "csv"
    assert source.survey.classes == ["a", "b"]
    assert source.survey.files("test", "b") == ["test0b.png", "test1b.png"]
    assert source.survey.drawn == ""
    assert source.contents("test0b.png") == b"not read"


def test_columns_are_found_in_any_order_and_case_and_windows_paths_are_read(tmp_path):
    rows = [f"x,{'AB'[n % 2]},sub\\{n}.png" for n in range(20)]
    manifest(tmp_path, "\n".join(["\ufeffNote, Label ,PATH", *rows]), "list.CSV")
    touch(tmp_path, *(f"sub/{n}.png" for n in range(20)))
    assert sorted(file for part in parts(find(tmp_path)).values() for file in part) == sorted(
        f"sub/{n}.png" for n in range(20)
    )


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_manifest_without_commas_is_an_error_and_not_passed_over(tmp_path, separator):
    touch(tmp_path, "a/1.png", "b/1.png")  # it could be taken for folders of classes
    manifest(tmp_path, separator.join(["path", '"label"']) + f"\r\na/1.png{separator}x\r\n")
    with pytest.raises(PedigreeError, match=r"manifest.csv:1: its columns are not separated by commas"):
        find(tmp_path)


@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_manifest_in_utf_16_is_an_error_and_not_passed_over(tmp_path, separator):
    touch(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "manifest.csv").write_text(separator.join(["path", "label"]) + "\r\n", encoding="utf-16")
    with pytest.raises(PedigreeError, match=r"manifest.csv is in UTF-16: save it as CSV in UTF-8, or set"):
        find(tmp_path)
    (tmp_path / "manifest.csv").write_text("name,size\r\n", encoding="utf-16")
    assert csv_manifest.manifests(tmp_path) == [], "it is another table"


def test_whole_patients_are_drawn_for_testing_and_validation(tmp_path):
    patients(tmp_path)
    source = find(tmp_path)
    found = {split: {file[2:4] for file in files} for split, files in parts(source).items()}
    assert all(found.values())
    assert not found["train"] & found["val"] | found["train"] & found["test"] | found["val"] & found["test"]
    assert source.survey.drawn.endswith("by 4 of 20 patients")
    other = find(tmp_path, resplit=1)
    assert parts(other)["test"] != parts(source)["test"]
    assert parts(find(tmp_path)) == parts(source)


def test_patients_are_numbered_and_not_named(tmp_path):
    patients(tmp_path)
    numbers = find(tmp_path).survey.patients
    assert set(numbers.values()) == set(range(20))
    assert {numbers[f"i/07-{index}.png"] for index in range(4)} == {numbers["i/07-0.png"]}


def test_too_few_patients_to_draw_are_an_error_and_are_not_divided(tmp_path):
    patients(tmp_path, 2)
    with pytest.raises(PedigreeError, match="the patients are too few"):
        find(tmp_path)


def test_a_patient_in_two_given_splits_is_named_by_its_lines_and_not_by_name(tmp_path):
    rows = [f"{n}.png,{'ab'[n % 2]},Secret{n // 2},{'train' if n < 9 else 'test'}" for n in range(14)]
    manifest(tmp_path, "\n".join(["path,label,patient,split", *rows]))
    touch(tmp_path, *(f"{n}.png" for n in range(14)))
    message = r"manifest.csv:10 and manifest.csv:11 are of one patient, the first in train and the other in test"
    with pytest.raises(PedigreeError, match=message) as raised:
        find(tmp_path)
    assert "Secret" not in str(raised.value)


def test_several_labels_are_separated_and_none_is_an_image_without_a_finding(tmp_path):
    cells = ["x|y", "", "y", "x;z", "z"] * 8
    manifest(tmp_path, "\n".join(["path,label", *(f"{n}.png,{cell}" for n, cell in enumerate(cells))]))
    touch(tmp_path, *(f"{n}.png" for n in range(40)))
    survey = find(tmp_path).survey
    assert (survey.several, survey.strata, survey.classes) == (True, [ANY], ["x", "y", "z"])
    labels = {split: survey.labels_of(split) for split in ("train", "val", "test")}
    together = labels["train"] | labels["val"] | labels["test"]
    assert [together[f"{n}.png"] for n in range(5)] == [("x", "y"), (), ("y",), ("x", "z"), ("z",)]


@pytest.mark.parametrize(
    ("row", "file", "reason"),
    [
        ("gone.png,a,train", "gone.png", "there is no such file: manifest.csv names it in line 14"),
        ("../out.png,a,train", "../out.png", "outside the folder: manifest.csv names it in line 14"),
        ("/etc/passwd,a,train", "/etc/passwd", "outside the folder: manifest.csv names it in line 14"),
        ("C:\\x.png,a,train", "C:/x.png", "outside the folder: manifest.csv names it in line 14"),
        (".git/x.png,a,train", ".git/x.png", "a hidden file: manifest.csv names it in line 14"),
        (f"{'x' * 300}.png,a,train", f"{'x' * 300}.png", "there is no such file: manifest.csv names it in line 14"),
        (",a,train", "manifest.csv:14", "not the path of a file: manifest.csv names it in line 14"),
        ("manifest.csv,,train", "manifest.csv", "it has no label: manifest.csv names it in line 14"),
    ],
)
def test_a_row_that_cannot_be_used_is_rejected_with_its_line(tmp_path, row, file, reason):
    raw = tmp_path / "raw"
    touch(tmp_path, "out.png")
    given(raw, row)
    assert find(raw).survey.strays == {file: reason}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["train0a.png,a,train"], "manifest.csv:14: train0a.png is already in manifest.csv:2: remove one of them"),
        (["x.png,a,later"], "manifest.csv:14: later is no split: write one of train, val, test"),
        (["x.png,a,"], "some images have no split: manifest.csv:14"),
        (["x.png,c,test"], "test has labels that train lacks: c .such as in manifest.csv:14."),
        (["x.png,c,train"], "test lacks labels that train has: c"),
        (["x.png,a,train,more"], "manifest.csv:14: 4 cells under 3 columns"),
        (['"x.png,a,train'], "manifest.csv:14: this is not CSV"),
        (["x.png,,train", "x.png,a,train"], "manifest.csv:15: x.png is already in manifest.csv:14"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_an_error_with_the_line(tmp_path, rows, message):
    given(tmp_path, *rows)
    touch(tmp_path, "x.png")
    with pytest.raises(PedigreeError, match=message):
        find(tmp_path)


def test_a_manifest_that_is_not_utf_8_or_has_a_column_twice_is_an_error(tmp_path):
    (tmp_path / "m.csv").write_bytes(b"path,label\ncaf\xe9.png,a\n")
    with pytest.raises(PedigreeError, match="byte 14 is not UTF-8"):
        find(tmp_path)
    (tmp_path / "m.csv").write_bytes(b"path,label,Label\nx.png,a,b\n")
    with pytest.raises(PedigreeError, match="two columns are called label"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([], "it has no rows below its first line"),
        (["x.png,a", "y.png,b"], "x.png: there is no such file: m.csv names it in line 2"),
    ],
)
def test_a_manifest_that_names_no_image_is_an_error_with_the_first_reason(tmp_path, rows, why):
    manifest(tmp_path, "\n".join(["path,label", *rows]), "m.csv")
    with pytest.raises(
        PedigreeError, match=rf"m\.csv names no image that can be used \({why}\): name images by their"
    ):
        find(tmp_path)


def test_files_that_the_manifest_does_not_name_are_ignored_and_listed(tmp_path):
    given(tmp_path)
    touch(tmp_path, "more/extra.png", "LICENSE")
    assert find(tmp_path).survey.ignored == ["more/extra.png"]


def arrays(**changes) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    found = {}
    for split, count in (("train", 12), ("val", 4), ("test", 5)):
        found[f"{split}_images"] = random.integers(0, 256, (count, 28, 28), np.uint8)
        found[f"{split}_labels"] = np.arange(count, dtype=np.uint8) % 2
    return {name: array for name, array in (found | changes).items() if array is not None}


def save(raw: Path, name: str = "some.npz", **changes) -> Path:
    np.savez_compressed(raw / name, **arrays(**changes))
    return raw


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_medmnists_arrays_are_read_in_their_splits(tmp_path, shape):
    labels = {name: array.reshape(shape) for name, array in arrays().items() if name.endswith("labels")}
    source = find(save(tmp_path, **labels))
    assert source.format == "npz"
    assert source.survey.classes == ["0", "1"]
    assert parts(source)["test"] == [f"test/{index:07d}" for index in range(5)]
    with Image.open(io.BytesIO(source.contents("test/0000003"))) as picture:
        assert np.array_equal(np.asarray(picture), arrays()["test_images"][3])
    assert source.peek("test/0000003", 64) == (True, 28)


def test_colours_and_several_labels_are_told_by_the_shapes(tmp_path):
    random = np.random.default_rng(0)
    changes = {}
    for split, count in (("train", 12), ("val", 4), ("test", 5)):
        changes[f"{split}_images"] = random.integers(0, 256, (count, 30, 28, 3), np.uint8)
        changes[f"{split}_labels"] = np.eye(14, dtype=np.uint8)[np.arange(count)]
    source = find(save(tmp_path, **changes))
    assert source.peek("train/0000000", 64) == (False, 28)
    assert source.survey.several
    assert source.survey.labels_of("test")["test/0000003"] == ("3",)
    assert source.survey.classes == [str(index) for index in range(12)], "as numbers, not as words"


def test_splits_that_the_arrays_lack_are_drawn(tmp_path):
    lacking = dict.fromkeys(("val_images", "val_labels", "test_images", "test_labels"))
    source = find(save(tmp_path, **lacking))
    assert {split: len(files) for split, files in parts(source).items()} == {"train": 8, "val": 2, "test": 2}
    assert "2 of 12 images, the same share of each class" in source.survey.drawn


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train_images": None, "train_labels": None},
            r"has no train_images and train_labels, .*: it has test_images, test_labels",
        ),
        ({"test_images": None}, "has test_labels but no test_images: add it"),
        ({"test_labels": None}, "has test_images but no test_labels: add it"),
        (
            {"val_labels": np.array([0, 1, None, "x"], object)},
            "val_labels holds Python objects, which are not loaded",
        ),
        ({"val_labels": np.zeros(3, np.uint8)}, "val_labels is uint8 .3,. beside 4 images"),
        ({"val_labels": np.zeros(4)}, "val_labels is float64"),
        ({"val_labels": np.zeros((4, 3), np.uint8)}, "different numbers of columns"),
        ({"test_images": np.zeros((5, 28, 28), np.float32)}, "test_images is float32 .5, 28, 28."),
        ({"test_images": np.zeros((5, 0, 28), np.uint8)}, "test_images is uint8 .5, 0, 28."),
        ({"train_images": np.array([{}] * 12, object)}, "train_images is object"),
    ],
)
def test_arrays_of_another_form_are_named(tmp_path, changes, message):
    with pytest.raises(PedigreeError, match=message):
        find(save(tmp_path, **changes))


def test_labels_in_several_columns_are_0_or_1(tmp_path):
    labels = {f"{split}_labels": np.full((n, 2), 2) for split, n in (("train", 12), ("val", 4), ("test", 5))}
    with pytest.raises(PedigreeError, match="must be 0 or 1"):
        find(save(tmp_path, **labels))


def test_a_damaged_file_of_arrays_is_named(tmp_path):
    (tmp_path / "some.npz").write_bytes(b"no archive")
    with pytest.raises(PedigreeError, match="is not an npz file, or is damaged"):
        find(tmp_path)
    data = (save(tmp_path) / "some.npz").read_bytes()
    (tmp_path / "some.npz").write_bytes(data[:800] + os.urandom(400) + data[1200:])
    with pytest.raises(PedigreeError, match="damaged"):
        medmnist._array(tmp_path / "some.npz", "train_images")


def test_two_layouts_in_one_folder_are_an_error_until_one_is_chosen(tmp_path):
    given(tmp_path)
    save(tmp_path)
    with pytest.raises(PedigreeError, match=r"has two layouts: the manifest manifest.csv and the arrays some.npz"):
        find(tmp_path)
    assert find(tmp_path, "csv").format == "csv"
    assert find(tmp_path, "npz").survey.classes == ["0", "1"]
    save(tmp_path, "other.npz")
    with pytest.raises(PedigreeError, match=r"several npz files: other.npz, some.npz"):
        find(tmp_path, "npz")


def test_a_layout_that_is_chosen_must_be_there(tmp_path):
    touch(tmp_path, "a/1.png")
    for layout, what in (("csv", "no CSV file with the columns path and label"), ("npz", "no npz file")):
        with pytest.raises(PedigreeError, match=what):
            find(tmp_path, layout)


def test_class_folders_beside_other_files_stay_class_folders(tmp_path):
    for split in ("train", "test"):
        touch(tmp_path, f"{split}/a/1.png", f"{split}/b/1.png")
    manifest(tmp_path, "name,size\n1.png,3\n", "sizes.csv")
    save(tmp_path)
    source = find(tmp_path)
    assert source.format == "folders"
    assert set(source.survey.strays) == {"sizes.csv", "some.npz"}
