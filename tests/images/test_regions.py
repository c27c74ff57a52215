"""COCO's polygons and run lengths as the class of each pixel."""

import json
import tarfile

import numpy as np
import pytest
from faster_coco_eval.core import mask as coco

from components.images.masks import regions
from components.images.masks.regions import Region, Unusable, painted
from tests.conftest import ROOT

TINY = ROOT.parent / "shared" / "datasets" / "images" / "coco-tiny.tar"
SQUARE = [[1, 1, 4, 1, 4, 3, 1, 3]]


def region(shape, label=2, crowd=False) -> Region:
    return Region("annotation 7", label, crowd, shape)


def runs(inside: np.ndarray) -> dict:
    """COCO's uncompressed run lengths: down the columns, those outside first."""
    flat = inside.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *edges, len(flat)]).tolist()
    return {"counts": [0, *lengths] if flat[0] else lengths, "size": list(inside.shape)}


def reason(shape) -> str:
    with pytest.raises(Unusable) as error:
        painted([region(shape)], 5, 6)
    return str(error.value)


def test_a_polygon_covers_the_pixels_that_it_covers_for_coco():
    labels, _ = painted([region(SQUARE)], 5, 6)
    assert labels.tolist() == [[1, 1, 1, 1, 1, 1], *[[1, 2, 2, 2, 1, 1]] * 2, *[[1] * 6] * 2]


def test_run_lengths_are_read_compressed_and_uncompressed():
    inside = np.random.default_rng(0).random((40, 70)) < 0.3
    inside[:, 20:60] = True
    compressed = coco.encode(np.asfortranarray(inside.astype(np.uint8)))
    compressed["counts"] = compressed["counts"].decode()
    for shape in (runs(inside), compressed):
        labels, _ = painted([region(shape)], 40, 70)
        assert ((labels == 2) == inside).all()


@pytest.mark.skipif(not TINY.exists(), reason="the images of COCO are not on this machine")
def test_the_regions_of_coco_are_the_pixels_that_its_tools_find():
    with tarfile.open(TINY) as archive:
        file = archive.extractfile("coco-tiny/annotations/instances_val2017.json")
        assert file is not None
        document = json.load(file)
    sizes = {image["id"]: (image["height"], image["width"]) for image in document["images"]}
    crowds = [each for each in document["annotations"] if each["iscrowd"]]
    others = [each for each in document["annotations"] if not each["iscrowd"]]
    assert len(crowds) == 11
    for each in [*crowds, *others[:80]]:
        height, width = sizes[each["image_id"]]
        shape = each["segmentation"]
        found = coco.frPyObjects(shape, height, width)
        expected = coco.decode(coco.merge(found) if isinstance(shape, list) else found)
        labels, _ = painted([region(shape)], height, width)
        assert ((labels == 2) == expected.astype(bool)).all()


def test_pixels_of_a_crowd_have_no_class_unless_they_are_of_an_object():
    whole = [[0, 0, 6, 0, 6, 5, 0, 5]]
    labels, cases = painted([region(SQUARE), region(whole, 3, True)], 5, 6)
    assert (labels == 2).sum() == 6
    assert (labels == 0).sum() == 24
    assert cases == [regions.CROWDS]


def test_of_objects_that_overlap_the_smaller_one_is_in_front():
    whole = [[0, 0, 6, 0, 6, 5, 0, 5]]
    for order in ([region(SQUARE), region(whole, 3)], [region(whole, 3), region(SQUARE)]):
        labels, cases = painted(order, 5, 6)
        assert (labels == 2).sum() == 6
        assert cases == [regions.OVERLAPS]


def test_an_image_without_regions_is_background():
    assert painted([], 2, 3)[0].tolist() == [[1, 1, 1], [1, 1, 1]]


def test_a_polygon_that_is_hardly_outside_is_cut_off_and_one_further_outside_is_rejected():
    labels, cases = painted([region([[0, 0, 6.1, 0, 6.1, 5, 0, 5]])], 5, 6)
    assert (labels == 2).all()
    assert cases == [regions.CLIPPED]
    assert reason([[0, 0, 7, 0, 7, 5, 0, 5]]) == "annotation 7 has a polygon outside the image of 6 x 5 pixels"


@pytest.mark.parametrize("shape", [[], None, "x", 3])
def test_an_annotation_without_a_region_is_named(shape):
    assert reason(shape) == "annotation 7 has no polygons or run lengths"


@pytest.mark.parametrize(
    "polygon",
    [[1, 1, 2, 2], [1, 1, 2, 2, 3], [1, 1, 2, 2, 3, "x"], 5, [1, 1, 2, 2, 3, None], [1, 1, 2, 2, 3, 10**400]],
)
def test_a_malformed_polygon_is_named(polygon):
    assert "a polygon that is no list of at least three points" in reason([polygon])


@pytest.mark.parametrize(
    "counts", [[30, 1], [-1, 31], [30.0], "", "o", "oooooooooooooooooooo0", [15, "15"], None, [10**12]]
)
def test_run_lengths_that_do_not_fill_the_image_are_named(counts):
    assert "run lengths that do not fill 5 x 6 pixels" in reason({"counts": counts, "size": [5, 6]})


def test_run_lengths_of_another_size_are_named():
    assert reason({"counts": [30], "size": [6, 5]}) == "annotation 7 has run lengths of the size [6, 5], not [5, 6]"
