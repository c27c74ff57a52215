"""The class of each pixel of a mask file, in every way in which masks are stored."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from components.images.masks import mask_files, voc_classes
from components.images.masks.mask_files import Unusable
from tests.conftest import ROOT

TRAPS = ROOT.parent / "shared" / "datasets" / "images" / "annotation-traps.tar"
TABLE = mask_files.from_values({"road": 0, "car": 1, "tree": 7}, (255,))
COLOURS = mask_files.from_colours({"road": (128, 64, 128), "car": (0, 0, 142)}, ((0, 0, 0),))
NUMBERS = np.array([[0, 1, 7], [255, 1, 0]], np.uint8)


def encoded(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()


def painted(*colours) -> np.ndarray:
    return np.array([colours], np.uint8)


def reason(data: bytes, table: mask_files.Table = TABLE) -> str:
    with pytest.raises(Unusable) as error:
        mask_files.labels(data, table, 64)
    return str(error.value)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_a_grey_mask_has_a_class_for_each_number_and_none_for_the_ignored_one(kind):
    labels, _ = mask_files.labels(encoded(NUMBERS, kind), TABLE, 64)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[1, 2, 3], [0, 2, 1]]


def test_a_mask_with_a_palette_is_read_by_index_whatever_its_colours():
    image = Image.fromarray(NUMBERS)
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    assert image.mode == "P"
    labels, cases = mask_files.labels(encoded(image), TABLE, 64)
    assert labels.tolist() == [[1, 2, 3], [0, 2, 1]]
    assert cases == [mask_files.PALETTE]


@pytest.mark.skipif(not TRAPS.exists(), reason="the real masks are not on this machine")
@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("2011_000003", {"background", "bottle", "person"}),
        ("2011_000006", {"background", "chair", "person", "sofa"}),
        ("2011_000025", {"background", "bus", "car"}),
    ],
)
def test_masks_of_pascal_voc_have_its_classes_and_borders_of_none(name, classes):
    with tarfile.open(TRAPS) as archive:
        file = archive.extractfile(f"traps/voc-palette/{name}.png")
        assert file is not None
        data = file.read()
    labels, _ = mask_files.labels(data, voc_classes.TABLE, 64)
    assert {voc_classes.CLASSES[label - 1] for label in np.unique(labels) if label} == classes
    with Image.open(io.BytesIO(data)) as image:
        assert (labels == 0).sum() == (np.asarray(image) == 255).sum()


def test_a_mask_of_voc_that_was_saved_in_its_colours_is_the_same():
    image = Image.fromarray(np.array([[0, 15, 255]], np.uint8))
    image.putpalette(bytes(np.array([voc_classes.colour(index) for index in range(256)], np.uint8)))
    by_index, _ = mask_files.labels(encoded(image), voc_classes.TABLE, 64)
    by_colour, _ = mask_files.labels(encoded(image.convert("RGB")), voc_classes.TABLE, 64)
    assert by_index.tolist() == by_colour.tolist() == [[1, 16, 0]]
    assert voc_classes.colour(15) == (192, 128, 128)
    assert voc_classes.colour(255) == (224, 224, 192)


def test_a_mask_in_colours_is_read_by_the_table_and_other_colours_are_named():
    pixels = painted((128, 64, 128), (0, 0, 142), (0, 0, 0))
    assert mask_files.labels(encoded(pixels), COLOURS, 64)[0].tolist() == [[1, 2, 0]]
    other = painted((128, 64, 128), (1, 2, 3))
    assert reason(encoded(other), COLOURS) == "colours outside the classes: [1, 2, 3]"


def test_a_palette_gives_the_colours_if_the_classes_have_colours():
    image = Image.fromarray(np.array([[3, 9]], np.uint8))
    palette = np.zeros((256, 3), np.uint8)
    palette[3], palette[9] = (128, 64, 128), (0, 0, 142)
    image.putpalette(palette.tobytes())
    assert mask_files.labels(encoded(image), COLOURS, 64)[0].tolist() == [[1, 2]]


def test_a_mask_in_colours_without_a_table_says_what_to_set():
    text = reason(encoded(painted((128, 64, 128), (0, 0, 142))))
    assert text.startswith("it has colours: set prepare.classes")
    assert "[0, 0, 142], [128, 64, 128]" in text


def test_a_grey_mask_that_was_saved_in_rgb_is_read_as_numbers():
    labels, cases = mask_files.labels(encoded(np.stack([NUMBERS] * 3, 2)), TABLE, 64)
    assert labels.tolist() == [[1, 2, 3], [0, 2, 1]]
    assert cases == [mask_files.GREY_AS_RGB]


def test_values_outside_the_classes_are_named():
    assert reason(encoded(np.array([[0, 192, 200]], np.uint8))) == "values outside the classes: 192, 200"


def test_numbers_of_16_bits_as_of_instances_are_no_classes():
    assert reason(encoded(np.array([[3, 27001]], np.uint16))) == "values outside the classes: 3, 27001"


def test_a_mask_saved_as_jpeg_says_that_this_changed_it():
    pixels = np.kron(np.array([[0, 1], [7, 0]]), np.full((9, 9), 1)).astype(np.uint8) * 30
    assert reason(encoded(pixels, "JPEG")).endswith("; JPEG changes the values of a mask: store it as PNG")


def test_a_mask_of_one_bit_has_the_numbers_0_and_1():
    image = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert mask_files.labels(encoded(image), TABLE, 64)[0].tolist() == [[1, 2]]


def test_a_transparent_mask_is_rejected_and_an_opaque_one_is_not():
    pixels = np.dstack([NUMBERS] * 3 + [np.full_like(NUMBERS, 255)])
    assert mask_files.labels(encoded(pixels), TABLE, 64)[0].tolist() == [[1, 2, 3], [0, 2, 1]]
    pixels[0, 0, 3] = 9
    assert "transparent" in reason(encoded(pixels))


@pytest.mark.parametrize("data", [b"", b"\x00\x00\x00\x18ftypmp42", b"no image", encoded(NUMBERS)[:45]])
def test_what_is_no_image_is_rejected_with_a_reason(data):
    assert reason(data)


def test_the_values_of_a_mask_are_those_it_has_in_order():
    assert mask_files.values(encoded(NUMBERS), 64) == [0, 1, 7, 255]


def test_masks_of_single_objects_make_up_the_foreground():
    one, other = np.zeros((2, 3), np.uint8), np.zeros((2, 3), np.uint8)
    one[0, 0], other[1, 2] = 255, 1
    instances = [mask_files.binary(encoded(each), 64) for each in (one, other)]
    assert mask_files.merged(instances).tolist() == [[2, 1, 1], [1, 1, 2]]
    with pytest.raises(Unusable, match=r"several sizes: 3 x 2, 2 x 3"):
        mask_files.merged([instances[0], np.zeros((3, 2), bool)])


def test_the_mask_of_one_object_with_several_values_is_rejected():
    with pytest.raises(Unusable, match="has the values 0, 1, 7, 255 instead of 0 and one other"):
        mask_files.binary(encoded(NUMBERS), 64)
