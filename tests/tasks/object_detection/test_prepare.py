"""Annotated images become arrays; what cannot be used is rejected by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from components.datasets import ingest
from components.errors import PedigreeError
from components.tasks.object_detection.prepare import load_split
from tests.images.formats import write_coco
from tests.images.test_annotations import picture, real
from tests.tasks.object_detection.values import prepared

BOX = (4, 6, 20, 10)
MANY = 12


def raw_of(folder: Path, own=(BOX,), count: int = MANY, **files: bytes) -> Path:
    """Write images with the same boxes and a COCO file of them; further files replace images."""
    names = [f"{number:02d}.png" for number in range(count)]
    for name in names:
        picture(folder / "images", name)
    write_coco(folder, dict.fromkeys(names, own), "instances.json")
    for name, data in files.items():
        (folder / "images" / f"{name}.png").write_bytes(data)
    return folder


def reasons(manifest):
    return {each.file: each.reason for each in manifest.rejected}


def boxes_of(folder, split="train"):
    return [load_split(folder, split).ragged["boxes"][index] for index in range(len(load_split(folder, split)))]


def test_images_and_boxes_become_ragged_arrays_and_the_facts_count_them(tmp_path):
    raw = raw_of(tmp_path / "raw", [BOX, (0, 0, 5, 5)])
    picture(raw / "images", "large.png", (80, 50))
    found = prepared(raw, tmp_path / "out", max_rejected=0.5)
    assert reasons(found.manifest) == {"images/large.png": "no annotation file lists it"}
    facts = found.manifest.facts
    assert facts["classes"] == ["cell"]
    assert facts["ids"] == [3]
    assert facts["counts"] == {"test": {"cell": 4}, "val": {"cell": 2}, "train": {"cell": 18}}
    assert "drew" not in found.manifest.drawn
    assert found.manifest.drawn == "2 of 12 images"
    split = load_split(found.folder, "train")
    batch = split.__getitems__(torch.tensor([1, 0]))
    assert batch["image"].shape == (2, 30, 40, 3)
    assert batch["boxes"][0].tolist() == [[4, 6, 24, 16, 0, 0], [0, 0, 5, 5, 0, 0]]
    assert batch["boxes_length"].tolist() == [2, 2]
    assert split.lengths is None, "all images have one size"


def test_batches_of_images_of_different_sizes_are_padded_and_made_of_similar_areas(tmp_path):
    raw = raw_of(tmp_path / "raw")
    for number in range(0, MANY, 2):
        picture(raw / "images", f"{number:02d}.png", (40, 60))
    path = raw / "annotations" / "instances.json"
    document = json.loads(path.read_text())
    for image in document["images"][::2]:
        image["height"] = 60
    path.write_text(json.dumps(document))
    split = load_split(prepared(raw, tmp_path / "out").folder, "train")
    assert split.lengths is not None
    assert set(split.lengths.tolist()) == {1200, 2400}
    sizes = split.__getitems__(torch.arange(len(split)))["image_size"]
    assert {tuple(size) for size in sizes.tolist()} == {(30, 40), (60, 40)}


def test_large_images_are_reduced_with_their_boxes_and_counted(tmp_path):
    found = prepared(raw_of(tmp_path / "raw"), tmp_path / "out", longest=32)
    assert found.manifest.facts["cases"] == {"images reduced to prepare.longest": MANY}
    assert found.manifest.facts["sizes"] == [24, 32]
    assert torch.equal(boxes_of(found.folder)[0], torch.tensor([[3.2, 4.8, 19.2, 12.8, 0, 0]]))


def test_images_without_objects_stay_as_negatives(tmp_path):
    raw = raw_of(tmp_path / "raw")
    path = raw / "annotations" / "instances.json"
    document = json.loads(path.read_text())
    document["annotations"] = document["annotations"][::2]
    path.write_text(json.dumps(document))
    found = prepared(raw, tmp_path / "out", val_share=0.4)
    assert sum(part.samples for part in found.manifest.splits.values()) == MANY
    assert sum(found.manifest.facts["empty"].values()) == MANY // 2
    assert {len(each) for each in boxes_of(found.folder)} == {0, 1}


def test_a_video_renamed_a_pointer_and_a_damaged_file_are_rejected_with_their_reasons(tmp_path):
    video = bytes.fromhex("0000001c6674797069736f6d") + b"\0" * 500
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    raw = raw_of(tmp_path / "raw", **{"03": video, "04": pointer, "05": b""})
    with pytest.raises(PedigreeError, match=r"3 of 12 files cannot be used, more than prepare.max_rejected 0.05"):
        prepared(raw, tmp_path / "out")
    listed = json.loads((tmp_path / "rejected.json").read_text())
    assert [each["file"] for each in listed] == ["images/03.png", "images/04.png", "images/05.png"]
    found = prepared(raw, tmp_path / "again", max_rejected=0.5)
    assert reasons(found.manifest)["images/05.png"] == "zero bytes"
    assert sum(part.samples for part in found.manifest.splits.values()) == MANY - 3


def test_a_box_outside_its_image_rejects_the_image_with_the_annotation(tmp_path):
    raw = raw_of(tmp_path / "raw")
    path = raw / "annotations" / "instances.json"
    document = json.loads(path.read_text())
    document["annotations"][4]["bbox"] = [30, 6, 20, 10]
    path.write_text(json.dumps(document))
    found = prepared(raw, tmp_path / "out", max_rejected=0.5)
    (reason,) = reasons(found.manifest).values()
    assert reason.startswith("annotation 5 of annotations/instances.json reaches 25% of the image's side beyond it")


def turned(path: Path, orientation: int) -> None:
    """Give an image an EXIF orientation."""
    with Image.open(path) as image:
        tags = image.getexif()
        tags[0x0112] = orientation
        image.save(path, exif=tags)


def test_annotations_may_be_of_an_image_as_shown_or_as_stored_and_of_no_third_size(tmp_path):
    raw = raw_of(tmp_path / "raw")
    for number in (0, 1):
        picture(raw / "images", f"{number:02d}.png", (30, 40) if number else (40, 30))
        turned(raw / "images" / f"{number:02d}.png", 6)
    picture(raw / "images", "02.png", (41, 30))
    found = prepared(raw, tmp_path / "out", max_rejected=0.5)
    assert found.manifest.facts["cases"] == {
        "images turned by their EXIF orientation": 1,
        "images left as stored, as their boxes are": 1,
    }
    assert reasons(found.manifest) == {"images/02.png": "it has 41 x 30 pixels, but its annotation says 40 x 30"}
    assert found.manifest.facts["sizes"] == [30, 40]


def test_grey_and_transparent_images_become_rgb_and_are_counted(tmp_path):
    raw = raw_of(tmp_path / "raw")
    for number, mode in enumerate(("L", "RGBA", "LA")):
        path = raw / "images" / f"{number:02d}.png"
        with Image.open(path) as image:
            image.convert(mode).save(path)
    cases = prepared(raw, tmp_path / "out").manifest.facts["cases"]
    assert cases == {f"images of Pillow's mode {mode}, converted to RGB": 1 for mode in ("L", "RGBA", "LA")}


def test_an_image_of_test_is_in_no_other_split(tmp_path):
    raw = raw_of(tmp_path / "raw")
    first = prepared(raw, tmp_path / "out")
    test, train = (ingest.file_names(first.folder, split) for split in ("test", "train"))
    shutil.copyfile(raw / test[0], raw / train[0])
    found = prepared(raw, tmp_path / "again", max_rejected=0.5)
    assert reasons(found.manifest) == {train[0]: f"duplicate of the test image {test[0]}"}


def test_a_split_without_boxes_is_an_error(tmp_path):
    raw = raw_of(tmp_path / "raw", [(3, 3, 0.5, 9)])
    with pytest.raises(PedigreeError, match=r"no image of test has a box"):
        prepared(raw, tmp_path / "out")


def test_real_photographs_of_which_one_is_truncated(tmp_path):
    raw = real("annotation-traps.tar", tmp_path) / "traps" / "kangaroo"
    with pytest.raises(PedigreeError, match=r"set prepare.box_origin to 1 or 0"):
        prepared(raw, tmp_path / "out")
    for number in range(8):  # so that there are enough for three splits
        for folder, suffix in (("images", "jpg"), ("annots", "xml")):
            shutil.copyfile(raw / folder / f"00001.{suffix}", raw / folder / f"copy{number}.{suffix}")
            if suffix == "jpg":
                with Image.open(raw / folder / f"copy{number}.jpg") as image:
                    pixels = np.asarray(image) ^ np.uint8(number + 1)
                    Image.fromarray(pixels).save(raw / folder / f"copy{number}.jpg")
    found = prepared(raw, tmp_path / "again", box_origin=1, max_rejected=0.5)
    rejected = reasons(found.manifest)
    assert len(rejected) == 1
    assert "damaged" in next(iter(rejected.values())) or "truncated" in next(iter(rejected.values()))
    assert found.manifest.facts["cases"]["files whose <filename> is another, matched by their own name"] == 8


def test_real_crowds_are_neither_learnt_nor_lost(tmp_path):
    raw = real("coco-tiny.tar", tmp_path) / "coco-tiny"
    found = prepared(raw, tmp_path / "out", longest=128)
    assert found.manifest.facts["cases"]["crowd regions, ignored in training and evaluation"] == 17
    every = torch.cat([each for split in ("train", "val", "test") for each in boxes_of(found.folder, split)])
    assert int(every[:, 5].sum()) == 17
    assert sum(sum(each.values()) for each in found.manifest.facts["counts"].values()) == len(every) - 17
