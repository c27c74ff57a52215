import json
import logging
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components import intake
from components.contracts import Manifest
from components.errors import PedigreeError
from components.intake import file_names
from components.params import read, validate
from components.vision.decode import decode
from components.vision.params import VisionParams
from components.vision.prepare import VisionFacts, load_split, prepare

USUAL = validate(VisionParams, read(Path(__file__).parents[2] / "params.yaml"), ("tasks", "vision"))


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
    """Prepare `raw` into an empty tmp_path/out; every file may be refused."""

    def run(**prepare_params) -> Manifest:
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return prepare(raw, out, params(**{"max_refused": 0.9} | prepare_params))

    return run


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def reasons(manifest: Manifest) -> dict[str, str]:
    return {refusal.file: refusal.reason for refusal in manifest.refused}


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


def test_a_val_folder_is_taken_as_it_is(raw, run, out):
    (raw / "val/cat").mkdir(parents=True)
    (raw / "train/cat/0.png").rename(raw / "val/cat/0.png")
    assert facts(run()).counts["val"] == {"cat": 1, "dog": 0}
    assert file_names(out, "val") == ["val/cat/0.png"]
    assert len(file_names(out, "train")) == 19


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


def test_images_of_one_colour_leave_a_deviation_that_can_be_divided_by(raw, run):
    for number, path in enumerate(raw.glob("train/*/*.png")):
        Image.new("L", (28 + number, 28), 9).save(path)
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
    (cat / "gone.png").symlink_to("nowhere")
    os.mkfifo(cat / "pipe.png")
    (raw / "test" / "list.csv").write_text("a,b")
    manifest = run(max_megapixels=0.05)
    assert reasons(manifest) == {
        "test/list.csv": "outside the class folders",
        "train/cat/big.png": "decompression bomb: 300 x 200 pixels is over max_megapixels 0.05",
        "train/cat/empty.jpg": "zero bytes",
        "train/cat/folder": "a folder inside a class folder",
        "train/cat/gone.png": "not a file",
        "train/cat/half.jpg": "decompression bomb: 300 x 300 pixels is over max_megapixels 0.05",
        "train/cat/pipe.png": "not a file",
        "train/cat/text.jpg": "not an image",
    }
    assert reasons(run())["train/cat/half.jpg"] == "truncated"
    assert [refusal.file for refusal in manifest.refused] == sorted(reasons(manifest))
    assert sum(split.samples for split in manifest.splits.values()) == 26


def test_what_the_system_leaves_in_folders_is_passed_over(raw, run):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"):
        (raw / "train/cat" / name).write_text("x")
    (raw / "train/.ipynb_checkpoints").mkdir()
    assert run().refused == []


def test_a_training_image_that_is_a_test_image_is_refused(raw, run, out):
    Image.open(raw / "test/dog/1.png").convert("RGB").save(raw / "train/cat/copy.bmp")
    assert reasons(run()) == {"train/cat/copy.bmp": "duplicate of the test image test/dog/1.png"}
    assert len(file_names(out, "test")) == 6


def test_a_training_image_that_is_a_validation_image_is_refused(raw, run, out):
    run()
    held = file_names(out, "val")[0]
    shutil.copy(raw / held, raw / held.replace(".png", "-again.png"))
    (refusal,) = run().refused
    pair = {held, held.replace(".png", "-again.png")}
    kept = (pair - {refusal.file}).pop()
    assert refusal.file in pair
    assert refusal.reason == f"duplicate of the val image {kept}"


def test_validation_gets_its_share_even_where_the_first_candidates_are_refused(raw, run, out):
    run(val_share=0.1)
    for file in file_names(out, "val"):
        (raw / file).write_bytes(b"broken")
    manifest = run(val_share=0.1)
    assert facts(manifest).counts == {
        "test": {"cat": 3, "dog": 3},
        "val": {"cat": 1, "dog": 1},
        "train": {"cat": 8, "dog": 8},
    }
    assert len(manifest.refused) == 2


def remove(path: str) -> Callable[[Path], None]:
    return lambda raw: shutil.rmtree(raw / path)


def copy(source: str, target: str) -> Callable[[Path], None]:
    return lambda raw: shutil.copytree(raw / source, raw / target) and None


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
        (remove("test"), r"raw/test does not exist: put a folder with images there for each class"),
        (remove("train"), r"raw/train does not exist: put"),
        (emptied("train/dog"), r"raw/train/dog: no images there: put some in, or remove the folder"),
        (copy("test/cat", "test/cow"), r"raw/test has classes that .*raw/train has not: cow: add"),
        (copy("test/cat", "val/cow"), r"raw/val has classes that .*raw/train has not: cow: add"),
        (copy("train/cat", "train/cow"), r"raw/test lacks classes that .*raw/train has: cow: move"),
        (
            lambda raw: [remove(f"{split}/cat")(raw) for split in ("train", "test")],
            r"train has one class, dog: put",
        ),
        (broken("train/cat/*"), r"raw: val has no image left of cat: all were refused"),
        (broken("train/cat/[1-9].png"), r"raw: train has no image left of cat: all were refused or went to"),
        (broken("test/dog/*"), r"raw: test has no image left of dog"),
    ],
)
def test_folders_that_do_not_fit_are_refused_with_the_place_and_the_remedy(raw, run, change, message):
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
        run(max_refused=0.4)
    assert str(error.value).splitlines() == [
        f"{raw}: 11 of 26 files cannot be used, more than prepare.max_refused 0.4:",
        "  8 like train/cat/0.png: not an image",
        "  2 like train/dog/8.png: duplicate of the test image test/dog/0.png",
        "  1 like test/dog/2.png: zero bytes",
        f"mend or remove them (the whole list is in {tmp_path / 'refused.json'}), or raise prepare.max_refused",
    ]
    listed = json.loads((tmp_path / "refused.json").read_text())
    assert len(listed) == 11
    assert listed[0] == {"file": "test/dog/2.png", "reason": "zero bytes"}
    assert len(run(max_refused=11 / 26).refused) == 11
    assert not (tmp_path / "refused.json").exists(), "a list of what is no longer wrong would mislead"


def test_long_work_shows_how_far_it_is(raw, run, caplog, monkeypatch):
    monkeypatch.setattr(intake, "QUIET_SECONDS", 0)
    (raw / "test/cat/broken.png").write_bytes(b"")
    with caplog.at_level(logging.INFO, "pedigree.prepare"):
        run()
    assert caplog.messages[-1] == "prepare vision: 27 of 27 files, 1 refused"


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
