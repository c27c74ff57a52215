import json
import logging
import os
import re
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.contracts import Manifest
from components.datasets.ingest import file_names
from components.errors import PedigreeError
from components.images.decoding.decode import decode
from components.images.labels import folders
from components.params import read, validate
from components.runtime import progress
from components.tasks.image_classification.params import VisionParams
from components.tasks.image_classification.prepare import VisionFacts, load_split, prepare

USUAL = validate(VisionParams, read(Path(__file__).parents[2] / "params.yaml"), ("models", "digits"))


def params(**prepare_params) -> VisionParams:
    return USUAL.model_copy(update={"prepare": USUAL.prepare.model_copy(update=prepare_params)})


def picture(seed: int, size: tuple[int, int] = (28, 28), mode: str = "L") -> Image.Image:
    shape = size[::-1] if mode == "L" else (*size[::-1], len(mode))
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


@pytest.fixture
def raw(tmp_path) -> Path:
    """Two classes with ten images each for training and three for testing, all different."""
    folder = tmp_path / "raw"
    for number, (split, name, index) in enumerate(
        (split, name, index)
        for split, count in (("train", 10), ("test", 3))
        for name in ("cat", "dog")
        for index in range(count)
    ):
        path = folder / split / name / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    return folder


@pytest.fixture
def run(raw, tmp_path) -> Callable[..., Manifest]:
    """Prepare `raw` into an empty tmp_path/out; every file may be rejected."""

    def run(**prepare_params) -> Manifest:
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return prepare(raw, out, params(**{"max_rejected": 0.9} | prepare_params))

    return run


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def reasons(manifest: Manifest) -> dict[str, str]:
    return {rejection.file: rejection.reason for rejection in manifest.rejected}


def facts(manifest: Manifest) -> VisionFacts:
    return VisionFacts.model_validate(manifest.facts)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_row_is_the_image_that_its_file_name_says_with_its_folders_label(raw, run, out):
    manifest = run()
    names = {split: file_names(out, split) for split in ("train", "val", "test")}
    for split, files in names.items():
        data = load_split(out, split)
        assert len(data["image"]) == len(data["label"]) == len(files) == manifest.splits[split].samples
        for image, label, file in zip(data["image"], data["label"], files, strict=True):
            assert np.array_equal(image, decode((raw / file).read_bytes(), 28, 1, 64))
            assert facts(manifest).classes[label] == Path(file).parent.name
    every = [file for files in names.values() for file in files]
    assert sorted(every) == sorted(str(path.relative_to(raw)) for path in raw.rglob("*.png"))


def test_validation_takes_the_same_share_of_each_class_and_at_least_one_image(run, out):
    assert facts(run(val_share=0.3)).counts == {
        "test": {"cat": 3, "dog": 3},
        "val": {"cat": 3, "dog": 3},
        "train": {"cat": 7, "dog": 7},
    }
    assert facts(run(val_share=0.001)).counts["val"] == {"cat": 1, "dog": 1}


def test_another_seed_takes_other_images_for_validation(run, out):
    chosen = set()
    for seed in range(5):
        run(seed=seed, val_share=0.3)
        chosen.add(tuple(file_names(out, "val")))
    assert len(chosen) == 5


def test_an_image_that_is_added_hardly_moves_others_into_validation(raw, run, out):
    run(val_share=0.3)
    before = set(file_names(out, "val"))
    picture(999).save(raw / "train/cat/00.png")
    run(val_share=0.3)
    assert len(before - set(file_names(out, "val"))) <= 1


def test_of_each_class_so_many_images_are_trained_on_and_validated_with_and_all_are_tested(raw, run, out):
    some = run(per_class=4, val_share=0.25)
    assert {name: part.samples for name, part in some.splits.items()} == {"test": 6, "val": 2, "train": 6}
    names = {split: file_names(out, split) for split in ("val", "train")}
    run(per_class=6, val_share=0.25)
    more = {file for split in names for file in file_names(out, split)}
    assert {*names["val"], *names["train"]} < more, "more images are the same ones and others"
    for name in ("cat", "dog"):
        shutil.copytree(raw / "test" / name, raw / "val" / name)
        for number, file in enumerate(sorted((raw / "val" / name).iterdir())):
            picture(1000 + number + 10 * (name == "dog")).save(file)
    with_val = run(per_class=4)
    assert {name: part.samples for name, part in with_val.splits.items()} == {"test": 6, "val": 6, "train": 8}


def test_a_val_folder_is_taken_as_it_is(raw, run, out):
    (raw / "val/cat").mkdir(parents=True)
    (raw / "train/cat/0.png").rename(raw / "val/cat/0.png")
    assert facts(run()).counts["val"] == {"cat": 1, "dog": 0}
    assert file_names(out, "val") == ["val/cat/0.png"]
    assert len(file_names(out, "train")) == 19


@pytest.mark.parametrize("name", ["valid", "validation", "dev", "Val", "VALIDATION"])
def test_a_folder_of_validation_is_taken_under_each_of_its_usual_names(raw, run, out, name):
    (raw / name / "cat").mkdir(parents=True)
    (raw / "train/cat/0.png").rename(raw / name / "cat/0.png")
    assert facts(run()).counts["val"] == {"cat": 1, "dog": 0}
    assert file_names(out, "val") == [f"{name}/cat/0.png"]


def test_folders_of_splits_are_taken_in_any_case(raw, run, out):
    (raw / "train").rename(raw / "Training")
    (raw / "test").rename(raw / "TEST")
    assert facts(run()).counts["test"] == {"cat": 3, "dog": 3}
    assert file_names(out, "train")[0].startswith("Training/cat/")


@pytest.mark.parametrize(("one", "two", "split"), [("dev", "val", "val"), ("Test", "testing", "test")])
def test_two_folders_of_one_split_are_an_error_that_names_both(raw, run, one, two, split):
    (raw / "test").rename(raw / one)
    shutil.copytree(raw / one, raw / two)
    with pytest.raises(
        PedigreeError, match=rf"raw/{one} and .*raw/{two} are each the folder of {split}: put their"
    ):
        run()


def test_a_folder_that_is_no_split_is_named_as_not_read(raw, run):
    shutil.copytree(raw / "test", raw / "unlabelled")
    assert reasons(run()) == {"unlabelled": "a folder that is no split, so that nothing in it is read"}


@pytest.mark.parametrize("flat", [False, True])
def test_files_beside_the_folders_are_named_as_not_read_and_those_about_the_images_as_ignored(raw, run, flat):
    if flat:
        (raw / "train").rename(raw.parent / "classes")
        shutil.rmtree(raw)
        (raw.parent / "classes").rename(raw)
    for name in ("train.zip", "labels.csv", "README.md", "LICENSE", "licence.txt"):
        (raw / name).write_text("beside")
    os.mkfifo(raw / "pipe")
    manifest = run()
    assert reasons(manifest) == dict.fromkeys(["labels.csv", "pipe", "train.zip"], "outside the class folders")
    assert manifest.ignored == ["LICENSE", "README.md", "licence.txt"]


NFC, NFD = "caf\u00e9", "cafe\u0301"


def test_a_class_in_two_spellings_of_unicode_is_one_class(raw, run, out):
    (raw / "train/cat").rename(raw / "train" / NFD)
    (raw / "test/cat").rename(raw / "test" / NFC)
    assert facts(run()).counts["test"] == {NFC: 3, "dog": 3}
    assert facts(run()).classes == [NFC, "dog"]
    assert file_names(out, "test")[0] == f"test/{NFC}/0.png"
    assert file_names(out, "train")[0].startswith(f"train/{NFD}/")


@pytest.mark.parametrize(
    ("names", "shown"), [((NFC, NFD), r"'cafe\\u0301' and 'caf\\xe9'"), (("cow", "cow "), r"'cow' and 'cow '")]
)
def test_two_folders_of_one_class_are_an_error_that_shows_how_they_differ(raw, run, names, shown):
    for name in names:
        copy("train/cat", f"train/{name}")(raw)
    with pytest.raises(PedigreeError, match=rf"raw/train: the folders {shown} have the same name but"):
        run()


@pytest.mark.parametrize("name", ["cat ", "Cat"])
def test_names_that_hardly_differ_between_splits_are_quoted(raw, run, name):
    (raw / "train/cat").rename(raw / "train" / name)
    with pytest.raises(PedigreeError, match=rf"raw/train lacks: 'cat' \(there is '{name}'\): add"):
        run()


def test_the_same_files_give_the_same_bytes_whatever_their_order_on_the_disk(raw, run, out, tmp_path):
    (raw / "train/cat/broken.png").write_bytes(b"")
    first, written = run(), contents(out)
    paths = sorted((path for path in raw.rglob("*.png")), key=lambda path: path.name, reverse=True)
    for path in paths:
        copy = tmp_path / "copy" / path.relative_to(raw)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    shutil.rmtree(raw)
    (tmp_path / "copy").rename(raw)
    assert run() == first
    assert contents(out) == written
    assert sorted(written) == sorted(
        f"{split}.{what}"
        for split in ("train", "val", "test")
        for what in ("images.npy", "labels.npy", "files.txt")
    )


def test_a_splits_hash_changes_with_its_pixels_and_with_its_labels_only(raw, run):
    first = run().splits
    (raw / "test/cat/0.png").rename(raw / "test/dog/9.png")
    labelled = run().splits
    picture(999).save(raw / "test/cat/1.png")
    painted = run().splits
    assert len({splits["test"].sha256 for splits in (first, labelled, painted)}) == 3
    assert len({splits["train"].sha256 for splits in (first, labelled, painted)}) == 1


def test_mean_and_deviation_are_those_of_the_training_part(raw, run, out):
    for path in raw.rglob("*.png"):
        Image.merge("RGB", [Image.open(path).point(lambda v, n=n: v // n) for n in (1, 2, 3)]).save(path)
    manifest = run(val_share=0.5)
    pixels = load_split(out, "train")["image"].double() / 255
    assert facts(manifest).mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert facts(manifest).std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), rel=1e-9)


def test_images_of_nearly_one_colour_leave_a_deviation_that_can_be_divided_by(raw, run):
    for number, path in enumerate(raw.glob("train/*/*.png")):
        image = Image.new("L", (28, 28), 99)
        image.putpixel((number, 0), 100)
        image.save(path)
    (raw / "val/cat").mkdir(parents=True)
    picture(999).save(raw / "val/cat/0.png")
    assert facts(run()).std == [1 / 255]


@pytest.mark.parametrize(("sides", "size"), [([10, 12], 28), ([30, 40, 50], 40), ([90], 90), ([500, 600], 224)])
def test_the_automatic_size_is_the_middle_one_of_the_shorter_sides_within_limits(raw, run, sides, size):
    for number, path in enumerate(sorted(raw.glob("train/*/*.png"))):
        picture(number, (sides[number % len(sides)], 700)).save(path)
    (raw / "train/cat/broken.png").write_bytes(b"broken")
    assert facts(run()).size == size
    assert facts(run(size=64)).size == 64


def test_images_are_grey_when_all_are_and_in_colour_when_one_is_not(raw, run, out):
    Image.open(raw / "train/cat/1.png").convert("P").save(raw / "train/cat/1.png")
    assert facts(run()).channels == 1
    picture(7, mode="RGB").save(raw / "train/dog/3.png")
    assert facts(run()).channels == 3
    assert load_split(out, "test")["image"].shape == (6, 3, 28, 28)
    assert facts(run(channels=1)).channels == 1


def test_files_that_cannot_be_used_are_left_out_with_the_reason(raw, run, out):
    cat = raw / "train/cat"
    (cat / "empty.jpg").write_bytes(b"")
    (cat / "text.jpg").write_text("not a picture")
    picture(500, (300, 300), "RGB").save(cat / "half.jpg")
    (cat / "half.jpg").write_bytes((cat / "half.jpg").read_bytes()[:9000])
    picture(501, (300, 200)).save(cat / "big.png")
    (cat / "folder").mkdir()
    picture(502).save(cat / "folder" / "inside.png")
    os.mkfifo(cat / "pipe.png")
    (raw / "test" / "list.csv").write_text("a,b")
    manifest = run(max_megapixels=0.05)
    assert reasons(manifest) == {
        "test/list.csv": "outside the class folders",
        "train/cat/big.png": "decompression bomb: 300 x 200 pixels is over max_megapixels 0.05",
        "train/cat/empty.jpg": "zero bytes",
        "train/cat/folder": "a folder inside a class folder",
        "train/cat/half.jpg": "decompression bomb: 300 x 300 pixels is over max_megapixels 0.05",
        "train/cat/pipe.png": "not a file",
        "train/cat/text.jpg": "not an image",
    }
    assert reasons(run())["train/cat/half.jpg"] == "truncated"
    assert [rejection.file for rejection in manifest.rejected] == sorted(reasons(manifest))
    assert sum(split.samples for split in manifest.splits.values()) == 26


def test_images_of_one_colour_are_named_as_such_and_not_as_duplicates(raw, run):
    for split in ("train", "test"):
        Image.new("RGBA", (28, 28), (255, 255, 255, 0)).save(raw / split / "cat" / "white.png")
        Image.new("L", (30, 40), 0).save(raw / split / "dog" / "black.png")
    assert set(reasons(run()).values()) == {"all pixels have one colour"}
    assert len(run().rejected) == 4


def test_pointers_of_git_lfs_are_named_as_such(raw, run):
    for path in raw.glob("train/*/[0-3].png"):
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9000\n")
    assert set(reasons(run()).values()) == {"a Git LFS pointer, not its file: run `git lfs pull`"}
    assert len(run().rejected) == 8


def test_what_the_system_leaves_in_folders_is_passed_over(raw, run):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"):
        (raw / "train/cat" / name).write_text("x")
    (raw / "train/.ipynb_checkpoints").mkdir()
    for path in [*raw.glob("train/cat/?.png")]:
        path.with_name(f"{path.name}:Zone.Identifier").write_text("[ZoneTransfer]")
    for folder in (
        "__MACOSX/train/cat",
        "train/__MACOSX/cat",
        "test/@eaDir/1.png",
        "train/lost+found",
        "train/cat/@eaDir",
    ):
        (raw / folder).mkdir(parents=True)
        (raw / folder / "._1.png").write_text("x")
    manifest = run()
    assert manifest.rejected == []
    assert facts(manifest).classes == ["cat", "dog"]


@pytest.fixture
def unsplit(raw) -> Path:
    """The ten training images of each class, in class folders without a split."""
    for name in ("cat", "dog"):
        (raw / "train" / name).rename(raw / name)
    shutil.rmtree(raw / "train")
    shutil.rmtree(raw / "test")
    return raw


def test_class_folders_without_splits_are_divided_alike_in_each_class(unsplit, run, out):
    manifest = run()
    assert facts(manifest).counts == {
        "test": {"cat": 2, "dog": 2},
        "val": {"cat": 1, "dog": 1},
        "train": {"cat": 7, "dog": 7},
    }
    every = [file for split in ("train", "val", "test") for file in file_names(out, split)]
    assert sorted(every) == sorted(str(path.relative_to(unsplit)) for path in unsplit.rglob("*.png"))
    assert manifest.drawn == "4 of 20 images, the same share of each class"
    assert facts(manifest).group == ""
    assert manifest.rejected == []


def test_of_drawn_images_that_cannot_be_used_it_is_said_how_many_remain(unsplit, run, out):
    run()
    (unsplit / file_names(out, "test")[0]).write_text("no image")
    assert run().drawn == "4 of 20 images, the same share of each class, of which 3 can be used,"


@pytest.mark.parametrize("changes", [{"seed": 1}, {"resplit": 1}, {"resplit": 2}])
def test_another_seed_or_draw_takes_other_images_for_testing(unsplit, run, out, changes):
    run()
    first = file_names(out, "test")
    run(**changes)
    assert file_names(out, "test") != first


def test_a_draw_is_the_same_whatever_the_order_on_the_disk(unsplit, run, out, tmp_path):
    first, written = run(), contents(out)
    for path in sorted(unsplit.rglob("*.png"), key=lambda path: path.name, reverse=True):
        copy = tmp_path / "copy" / path.relative_to(unsplit)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    shutil.rmtree(unsplit)
    (tmp_path / "copy").rename(unsplit)
    assert run() == first
    assert contents(out) == written


def test_what_an_archive_leaves_beside_class_folders_is_passed_over_and_other_files_are_named(unsplit, run):
    for folder in ("__MACOSX/cat", ".git", "cat/__MACOSX"):
        (unsplit / folder).mkdir(parents=True)
        (unsplit / folder / "._0.png").write_text("x")
    for name in (".DS_Store", "cat/Thumbs.db", "labels.csv"):
        (unsplit / name).write_text("x")
    manifest = run()
    assert facts(manifest).classes == ["cat", "dog"]
    assert reasons(manifest) == {"labels.csv": "outside the class folders"}


def test_test_is_drawn_from_train_where_only_val_has_a_folder(raw, run, out):
    shutil.rmtree(raw / "test")
    (raw / "val/cat").mkdir(parents=True)
    (raw / "train/cat/0.png").rename(raw / "val/cat/0.png")
    manifest = run()
    assert facts(manifest).counts["val"] == {"cat": 1, "dog": 0}
    assert facts(manifest).counts["test"] == {"cat": 2, "dog": 2}
    assert {file.split("/")[0] for file in file_names(out, "test")} == {"train"}
    assert manifest.drawn == "4 of 19 images, the same share of each class"


def test_a_test_folder_is_taken_as_it_is_until_the_data_are_split_anew(raw, run, out):
    assert run().drawn == ""
    draws = []
    for number in (1, 2, 3):
        manifest = run(resplit=number)
        draws.append(tuple(file_names(out, "test")))
        assert facts(manifest).counts["test"] == {"cat": 3, "dog": 3}
        assert manifest.drawn == "6 of 26 images, the same share of each class"
        every = [file for split in ("train", "val", "test") for file in file_names(out, split)]
        assert sorted(every) == sorted(str(path.relative_to(raw)) for path in raw.rglob("*.png"))
    assert len(set(draws)) == 3
    assert {file.split("/")[0] for draw in draws for file in draw} == {"train", "test"}


def grouped(raw: Path, groups: int) -> None:
    """Name images of both classes after so many patients."""
    for number, path in enumerate(sorted(raw.rglob("*.png"))):
        path.rename(path.with_name(f"p{number % groups}_{number:03}.png"))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_no_group_that_file_names_tell_is_in_two_splits(unsplit, run, out, caplog, number):
    grouped(unsplit, 10)
    with caplog.at_level(logging.INFO, "pedigree.prepare"):
        manifest = run(resplit=number)
    patients = [
        {Path(file).name.split("_")[0] for file in file_names(out, split)} for split in ("train", "val", "test")
    ]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 10
    assert manifest.drawn == "4 of 20 images, by 2 of 10 groups that file names tell"
    assert manifest.note == ""
    assert set(folders.groups_of(file_names(out, "test"), facts(manifest).group)) == patients[2]
    assert caplog.messages[0] == f"{unsplit}: 10 groups, 2 images each, such as 'p0' of cat/p0_000.png"


def test_names_that_tell_no_groups_to_draw_are_reported(unsplit, run, caplog):
    for name in ("cat", "dog"):
        for path in (unsplit / name).iterdir():
            path.rename(path.with_name(f"IMG{name}_{path.name}"))
    manifest = run()
    assert manifest.drawn == "4 of 20 images, the same share of each class"
    assert manifest.note == "groups that file names tell are too uneven to draw whole: a group may be in two splits"
    advice = "if images of a group, such as 'IMGcat', are alike, put those for testing into test/<class>/"
    assert caplog.messages == [f"{unsplit.name}: {manifest.note}: {advice}"]


def test_groups_of_a_val_folder_that_are_in_other_splits_are_noted(raw, run, caplog):
    (raw / "test").rename(raw / "val")
    grouped(raw, 5)
    noted = ["1 of 1 groups of test are in val, too", "4 of 5 groups of val are in train, too"]
    assert run().note == "; ".join(noted)
    for note in noted:
        assert f"{raw}: {note}: validation says little of images of other groups: put whole groups" in caplog.text


def test_groups_that_val_shares_with_train_as_it_is_drawn_image_by_image_are_noted(unsplit, run, caplog):
    grouped(unsplit, 3)
    manifest = run()
    assert manifest.drawn.endswith("by 1 of 3 groups that file names tell")
    assert re.fullmatch(r"\d of \d groups of val are in train, too", manifest.note)
    assert f"{manifest.note}: validation says little of images of other groups" in caplog.text


def test_groups_that_are_probably_fewer_are_doubted(unsplit, run, caplog):
    for number, path in enumerate(sorted(unsplit.rglob("*.png"))):
        path.rename(path.with_name(f"p{number % 10 // 2}-scan{number % 2}-{number:03}.png"))
    with caplog.at_level(logging.WARNING, "pedigree.prepare"):
        run()
    assert "the names of 10 groups begin in 5 ways, 2 with 'p0': one source of images may be several" in caplog.text


def test_an_image_that_was_drawn_for_testing_is_in_no_other_split(unsplit, run, out):
    run()
    (drawn, *_) = file_names(out, "test")
    others = [path for path in sorted(unsplit.glob("*/*.png")) if str(path.relative_to(unsplit)) != drawn]
    for path in others[:3]:
        Image.open(unsplit / drawn).convert("RGB").save(path)
    manifest = run()
    twins = [str(path.relative_to(unsplit)) for path in others[:3]]
    tested = {*file_names(out, "test")}
    assert reasons(manifest) == {
        file: f"duplicate of the test image {drawn}" for file in twins if file not in tested
    }
    assert drawn in tested
    assert reasons(manifest)


def test_a_training_image_that_is_a_test_image_is_rejected(raw, run, out):
    Image.open(raw / "test/dog/1.png").convert("RGB").save(raw / "train/cat/copy.bmp")
    assert reasons(run()) == {"train/cat/copy.bmp": "duplicate of the test image test/dog/1.png"}
    assert len(file_names(out, "test")) == 6


def test_a_training_image_that_is_a_validation_image_is_rejected(raw, run, out):
    run()
    held = file_names(out, "val")[0]
    shutil.copy(raw / held, raw / held.replace(".png", "-again.png"))
    (rejection,) = run().rejected
    pair = {held, held.replace(".png", "-again.png")}
    accepted = (pair - {rejection.file}).pop()
    assert rejection.file in pair
    assert rejection.reason == f"duplicate of the val image {accepted}"


def test_validation_gets_its_share_even_where_the_first_candidates_are_rejected(raw, run, out):
    run(val_share=0.1)
    for file in file_names(out, "val"):
        (raw / file).write_bytes(b"broken")
    manifest = run(val_share=0.1)
    assert facts(manifest).counts == {
        "test": {"cat": 3, "dog": 3},
        "val": {"cat": 1, "dog": 1},
        "train": {"cat": 8, "dog": 8},
    }
    assert len(manifest.rejected) == 2


def remove(path: str) -> Callable[[Path], None]:
    return lambda raw: shutil.rmtree(raw / path)


def copy(source: str, target: str) -> Callable[[Path], None]:
    return lambda raw: (
        (shutil.copytree if (raw / source).is_dir() else shutil.copy)(raw / source, raw / target) and None
    )


def emptied(*paths: str) -> Callable[[Path], None]:
    return lambda raw: [file.unlink() for path in paths for file in (raw / path).glob("*")] and None


def broken(paths: str) -> Callable[[Path], None]:
    return lambda raw: [file.write_bytes(b"broken") for file in raw.glob(paths)] and None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            remove(""),
            r"raw: there are no images: run `pedigree data`, or put folders .*raw/\{train,test\}/<class>/",
        ),
        (emptied("train/cat", "train/dog", "test/cat", "test/dog"), "there are no images: run `pedigree data`"),
        (remove("train"), r"raw/train does not exist: put"),
        (emptied("train/dog"), r"raw/train/dog: no images there: put some in, or remove the folder"),
        (copy("test/cat", "test/cow"), r"raw/test has classes that .*raw/train lacks: cow: add"),
        (copy("test/cat", "val/cow"), r"raw/val has classes that .*raw/train lacks: cow: add"),
        (copy("train/cat", "train/cow"), r"raw/test lacks classes that .*raw/train has: cow: move"),
        (
            lambda raw: [remove(f"{split}/cat")(raw) for split in ("train", "test")],
            r"train has only the class dog: add",
        ),
        (broken("train/cat/*"), r"raw: val has no image left of cat: all were rejected"),
        (broken("train/cat/[1-9].png"), r"raw: train has no image left of cat: all were rejected or went to"),
        (broken("test/dog/*"), r"raw: test has no image left of dog"),
        (
            lambda raw: (raw / "test/cat").rename(raw / "cow") and remove("test")(raw),
            r"raw: beside folders of splits \(train\) are folders that hold images, as those of classes do \(cow\)",
        ),
        (
            lambda raw: (raw / "train").rename(raw / "photos") and remove("test")(raw),
            r"raw: photos has only folders and no images: move these folders up into .*raw$",
        ),
        (
            lambda raw: (
                emptied("train/cat")(raw),
                copy("test/cat/0.png", "train/cat/0.png")(raw),
                remove("test")(raw),
            ),
            r"raw: too few images to draw val and test from, and leave some to train on: cat \(1\): add images",
        ),
    ],
)
def test_folders_that_do_not_fit_are_rejected_with_the_place_and_the_remedy(raw, run, change, message):
    change(raw)
    with pytest.raises(PedigreeError, match=message):
        run()


def test_many_lacking_classes_are_counted(raw, run):
    for number in range(12):
        copy("train/cat", f"train/{number:02}")(raw)
    with pytest.raises(PedigreeError, match="00, 01, 02, 03, 04 and 7 more"):
        run()


def test_too_many_refusals_stop_with_the_commonest_reasons_and_the_whole_list(raw, run, tmp_path):
    broken("train/*/[0-3].png")(raw)
    shutil.copy(raw / "test/dog/0.png", raw / "train/dog/8.png")
    shutil.copy(raw / "test/dog/1.png", raw / "train/dog/9.png")
    (raw / "test/dog/2.png").write_bytes(b"")
    with pytest.raises(PedigreeError) as error:
        run(max_rejected=0.4)
    assert str(error.value).splitlines() == [
        f"{raw}: 11 of 26 files cannot be used, more than prepare.max_rejected 0.4:",
        "  8 like train/cat/0.png: not an image",
        "  2 like train/dog/8.png: duplicate of the test image test/dog/0.png",
        "  1 like test/dog/2.png: zero bytes",
        f"repair or remove them (all are listed in {tmp_path / 'rejected.json'}), or raise prepare.max_rejected",
    ]
    listed = json.loads((tmp_path / "rejected.json").read_text())
    assert len(listed) == 11
    assert listed[0] == {"file": "test/dog/2.png", "reason": "zero bytes"}
    assert len(run(max_rejected=11 / 26).rejected) == 11
    assert not (tmp_path / "rejected.json").exists(), "a list of what is no longer wrong would mislead"


def test_long_work_shows_how_far_it_is(raw, run, caplog, monkeypatch):
    monkeypatch.setattr(progress, "QUIET_SECONDS", -1)
    (raw / "test/cat/broken.png").write_bytes(b"")
    with caplog.at_level(logging.INFO, "pedigree.prepare"):
        run()
    assert caplog.messages[-1].endswith(": 27 of 27 files read, 1 rejected")


def test_memory_hardly_grows_with_the_number_of_files(tmp_path):
    def peak(count: int) -> int:
        raw, out = tmp_path / f"raw-{count}", tmp_path / "out"
        for index in range(count):
            path = raw / ("test" if index % 5 == 0 else "train") / str(index % 4) / f"{index}.pgm"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(index, (8, 8)).save(path)
        peaks = []
        for _ in range(2):  # the lesser one: now and then pathlib's table of interned names is moved, all at once
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            tracemalloc.start()
            manifest = prepare(raw, out, USUAL)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert sum(split.samples for split in manifest.splits.values()) == count
        return min(peaks)

    growth = (peak(1200) - peak(200)) / 1000
    assert growth < 150, "bytes a file; its pixels alone are 784"
