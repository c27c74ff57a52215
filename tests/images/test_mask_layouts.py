"""Images and their masks in the layouts in which people have them."""

import json
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from components.errors import PedigreeError
from components.images.annotations.files import below
from components.images.masks import coco_regions, mask_layouts
from tests.conftest import ROOT

SHARED = ROOT.parent / "shared" / "datasets" / "images"
REAL = pytest.mark.skipif(not SHARED.exists(), reason="the real data sets are not on this machine")
OPTIONS = SimpleNamespace(seed=0, resplit=0, val_share=0.25, test_share=0.25)


def put(raw: Path, *files: str) -> Path:
    """Write a small image at each path."""
    for number, file in enumerate(files):
        path = raw / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".png", ".jpg"):
            pixels = np.random.default_rng(number).integers(0, 256, (4, 6, 3), np.uint8)
            Image.fromarray(pixels).save(path)
        else:
            path.write_text("x")
    return raw


def survey(raw: Path, layout="auto", **options) -> mask_layouts.Survey:
    return mask_layouts.survey(raw, SimpleNamespace(**vars(OPTIONS) | options), layout)


def error(raw: Path, layout="auto") -> str:
    with pytest.raises(PedigreeError) as raised:
        survey(raw, layout)
    return str(raised.value)


def pairs(found: mask_layouts.Survey, split: str) -> list[tuple[str, ...]]:
    return [(each.image, *each.masks) for each in found.splits[split]]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("{split}/images", "{split}/masks"),
        ("{split}/images", "{split}/labels"),
        ("images/{split}", "masks/{split}"),
        ("{split}", "{split}annot"),
        ("{split}", "{split}_masks"),
        ("leftImg8bit/{split}/city", "gtFine/{split}/city"),
    ],
)
def test_folders_of_images_and_masks_are_paired_by_stem(tmp_path, images, masks):
    for split in ("train", "val", "test"):
        for name in ("a", "b"):
            put(tmp_path, f"{images.format(split=split)}/{name}.jpg", f"{masks.format(split=split)}/{name}.png")
    found = survey(tmp_path)
    assert found.layout == "folders"
    assert not found.strays
    assert pairs(found, "val") == [
        (f"{images.format(split='val')}/{name}.jpg", f"{masks.format(split='val')}/{name}.png") for name in "ab"
    ]


def test_what_has_no_counterpart_is_listed_with_the_reason(tmp_path):
    for split in ("train", "val", "test"):
        put(tmp_path, f"{split}/images/a.png", f"{split}/masks/a.png")
    put(tmp_path, "train/images/b.png", "train/masks/c.png", "train/images/a.jpg", "notes.txt", "README.md")
    assert survey(tmp_path).strays == {
        "train/images/a.png": "another image of the name of train/images/a.jpg: rename one, and its mask",
        "train/images/b.png": "an image without a mask",
        "train/masks/c.png": "a mask without an image",
        "notes.txt": "in no folder of images or masks",
    }


def test_lists_divide_images_that_are_in_one_folder(tmp_path):
    put(tmp_path, *(f"{kind}/{name}.png" for name in "abcd" for kind in ("images", "masks")))
    (tmp_path / "train.txt").write_text("a\n/SegNet/CamVid/train/b.png /SegNet/CamVid/trainannot/b.png\n\n")
    (tmp_path / "valid.txt").write_text("images/c.png\n")
    found = survey(tmp_path)
    assert found.strays == {"images/d.png": "in none of the lists"}
    assert pairs(found, "val") == [("images/c.png", "masks/c.png")]
    (tmp_path / "test.txt").write_text("d\nz\n")
    assert error(tmp_path).endswith("test.txt:2: there is no image z with a mask: remove the line")
    (tmp_path / "test.txt").write_bytes(b"d\n\xe9\n")
    assert "test.txt:2: there is no image" in error(tmp_path)
    (tmp_path / "test.txt").write_text("d\na\n")
    assert "a is listed for test, too" in error(tmp_path)


def test_a_folder_for_each_image_has_a_mask_for_each_object(tmp_path):
    for name in "abcdef":
        put(tmp_path, f"{name}/images/{name}.png", *(f"{name}/masks/{number}.png" for number in range(3)))
    found = survey(tmp_path)
    assert found.layout == "instances"
    assert found.drawn == "2 of 6 images"
    first = min((each for images in found.splits.values() for each in images), key=lambda each: each.image)
    assert (first.image, first.masks) == ("a/images/a.png", ("a/masks/0.png", "a/masks/1.png", "a/masks/2.png"))
    assert first.instances


def test_a_folder_of_masks_with_the_name_of_an_image_has_its_objects(tmp_path):
    for name in "abcd":
        put(tmp_path, f"images/{name}.jpg", f"masks/{name}/0.png", f"masks/{name}/1.png")
    found = survey(tmp_path)
    assert found.layout == "instances"
    assert not found.strays
    assert sum(len(each.masks) for images in found.splits.values() for each in images) == 8


def cityscapes(raw: Path) -> Path:
    for split, city in (("train", "aachen"), ("val", "ulm"), ("test", "bonn")):
        for name in (f"{city}_000000_000019", f"{city}_000001_000019"):
            put(raw, f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png")
            ends = ("labelIds.png", "instanceIds.png", "color.png", "polygons.json")
            put(raw, *(f"gtFine/{split}/{city}/{name}_gtFine_{end}" for end in ends))
    return raw


def test_cityscapes_names_are_paired_without_their_ends_and_its_other_annotations_are_passed_over(tmp_path):
    found = survey(cityscapes(tmp_path))
    assert found.layout == "cityscapes"
    assert not found.strays
    assert pairs(found, "val")[0] == (
        "leftImg8bit/val/ulm/ulm_000000_000019_leftImg8bit.png",
        "gtFine/val/ulm/ulm_000000_000019_gtFine_labelIds.png",
    )
    assert {split: len(images) for split, images in found.splits.items()} == {"train": 2, "val": 2, "test": 2}
    assert found.cases == {"annotations besides labelIds, passed over": 18}
    (tmp_path / "gtFine/val/ulm/ulm_000000_000019_gtFine_labelIds.png").unlink()
    assert survey(tmp_path).strays == {pairs(found, "val")[0][0]: "an image without a mask"}


def voc(raw: Path) -> Path:
    for name in "abcdef":
        put(raw, f"VOC2012/JPEGImages/{name}.jpg", f"VOC2012/Annotations/{name}.xml")
    for name in "abcd":
        put(raw, f"VOC2012/SegmentationClass/{name}.png", f"VOC2012/SegmentationObject/{name}.png")
    lists = raw / "VOC2012/ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split, names in (("train", "ab"), ("val", "c"), ("trainval", "abc")):
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return raw


def test_pascal_voc_is_divided_by_its_lists_and_images_without_a_mask_are_passed_over(tmp_path):
    found = survey(voc(tmp_path))
    assert found.layout == "voc"
    assert pairs(found, "val") == [("VOC2012/JPEGImages/c.jpg", "VOC2012/SegmentationClass/c.png")]
    assert found.cases == {"images without a mask, passed over": 2, "images with a mask in no list, passed over": 1}


def document(**changes) -> dict:
    square = [[1, 1, 4, 1, 4, 3, 1, 3]]
    return {
        "images": [{"id": 5, "file_name": "a.jpg", "width": 6, "height": 4}, {"id": 9, "file_name": "b.jpg"}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 7, "segmentation": square, "iscrowd": 0}],
        "categories": [{"id": 90, "name": "cat"}, {"id": 7, "name": "dog"}],
    } | changes


def coco(raw: Path, **changes) -> Path:
    for split in ("train", "val", "test"):
        put(raw, f"{split}2017/a.jpg", f"{split}2017/b.jpg")
        (raw / "annotations").mkdir(exist_ok=True)
        content = json.dumps(document(**changes if split == "train" else {}))
        (raw / f"annotations/instances_{split}2017.json").write_text(content)
    return raw


def test_cocos_categories_become_classes_by_ascending_id_with_gaps(tmp_path):
    found = survey(coco(tmp_path))
    assert found.layout == "coco"
    assert found.classes == ["background", "dog", "cat"]
    assert found.cases == {"category ids with gaps": 1, "images without objects": 3}
    first, second = found.splits["test"]
    assert (first.image, first.size, second.size) == ("test2017/a.jpg", (6, 4), None)
    assert [each.label for each in first.regions] == [2]
    assert second.regions == ()


def test_a_json_per_split_as_from_roboflow_and_a_single_one_are_read(tmp_path):
    for split in ("train", "valid", "test"):
        put(tmp_path, f"a/{split}/a.jpg", f"a/{split}/b.jpg")
        (tmp_path / f"a/{split}/_annotations.coco.json").write_text(json.dumps(document()))
    assert set(survey(tmp_path / "a").splits) == {"train", "val", "test"}
    put(tmp_path / "b", *(f"images/{name}.jpg" for name in "abcd"))
    images = [{"id": number, "file_name": f"{name}.jpg"} for number, name in enumerate("abcd", 5)]
    (tmp_path / "b/annotations.json").write_text(json.dumps(document(images=images)))
    assert survey(tmp_path / "b").drawn == "1 of 4 images"


def test_a_json_without_images_is_rejected_by_name(tmp_path):
    content = document()
    del content["images"]
    raw = coco(tmp_path)
    (raw / "annotations/instances_train2017.json").write_text(json.dumps(content))
    assert "instances_train2017.json has no list of images" in error(raw)
    (raw / "annotations/instances_train2017.json").write_text("{")
    assert "instances_train2017.json is not JSON" in error(raw)


def test_malformed_entries_of_a_json_are_named(tmp_path):
    raw = coco(tmp_path, categories=[{"id": 7, "name": "dog"}, {"id": 8, "name": "dog"}])
    assert "instances_train2017.json: categories need ids and names of their own" in error(raw)
    raw = coco(tmp_path, images=[{"id": 5, "file_name": "a.jpg"}, {"id": 5, "file_name": "b.jpg"}])
    assert "lists the image b.jpg (id 5) twice" in error(raw)
    raw = coco(tmp_path, images=[{"id": 5, "file_name": "a.jpg"}, {"id": 6, "file_name": "a.jpg"}])
    assert "lists the image a.jpg (id 6) twice" in error(raw)
    raw = coco(tmp_path, categories=[{"id": 7, "name": "dog"}, {"id": 8, "name": "background"}])
    assert "a category is called background" in error(raw)


def test_an_image_that_is_not_there_and_a_category_that_training_lacks_are_strays(tmp_path):
    raw = coco(tmp_path, categories=[{"id": 90, "name": "cat"}], annotations=[
        {"id": 1, "image_id": 5, "category_id": 90, "segmentation": [[1, 1, 4, 1, 4, 3]]}
    ])  # fmt: skip
    (raw / "train2017/b.jpg").unlink()
    strays = survey(raw).strays
    assert strays["test2017/a.jpg"].endswith(
        "annotation 1 has the category 7, which the training file does not list"
    )
    assert strays["b.jpg"] == "no image is named b.jpg (annotations/instances_train2017.json)"


def test_two_layouts_in_one_folder_are_rejected_by_name_and_one_can_be_chosen(tmp_path):
    raw = voc(tmp_path)
    put(raw, *(f"{split}/{kind}/a.png" for split in ("train", "val", "test") for kind in ("images", "masks")))
    text = error(raw)
    assert "two layouts, voc (VOC2012/SegmentationClass/a.png) and folders (test/masks/a.png)" in text
    assert text.endswith("name the one to read in prepare.format")
    assert survey(raw, "voc").layout == "voc"
    assert len(survey(raw, "folders").splits["train"]) == 1


def test_a_folder_without_masks_says_what_to_put_there(tmp_path):
    assert "there are no masks: put images into train/images/" in error(tmp_path)
    put(tmp_path, "train/images/a.png")
    assert "there are no masks" in error(tmp_path)
    assert "no image with a mask in the layout folders: set prepare.format to auto, which" in error(
        tmp_path, "folders"
    )


def test_images_without_a_split_for_training_are_not_enough(tmp_path):
    put(tmp_path, "test/images/a.png", "test/masks/a.png")
    assert "no annotated images for training, only for test" in error(tmp_path)


def test_groups_that_names_tell_are_drawn_whole(tmp_path):
    names = [f"p{patient}_{number}" for patient in range(10) for number in range(4)]
    put(tmp_path, *(f"{kind}/{name}.png" for name in names for kind in ("images", "masks")))
    found = survey(tmp_path)
    assert "groups that file names tell" in found.drawn
    patients = {split: {each.image.split("_")[0] for each in images} for split, images in found.splits.items()}
    assert not patients["test"] & (patients["train"] | patients["val"])
    again = survey(tmp_path, resplit=1)
    assert [each.image for each in again.splits["test"]] != [each.image for each in found.splits["test"]]


@REAL
def test_the_layouts_of_datumaro_are_recognised(tmp_path):
    with tarfile.open(SHARED / "datumaro-fixtures.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    assets = tmp_path / "datumaro-fixtures/tests/assets"
    found = survey(assets / "camvid_dataset")
    assert found.layout == "folders"
    assert {split: len(images) for split, images in found.splits.items()} == {"train": 1, "val": 1, "test": 2}
    assert not found.strays
    city = assets / "cityscapes_dataset/dataset"
    for file in city.glob("gtFine/*/*/*_instanceIds.png"):  # without instances, these are the labels' ids
        shutil.copyfile(file, file.with_name(file.name.replace("instanceIds", "labelIds")))
    found = survey(city)
    assert found.layout == "cityscapes"
    assert {split: len(images) for split, images in found.splits.items()} == {"train": 1, "val": 1, "test": 2}
    with pytest.raises(PedigreeError, match="too few"):
        survey(assets / "common_semantic_segmentation_dataset/dataset")
    instances = assets / "coco_dataset/coco_instances"
    shutil.copytree(instances, tmp_path / "coco")
    found = coco_regions.read(below(tmp_path / "coco"))
    assert found.classes == ["background", "a", "b", "c"]


@REAL
def test_camvid_has_367_images_for_training_and_101_for_validation(tmp_path):
    with tarfile.open(SHARED / "camvid-trainval.tar") as archive:
        for name in archive.getnames():
            path = tmp_path / name
            if path.suffix:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    found = survey(tmp_path / "camvid")
    assert found.layout == "folders"
    assert not found.strays
    assert len(found.splits["val"]) == 101
    assert len(found.splits["train"]) + len(found.splits["test"]) == 367
