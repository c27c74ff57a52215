"""The composed scenes, and that three formats of their annotations give the same arrays."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.datasets.raw_files import COMPOSED
from components.images.embedded.digits import mnist
from components.images.embedded.scenes import IGNORE, SOURCES, _png, scenes, write_scenes
from components.params import read, validate
from components.tasks.object_detection.params import DetectionParams
from components.tasks.object_detection.prepare import prepare
from tests.conftest import PARAMS
from tests.images.formats import to_voc, to_yolo

COUNTS = {"train": 24, "val": 6, "test": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Some scenes in COCO's format."""
    raw = tmp_path_factory.mktemp("scenes")
    write_scenes(raw, COUNTS)
    return raw


@pytest.fixture(scope="module")
def composed():
    images, labels = mnist()
    by_class = [images[labels == digit] for digit in range(10)]
    return {split: list(scenes(split, 40, by_class)) for split in SOURCES}


def test_the_scenes_are_byte_for_byte_the_same_every_time(folder):
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    # Pinned: another machine or a newer Pillow must write these very bytes, for data.dvc names them.
    assert total.hexdigest() == "533ea26e68f30b21dc31d743391382900cb51108e7f8a7771db889396e260002"


def test_a_box_encloses_a_digits_pixels_and_no_more_than_its_rim(composed):
    for scene in (each for split in composed.values() for each in split):
        assert scene.mask.max() in (0, IGNORE)
        if len(scene.boxes) == 1:
            ((left, top, right, bottom), label) = scene.boxes[0], scene.labels[0]
            rows, columns = (scene.mask == label + 1).nonzero()
            assert scene.areas == [len(rows)]
            assert left <= columns.min() <= columns.max() < right
            assert top <= rows.min() <= rows.max() < bottom
            rows, columns = (scene.mask > 0).nonzero()
            assert columns.min() <= left < right <= columns.max() + 1
            assert rows.min() <= top < bottom <= rows.max() + 1


def test_a_tenth_of_the_scenes_is_empty_and_others_have_up_to_eight_digits(composed):
    counts = np.array([len(scene.boxes) for split in composed.values() for scene in split])
    assert 3 <= (counts == 0).sum() <= 22
    assert counts.max() == 8


def test_no_digit_and_no_part_of_a_photograph_is_in_two_splits():
    for kind in ("digits", "columns"):
        parts = [set(getattr(source, kind)) for source in SOURCES.values()]
        assert sum(map(len, parts)) == len(set().union(*parts))


def test_the_files_say_that_they_are_composed_and_of_what(folder):
    text = (folder / COMPOSED).read_text()
    assert "danielbuechele" in text
    assert "CC BY 2.0" in text
    document = json.loads((folder / "test" / "_annotations.coco.json").read_text())
    assert len(document["images"]) == COUNTS["test"]
    assert {each["id"]: each["file_name"] for each in document["images"]}[7] == "images/00007.jpg"


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (128, 128)])
def test_masks_are_png_files_that_any_program_reads(tmp_path, shape):
    random = np.random.default_rng(0)
    mask = np.repeat(random.integers(0, 256, shape, np.uint8), 3, axis=1)
    mask[:, : mask.shape[1] // 2] = 7
    path = tmp_path / "mask.png"
    path.write_bytes(_png(mask))
    with Image.open(path) as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), mask)


def test_the_same_scenes_as_coco_voc_and_yolo_give_byte_identical_arrays(folder, tmp_path):
    params = validate(DetectionParams, read(PARAMS), ("models", "scenes"))
    prepared = {}
    for name, write in {"coco": None, "voc": to_voc, "yolo": to_yolo}.items():
        raw, out = tmp_path / name, tmp_path / f"{name}-prepared"
        if write:
            write(folder, raw)
        out.mkdir()
        manifest = prepare(raw if write else folder, out, params)
        assert manifest.facts["format"] == name
        assert not manifest.rejected
        prepared[name] = {path.name: path.read_bytes() for path in out.iterdir() if path.suffix == ".npy"}
    assert len(prepared["coco"]) == 15
    assert prepared["coco"] == prepared["voc"] == prepared["yolo"]
