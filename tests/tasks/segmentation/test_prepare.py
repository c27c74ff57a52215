"""Images and masks become arrays; what cannot be used is rejected by name, and what was found is counted."""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.errors import PedigreeError
from components.tasks.segmentation.prepare import SegmentationFacts, load_split
from tests.conftest import ROOT
from tests.tasks.segmentation.tiny import write
from tests.tasks.segmentation.values import prepared, values

SHARED = ROOT.parent / "shared" / "datasets" / "images"
REAL = pytest.mark.skipif(not SHARED.exists(), reason="the real data sets are not on this machine")
NAMED = ["background", "square", "disc"]


def facts(done) -> SegmentationFacts:
    return SegmentationFacts.model_validate(done.manifest.facts)


def reasons(done) -> dict[str, str]:
    return {each.file: each.reason for each in done.manifest.rejected}


def binary(raw: Path, foreground: int = 255) -> None:
    """Write masks of 0 and another value."""
    write(raw)
    for file in raw.glob("*/masks/*.png"):
        pixels = np.asarray(Image.open(file))
        Image.fromarray(((pixels == 1) * foreground).astype(np.uint8)).save(file)


def test_images_and_masks_are_stored_at_their_own_size_and_pixels_of_no_class_as_0(tmp_path):
    write(tmp_path / "raw")
    done = prepared(tmp_path)
    split = load_split(done.folder, "test")
    assert facts(done).classes == ["0", "1", "2"]
    for number in range(len(split)):
        stored = np.asarray(Image.open(tmp_path / f"raw/test/masks/{number:03d}.png"))
        assert np.array_equal(split.ragged["mask"][number].numpy(), np.where(stored == 255, 0, stored + 1))
        image = np.asarray(Image.open(tmp_path / f"raw/test/images/{number:03d}.png"))
        assert np.array_equal(split.ragged["image"][number].numpy(), image)


def test_the_facts_have_the_pixels_and_the_shares_of_each_class(tmp_path):
    write(tmp_path / "raw")
    done = prepared(tmp_path)
    masks = [np.asarray(Image.open(file)) for file in sorted(tmp_path.glob("raw/train/masks/*.png"))]
    for index in range(3):
        assert facts(done).pixels["train"][index] == sum(int((mask == index).sum()) for mask in masks)
        there = [mask for mask in masks if (mask == index).any()]
        expected = sum((mask == index).sum() for mask in there) / sum((mask != 255).sum() for mask in there)
        assert facts(done).shares[index] == pytest.approx(expected)
    pixels = np.concatenate(
        [np.asarray(Image.open(f)).reshape(-1, 3) for f in tmp_path.glob("raw/train/images/*.png")]
    )
    np.testing.assert_allclose(facts(done).mean, pixels.mean(0) / 255)
    np.testing.assert_allclose(facts(done).std, pixels.std(0) / 255)


def test_masks_of_0_and_255_alone_have_a_foreground_and_no_pixels_without_a_class(tmp_path):
    binary(tmp_path / "raw")
    done = prepared(tmp_path)
    assert facts(done).classes == ["background", "foreground"]
    assert set(np.unique(load_split(done.folder, "train").ragged["mask"].values.numpy())) == {1, 2}


def test_cityscapes_ids_are_its_19_classes_and_pixels_of_other_ids_have_none(tmp_path):
    ids = np.array([[7, 33, 26], [0, 4, 255]], np.uint8)
    for split, city in (
        ("train", "aachen"),
        ("val", "ulm"),
        ("test", "bonn"),
    ):  # names of three lengths, images of three kinds
        for kind, end, pixels in (
            ("leftImg8bit", "leftImg8bit", np.arange(len(city), len(city) + 18, dtype=np.uint8).reshape(2, 3, 3)),
            ("gtFine", "gtFine_labelIds", ids if split != "test" else ids * 0),
        ):
            file = tmp_path / f"raw/{kind}/{split}/{city}/{city}_000000_000019_{end}.png"
            file.parent.mkdir(parents=True)
            Image.fromarray(pixels).save(file)
    with pytest.raises(PedigreeError, match="no image of test has a pixel with a class: label some, or take these"):
        prepared(tmp_path)
    Image.fromarray(ids).save(tmp_path / "raw/gtFine/test/bonn/bonn_000000_000019_gtFine_labelIds.png")
    shutil.rmtree(tmp_path / "prepared")
    found = prepared(tmp_path)
    assert (len(facts(found).classes), facts(found).classes[-1]) == (19, "bicycle")
    assert load_split(found.folder, "test").ragged["mask"][0].tolist() == [[1, 19, 14], [0, 0, 0]]


def test_in_other_masks_255_is_no_class_unless_it_is_named_as_one(tmp_path):
    write(tmp_path / "raw")
    assert 0 in load_split(prepared(tmp_path, prepare={"classes": NAMED}).folder, "train").ragged["mask"].values
    shutil.rmtree(tmp_path / "prepared")
    done = prepared(tmp_path, prepare={"classes": dict(zip([*NAMED, "rim"], (0, 1, 2, 255), strict=True))})
    assert 0 not in load_split(done.folder, "train").ragged["mask"].values


def test_a_number_other_than_255_can_be_without_a_class(tmp_path):
    binary(tmp_path / "raw", 1)
    for file in tmp_path.glob("raw/*/masks/*.png"):
        pixels = np.array(Image.open(file))
        pixels[:3] = 11
        Image.fromarray(pixels).save(file)
    done = prepared(tmp_path, prepare={"classes": {"no": 0, "yes": 1}, "ignore": 11})
    assert (load_split(done.folder, "test").ragged["mask"][0][:3] == 0).all()


def test_numbers_with_gaps_have_to_be_named(tmp_path):
    binary(tmp_path / "raw", 7)
    with pytest.raises(PedigreeError, match=r"have the numbers 0, 7, not all from 0 on: name the number"):
        prepared(tmp_path)


def test_masks_with_values_outside_the_classes_are_rejected_by_name_and_too_many_of_them_stop_the_stage(tmp_path):
    write(tmp_path / "raw")
    file = tmp_path / "raw/train/masks/005.png"
    Image.fromarray(np.array(Image.open(file)) * np.uint8(60)).save(file)
    done = prepared(tmp_path, prepare={"classes": NAMED})
    assert "train/images/005.png" in reasons(done)
    assert "values outside the classes: 60, 120, 196 (in train/masks/005.png)" in reasons(done).values()
    assert done.manifest.splits["train"].samples == 23
    shutil.rmtree(tmp_path / "prepared")
    with pytest.raises(PedigreeError, match=r"1 of 42 files cannot be used, more than prepare.max_rejected 0.01"):
        prepared(tmp_path, prepare={"classes": NAMED, "max_rejected": 0.01})


def test_a_video_named_jpg_a_truncated_image_and_a_mask_of_another_size_are_rejected_by_name(tmp_path):
    write(tmp_path / "raw", train=60)
    images = tmp_path / "raw/train/images"
    (images / "001.png").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(100))
    (images / "002.png").write_bytes((images / "002.png").read_bytes()[:900])
    Image.open(images / "003.png").crop((0, 0, 40, 40)).save(images / "003.png")
    (images / "004.png").unlink()
    (tmp_path / "raw/train/masks/005.png").unlink()
    done = prepared(tmp_path, prepare={"max_rejected": 0.1})
    assert reasons(done) == {
        "train/images/001.png": "not an image: a video",
        "train/images/002.png": "truncated",
        "train/images/003.png": "it has 40 x 40 pixels, but its annotation says 56 x 48",
        "train/images/005.png": "an image without a mask",
        "train/masks/004.png": "a mask without an image",
    }


def test_an_image_of_test_is_in_no_other_split(tmp_path):
    write(tmp_path / "raw")
    for kind in ("images", "masks"):
        shutil.copyfile(tmp_path / f"raw/test/{kind}/004.png", tmp_path / f"raw/train/{kind}/099.png")
    reason = reasons(prepared(tmp_path))["train/images/099.png"]
    assert reason == "duplicate of an image of an earlier split: test/images/004.png"


def orientation(path: Path, number: int) -> None:
    """Store an image with an EXIF orientation."""
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = number
        image.save(path, exif=exif)


@pytest.mark.parametrize("upright", [True, False])
def test_an_image_is_turned_by_exif_if_its_mask_has_the_size_that_it_has_then(tmp_path, upright):
    write(tmp_path / "raw")
    image = tmp_path / "raw/test/images/001.png"
    mask = tmp_path / "raw/test/masks/001.png"
    stored = np.array(Image.open(image))
    orientation(image, 6)
    if upright:
        Image.open(mask).transpose(Image.Transpose.ROTATE_270).save(mask)
    done = prepared(tmp_path)
    found = load_split(done.folder, "test").ragged["image"][1].numpy()
    assert np.array_equal(found, np.rot90(stored, -1) if upright else stored)
    what = "images turned by their EXIF orientation" if upright else "images left as stored, as their masks are"
    assert facts(done).cases == {what: 1}


def test_grey_transparent_and_cmyk_images_become_rgb_and_are_counted(tmp_path):
    write(tmp_path / "raw")
    for number, mode in ((1, "L"), (2, "RGBA")):
        path = tmp_path / f"raw/train/images/{number:03d}.png"
        Image.open(path).convert(mode).save(path)
    path = tmp_path / "raw/train/images/003.png"
    Image.open(path).convert("CMYK").save(path.with_suffix(".jpg"))
    path.unlink()
    done = prepared(tmp_path)
    names = [f"images of Pillow's mode {mode}, converted to RGB" for mode in ("CMYK", "L", "RGBA")]
    assert facts(done).cases == dict.fromkeys(names, 1)
    assert done.manifest.splits["train"].samples == 24


def test_large_images_are_made_smaller_and_the_masks_of_test_are_not(tmp_path):
    write(tmp_path / "raw")
    done = prepared(tmp_path, prepare={"longest": 32})
    for split, size in (("train", (27, 32)), ("test", (48, 56))):
        columns = load_split(done.folder, split).ragged
        assert tuple(columns["image"][0].shape) == (27, 32, 3)
        assert tuple(columns["mask"][0].shape) == size


def test_parameters_that_contradict_each_other_are_named():
    for classes, ignore, text in (
        ({"a": 0}, "auto", "2 to 255 names"),
        (["a", "a"], "auto", "different names"),
        ({"a": 0, "b": 0}, "auto", "different numbers"),
        ({"a": 0, "b": [1, 2, 3]}, "auto", "numbers or colours, not both"),
        ({"a": 0, "b": 1}, 1, "ignore 1 is one of the classes"),
        ({"a": 0, "b": 1}, [1, 2, 3], "ignore is a number if classes have numbers"),
    ):
        with pytest.raises(PedigreeError, match=text):
            values(prepare={"classes": classes, "ignore": ignore})


@REAL
def test_masks_of_pascal_voc_have_its_21_classes(tmp_path):
    with tarfile.open(SHARED / "annotation-traps.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    for name, kind in (("voc-images", "JPEGImages"), ("voc-palette", "SegmentationClass")):
        shutil.copytree(tmp_path / "traps" / name, tmp_path / "raw" / kind)
    done = prepared(tmp_path)
    assert len(facts(done).classes) == 21
    assert facts(done).layout == "voc"
    assert facts(done).cases == {"masks with a palette, read by index": 3}
    assert sum(map(sum, facts(done).pixels.values())) == 500 * 338 + 2 * 500 * 375 - 5 * 0 - void(tmp_path)


def void(folder: Path) -> int:
    return sum(int((np.asarray(Image.open(file)) == 255).sum()) for file in folder.glob("raw/SegmentationClass/*"))


@REAL
def test_instances_of_nuclei_become_the_foreground(tmp_path):
    with tarfile.open(SHARED / "nuclei-256.tar.gz") as archive:
        names = archive.getnames()
        folders = sorted({name.split("/")[1] for name in names if name.count("/") == 2})[:6]
        archive.extractall(
            tmp_path, [m for m in archive if m.name.split("/")[1:2] and m.name.split("/")[1] in folders]
        )
    (tmp_path / "nuclei").rename(tmp_path / "raw")
    done = prepared(tmp_path)
    assert facts(done).layout == "instances"
    assert facts(done).classes == ["background", "foreground"]
    assert facts(done).cases == {"images of Pillow's mode RGBA, converted to RGB": 6}
    name = (done.folder / "test.files.txt").read_text().split("/")[0]
    masks = [np.asarray(Image.open(file)) > 0 for file in (tmp_path / "raw" / name / "masks").iterdir()]
    found = load_split(done.folder, "test").ragged["mask"][0].numpy()
    assert np.array_equal(found == 2, np.any(masks, axis=0))


@REAL
def test_the_real_jpeg_with_an_odd_orientation_is_used_and_the_truncated_one_is_rejected(tmp_path):
    write(tmp_path / "raw", train=60)
    with tarfile.open(SHARED / "annotation-traps.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    for path in (tmp_path / "traps/kangaroo/images").iterdir():
        shutil.copyfile(path, tmp_path / f"raw/train/images/{path.name}")
        with Image.open(path) as image:
            Image.new("L", image.size, 1).save(tmp_path / f"raw/train/masks/{path.stem}.png")
    done = prepared(tmp_path)
    assert done.manifest.splits["train"].samples == 63
    assert set(reasons(done)) == {"train/images/00090.jpg"}
