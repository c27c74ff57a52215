"""Readers of annotated images: what people have, with every mistake that their tools make."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.datasets.ingest import Unusable
from components.errors import PedigreeError
from components.images.annotations import layout
from components.images.annotations.boxes import Box, Picture, in_pixels
from tests.conftest import ROOT
from tests.images.formats import write_coco, xml

REAL = ROOT.parent / "shared" / "datasets" / "images"


def real(name: str, folder: Path) -> Path:
    """Unpack a set of real files."""
    if not (REAL / name).is_file():
        pytest.skip(f"{name} is not here: it is a real data set that is not part of the repository")
    with tarfile.open(REAL / name) as tar:
        tar.extractall(folder, filter="data")
    return folder


def read(raw, form="auto", origin="auto", empty_ok=False):
    return layout.read(raw, form, origin, empty_ok)


def picture(folder: Path, name: str = "a.png", size: tuple[int, int] = (40, 30)) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 80).convert("RGB").save(path)
    return path


def boxes(*sides, relative=False, size=(40, 30)):
    own = [Box(*each, 0, False, f"box {number}") for number, each in enumerate(sides, 1)]
    return in_pixels(Picture("a.png", "a.json", size, own, relative), *size)


def voc(folder: Path, *own, name: str = "a", split: str = "train", **settings) -> None:
    picture(folder, f"{split}/{name}.png")
    (folder / split / f"{name}.xml").write_text(xml(own, f"{name}.png", (40, 30), **settings))


def yolo(folder: Path, text: str, split: str = "train", name: str = "a") -> None:
    picture(folder, f"images/{split}/{name}.png")
    path = folder / "labels" / split / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    (folder / "data.yaml").write_text("names: [red, white]\n")


def only(annotations, split="train"):
    (found,) = annotations.splits[split]
    return found


def sides(annotations, split="train"):
    return [tuple(round(side, 6) for side in box[:4]) for box in only(annotations, split).boxes]


# --- boxes


def test_a_box_that_hardly_reaches_beyond_the_image_is_cut_off_there():
    found, counts = boxes((-0.5, 2, 10, 30.4))
    assert found[:, :4].tolist() == [[0, 2, 10, 30]]
    assert counts["boxes clipped at the image's edge"] == 1


@pytest.mark.parametrize("box", [(-3, 2, 10, 20), (5, 5, 60, 20), (5, 5, 20, 31), (5, 40, 20, 60)])
def test_a_box_outside_its_image_rejects_it_with_its_place_and_the_size(box):
    with pytest.raises(Unusable, match=r"^box 1 of a\.json reaches .* the image has 40 x 30 pixels$"):
        boxes(box)


@pytest.mark.parametrize("box", [(5, 5, 5, 20), (5, 5, 6, 20), (20, 5, 10, 20), (5, 20, 9, 10)])
def test_boxes_without_area_and_with_swapped_sides_are_dropped_and_counted(box):
    found, counts = boxes(box, (1, 1, 9, 9))
    assert found[:, :4].tolist() == [[1, 1, 9, 9]]
    assert counts == {"boxes of at most one pixel in width or height, dropped": 1}


def test_a_repeated_box_is_dropped_and_counted():
    found, counts = boxes((1, 1, 9, 9), (1, 1, 9.001, 9))
    assert len(found) == counts["repeated boxes, dropped"] == 1


@pytest.mark.parametrize("side", [float("nan"), float("inf")])
def test_a_coordinate_that_is_no_number_rejects_the_image(side):
    with pytest.raises(Unusable, match=r"box 1 of a.json has a coordinate that is no finite number"):
        boxes((1, 1, side, 9))


def test_coordinates_are_rounded_to_a_hundredth_of_a_pixel():
    assert boxes((1.234, 2.001, 9.999, 9.5))[0][0, :4].tolist() == [1.23, 2.0, 10.0, 9.5]


def test_an_image_without_objects_has_boxes_of_zero_rows():
    assert boxes()[0].shape == (0, 6)


# --- which format


def test_a_folder_without_annotations_says_what_may_be_there(tmp_path):
    picture(tmp_path)
    with pytest.raises(PedigreeError, match=r"instances_train.json.*Annotations/.*labels/ and data.yaml"):
        read(tmp_path)


def test_two_formats_in_one_folder_are_an_error_that_names_both_and_format_chooses_one(tmp_path):
    voc(tmp_path, (0, 0, 9, 9, "cell"))
    write_coco(tmp_path, {"a.png": [(1, 2, 3, 4)]})
    with pytest.raises(PedigreeError, match=r"coco \(annotations/.*json\) and voc \(train/a.xml\).*prepare.format"):
        read(tmp_path)
    assert read(tmp_path, "coco").format == "coco"
    assert read(tmp_path, "voc", 1).format == "voc"
    with pytest.raises(PedigreeError, match=r"prepare.format is yolo, but there are no such files"):
        read(tmp_path, "yolo")


def test_hidden_files_and_other_programs_json_are_no_annotations(tmp_path):
    yolo(tmp_path, "0 .5 .5 .2 .2")
    (tmp_path / ".a.xml").write_text("<annotation/>")
    (tmp_path / "_annotations.createml.json").write_text("[]")
    assert read(tmp_path).format == "yolo"


@pytest.mark.parametrize(
    ("name", "form", "classes", "counts"),
    [
        ("coco_dataset/coco", "coco", ["a", "b", "c"], {"train": 1, "val": 1}),
        ("coco_dataset/coco_roboflow", "coco", ["a", "b", "c"], {"train": 1, "val": 1}),
        ("coco_dataset/mmdet_coco", "coco", ["a", "b", "c"], {"train": 1, "val": 1}),
        ("roboflow_dataset/coco", "coco", ["label_0", "label_1"], {"train": 2, "val": 1}),
        ("roboflow_dataset/voc", "voc", ["label_0", "label_1"], {"train": 2, "val": 1}),
        ("roboflow_dataset/yolo", "yolo", ["label_0", "label_1"], {"train": 2, "val": 1}),
    ],
)
def test_layouts_of_other_tools_are_read(tmp_path, name, form, classes, counts):
    raw = real("datumaro-fixtures.tar.gz", tmp_path) / "datumaro-fixtures/tests/assets" / name
    found = read(raw)
    assert (found.format, found.classes) == (form, classes)
    assert {split: len(each) for split, each in found.splits.items()} == counts
    assert not found.rejected


# --- COCO


def test_classes_of_coco_are_in_the_order_of_their_ids_which_have_gaps(tmp_path):
    raw = real("coco-tiny.tar", tmp_path) / "coco-tiny"
    found = read(raw)
    assert (found.format, len(found.classes), found.classes[11], found.ids[11]) == ("coco", 80, "stop sign", 13)
    assert {split: len(pictures) for split, pictures in found.splits.items()} == {"train": 40, "val": 40}
    crowds = [box for pictures in found.splits.values() for each in pictures for box in each.boxes if box.crowd]
    assert len(crowds) == 17, "6 + 11; the files have neither info nor licenses"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": []}, "lists no images"),
        ({"annotations": None}, "has no list of annotations"),
        ({"categories": [{"id": 3}]}, "a category has no id or no name"),
        ({"categories": [{"id": 3, "name": "a"}, {"id": 4, "name": "a"}]}, "ids and names of their own"),
        ({"annotations": [{"bbox": [1, 2, 3, 4]}]}, "an annotation has no image_id"),
        ({"annotations": [{"image_id": [1]}]}, "an annotation has no image_id"),
        ({"images": [{"id": [1], "file_name": "a.png"}]}, "an image has no id or file_name"),
        ({"categories": [{"id": float("inf"), "name": "cell"}]}, "a category has no id or no name"),
    ],
)
def test_a_broken_coco_file_is_an_error_with_its_name(tmp_path, changes, message):
    picture(tmp_path)
    path = write_coco(tmp_path, {"a.png": [(1, 2, 3, 4)]}, **changes)
    with pytest.raises(PedigreeError, match=message) as error:
        read(tmp_path)
    assert str(path) in str(error.value)


def test_an_image_that_is_listed_under_two_paths_or_in_two_files_is_an_error(tmp_path):
    picture(tmp_path / "images")
    path = write_coco(tmp_path, {"a.png": [(1, 2, 3, 4)], "images/a.png": [(5, 6, 7, 8)]})
    message = r"lists the image images/a.png, which is already listed in annotations/instances_"
    with pytest.raises(PedigreeError, match=message):
        read(tmp_path)
    path.unlink()
    for split in ("train", "test"):
        write_coco(tmp_path, {"a.png": [(1, 2, 3, 4)]}, f"instances_{split}.json")
    with pytest.raises(PedigreeError, match=message):
        read(tmp_path)


def test_a_size_that_is_none_and_a_name_that_no_file_has_are_no_error(tmp_path):
    picture(tmp_path)
    path = write_coco(tmp_path, {"a.png": [(1, 2, 3, 4)], "\ud800.png": []})
    document = json.loads(path.read_text())
    document["images"][0] |= {"width": -40, "height": True}
    path.write_text(json.dumps(document))
    found = read(tmp_path)
    assert only(found).size is None
    assert list(found.rejected) == ["\\ud800.png"]
    found.rejected["\\ud800.png"].encode()


def test_a_truncated_json_file_is_an_error_with_its_line(tmp_path):
    picture(tmp_path)
    path = write_coco(tmp_path, {"a.png": [(1, 2, 3, 4)]})
    path.write_text(path.read_text()[:-20])
    with pytest.raises(PedigreeError, match=r"instances_train.json is not JSON: .* line 1"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"category_id": 9}, "annotation 1 has the category 9, which the training file does not list"),
        ({"bbox": [1, 2, 3]}, "annotation 1 has no bbox of four numbers"),
        ({"bbox": [1, 2, "x", 4]}, "annotation 1 has no bbox of four numbers"),
        ({"bbox": [10**400, 2, 3, 4]}, "annotation 1 has no bbox of four numbers"),
    ],
)
def test_an_unusable_annotation_rejects_its_image_and_no_other(tmp_path, annotation, reason):
    for name in ("a.png", "b.png"):
        picture(tmp_path, name)
    path = write_coco(tmp_path, {"a.png": [(1, 2, 3, 4)], "b.png": [(1, 2, 3, 4)]})
    document = json.loads(path.read_text())
    document["annotations"][0] |= annotation
    path.write_text(json.dumps(document))
    found = read(tmp_path)
    assert only(found).file == "b.png"
    assert list(found.rejected) == ["a.png"]
    assert reason in found.rejected["a.png"]


def test_images_that_are_missing_or_unlisted_are_rejected_by_name_and_masks_elsewhere_are_not(tmp_path):
    for name in ("images/a.png", "images/unlisted.png", "masks/a.png"):
        picture(tmp_path, name)
    write_coco(tmp_path, {"images/a.png": [(1, 2, 3, 4)], "b.png": []})
    found = read(tmp_path)
    assert only(found).file == "images/a.png"
    assert found.rejected == {
        "b.png": "no image is named b.png (annotations/instances_train.json)",
        "images/unlisted.png": "no annotation file lists it",
    }


def test_a_class_with_another_name_in_the_test_file_is_an_error(tmp_path):
    picture(tmp_path, "train/a.png")
    picture(tmp_path, "test/b.png")
    write_coco(tmp_path, {"a.png": [(1, 2, 3, 4)]})
    write_coco(tmp_path, {"b.png": []}, "instances_test.json", categories=[{"id": 3, "name": "dog"}])
    with pytest.raises(PedigreeError, match=r"category 3 is 'dog', and 'cell' in .*instances_train.json"):
        read(tmp_path)


def test_an_image_is_found_in_the_folder_of_its_split_where_another_has_its_name(tmp_path):
    for split in ("train", "val"):
        picture(tmp_path, f"images/{split}2017/1.png")
        write_coco(tmp_path, {"1.png": [(1, 2, 3, 4)]}, f"instances_{split}2017.json")
    found = read(tmp_path)
    assert only(found).file == "images/train2017/1.png"
    assert only(found, "val").file == "images/val2017/1.png"


def test_two_files_of_one_split_are_an_error(tmp_path):
    picture(tmp_path)
    write_coco(tmp_path, {"a.png": []})
    write_coco(tmp_path, {"a.png": []}, "instances_train2017.json")
    with pytest.raises(PedigreeError, match=r"are both of train: keep one"):
        read(tmp_path)


# --- Pascal VOC


def test_voc_counts_pixels_from_one_if_boxes_touch_one_and_the_width(tmp_path):
    raw = real("bccd.tar.gz", tmp_path) / "BCCD"
    found = read(raw)
    assert (found.format, found.origin, found.classes) == ("voc", 1, ["Platelets", "RBC", "WBC"])
    assert {split: len(each) for split, each in found.splits.items()} == {"test": 72, "train": 205, "val": 87}
    every = [box for each in found.splits.values() for picture in each for box in picture.boxes]
    assert min(min(box.left, box.top) for box in every) == 0
    assert max(box.right for box in every) == 640
    counts = [in_pixels(each, 640, 480)[1] for pictures in found.splits.values() for each in pictures]
    assert sum(each["boxes of at most one pixel in width or height, dropped"] for each in counts) == 2


def test_boxes_at_zero_show_that_voc_files_count_from_zero(tmp_path):
    voc(tmp_path, (0, 3, 9, 9, "cell"), first=0)
    found = read(tmp_path)
    assert (found.origin, sides(found)) == (0, [(0, 3, 9, 9)])


def test_voc_files_that_count_from_one_lose_a_pixel_at_the_left_and_top_only(tmp_path):
    voc(tmp_path, (0, 3, 40, 9, "cell"))
    found = read(tmp_path)
    assert (found.origin, sides(found)) == (1, [(0, 3, 40, 9)])


def test_where_boxes_do_not_tell_the_origin_it_must_be_set(tmp_path):
    voc(tmp_path, (3, 3, 9, 9, "cell"))
    with pytest.raises(PedigreeError, match=r"set prepare.box_origin to 1 or 0"):
        read(tmp_path)
    assert sides(read(tmp_path, origin=1)) == [(3, 3, 9, 9)]
    assert sides(read(tmp_path, origin=0)) == [(4, 4, 9, 9)]


def test_voc_coordinates_may_have_fractions(tmp_path):
    voc(tmp_path, (0.25, 0, 40, 9.5, "cell"), first=0)
    assert sides(read(tmp_path)) == [(0.25, 0, 40, 9.5)]


def test_an_image_is_matched_by_the_name_of_its_xml_file_whatever_that_names(tmp_path):
    voc(tmp_path, (0, 0, 40, 9, "cell"))
    path = tmp_path / "train" / "a.xml"
    path.write_text(path.read_text().replace("a.png", r"C:\photos\IMG_1.jpg"))
    found = read(tmp_path)
    assert only(found).file == "train/a.png"
    assert found.counts == {"files whose <filename> is another, matched by their own name": 1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<annotation>", "not XML: no element found"),
        ("<kitti/>", "its outermost element is <kitti> instead of <annotation>"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', "it declares a document type"),
        ("<annotation><object><name>cell</name></object></annotation>", "object 1 has no <bndbox> of four numbers"),
        ('<?xml version="1.0" encoding="gb2312"?><annotation/>', "its encoding cannot be read (multi-byte"),
        ('<?xml version="1.0" encoding="none"?><annotation/>', "its encoding cannot be read (unknown encoding"),
    ],
)
def test_an_unusable_xml_file_is_rejected_with_the_reason(tmp_path, text, reason):
    voc(tmp_path, (0, 0, 40, 9, "cell"))
    voc(tmp_path, name="b")
    (tmp_path / "train" / "b.xml").write_text(text)
    found = read(tmp_path)
    assert reason in found.rejected["train/b.xml"]
    assert only(found).file == "train/a.png"


def test_a_second_xml_file_of_an_image_is_rejected_and_an_infinite_size_or_side_counts_for_nothing(tmp_path):
    voc(tmp_path, (0, 0, 40, 9, "cell"))
    voc(tmp_path, (0, 0, 40, 9, ""), name="b")
    file = tmp_path / "train" / "b.xml"
    file.write_text(file.read_text().replace(">40</width>", ">inf</width>").replace("<xmin>1<", "<xmin>-inf<"))
    (tmp_path / "train" / "copy").mkdir()
    shutil.copy(tmp_path / "train" / "a.xml", tmp_path / "train" / "copy")
    found = read(tmp_path)
    assert found.classes == ["cell"]
    assert found.origin == 1
    assert found.rejected == {
        "train/b.png": "train/b.xml: the training split has no class ''",
        "train/copy/a.xml": "it describes train/a.png, as does train/a.xml: remove one of them",
    }


def test_entities_in_xml_are_never_expanded_in_any_encoding(tmp_path):
    voc(tmp_path, (0, 0, 40, 9, "cell"))
    voc(tmp_path, name="b")
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    text = f'<!DOCTYPE a [<!ENTITY e0 "ha">{levels}]><annotation><folder>&e11;</folder></annotation>'
    (tmp_path / "train" / "b.xml").write_bytes(text.encode("utf-16"))
    assert "it declares a document type" in read(tmp_path).rejected["train/b.xml"]


def test_an_image_without_an_xml_file_and_a_class_that_train_lacks_are_rejected_by_name(tmp_path):
    voc(tmp_path, (0, 0, 40, 9, "cell"))
    picture(tmp_path, "train/c.png")
    voc(tmp_path, (0, 0, 9, 9, "dog"), name="d", split="test")
    assert read(tmp_path).rejected == {
        "train/c.png": "it has no XML file: write one, without an <object> if nothing is on it",
        "test/d.png": "test/d.xml: the training split has no class 'dog'",
    }


def test_a_name_in_a_list_without_an_image_is_rejected(tmp_path):
    voc(tmp_path, (0, 0, 40, 9, "cell"))
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "trainval.txt").write_text("a\ngone\n")
    found = read(tmp_path)
    assert found.rejected == {"gone": "the list of train in ImageSets/Main names it, but there is no such image"}


# --- YOLO


def test_yolo_rows_are_shares_of_the_image(tmp_path):
    yolo(tmp_path, "1 0.5 0.5 0.25 0.2\n")
    found = read(tmp_path)
    assert (found.classes, only(found).relative) == (["red", "white"], True)
    assert in_pixels(only(found), 40, 30)[0].tolist() == [[15, 12, 25, 18, 1, 0]]


def test_the_box_of_a_polygon_is_taken_and_counted(tmp_path):
    yolo(tmp_path, "0 .1 .2 .5 .2 .3 .8\n")
    found = read(tmp_path)
    assert sides(found) == [(0.1, 0.2, 0.5, 0.8)]
    assert found.counts == {"polygons, of which the box was taken": 1}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2 .5 .5 .2 .2", "line 2 of labels/train/b.txt has the class 2, but data.yaml names 2 classes, from 0"),
        ("0.5 .5 .5 .2 .2", "has the class 0.5"),
        ("0 .5 .5 .2", "line 2 of labels/train/b.txt has 4 numbers instead of 5"),
        ("red .5 .5 .2 .2", "line 2 of labels/train/b.txt has something else than numbers"),
    ],
)
def test_an_unusable_yolo_row_rejects_its_image_with_file_and_line(tmp_path, line, reason):
    yolo(tmp_path, "0 .5 .5 .2 .2")
    yolo(tmp_path, f"0 .5 .5 .2 .2\n{line}\n", name="b")
    found = read(tmp_path)
    assert reason in found.rejected["images/train/b.png"]
    assert only(found).file == "images/train/a.png"


def test_an_image_without_a_text_file_is_empty_only_if_that_is_allowed(tmp_path):
    yolo(tmp_path, "0 .5 .5 .2 .2")
    picture(tmp_path, "images/train/b.png")
    assert "there is no labels/train/b.txt" in read(tmp_path).rejected["images/train/b.png"]
    found = read(tmp_path, empty_ok=True)
    assert len(found.splits["train"]) == 2
    assert found.counts == {"images without a text file, which count as empty": 1}


def test_a_text_file_without_an_image_is_rejected(tmp_path):
    yolo(tmp_path, "0 .5 .5 .2 .2")
    (tmp_path / "labels" / "train" / "c.txt").write_text("")
    assert read(tmp_path).rejected == {"labels/train/c.txt": "it has no image"}


@pytest.mark.parametrize(
    "text", [None, "nc: 2\n", "names: []\n", "names: [a, a]\n", "names: {\n", "names: {0: a, x: b}\n"]
)
def test_yolo_without_names_of_its_classes_is_an_error(tmp_path, text):
    yolo(tmp_path, "0 .5 .5 .2 .2")
    (tmp_path / "data.yaml").unlink()
    if text:
        (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(PedigreeError, match=r"data.yaml"):
        read(tmp_path)


def test_names_may_be_numbered(tmp_path):
    yolo(tmp_path, "0 .5 .5 .2 .2")
    (tmp_path / "data.yaml").write_text("names:\n  0: red\n  1: white\n")
    assert read(tmp_path).classes == ["red", "white"]


def test_in_yolos_folders_per_split_images_and_labels_are_below_the_split(tmp_path):
    yolo(tmp_path / "x", "0 .5 .5 .2 .2", split="")
    for split in ("train", "valid"):
        shutil.copytree(tmp_path / "x", tmp_path / "y" / split)
        (tmp_path / "y" / split / "data.yaml").unlink()
    (tmp_path / "y" / "data.yaml").write_text("names: [red, white]\n")
    found = read(tmp_path / "y")
    assert {split: only(found, split).file for split in found.splits} == {
        "train": "train/images/a.png",
        "val": "valid/images/a.png",
    }
    assert np.allclose(sides(found), [(0.4, 0.4, 0.6, 0.6)])
