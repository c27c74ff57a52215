"""The composed lesions."""

import csv
import hashlib
import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.datasets import raw_files
from components.errors import PedigreeError
from components.images.embedded import lesions
from components.images.labels import layouts
from components.tasks.image_classification import data
from tests.images.test_layouts import options

HAS_PHOTOGRAPH = importlib.util.find_spec("skimage") is not None
pytestmark = pytest.mark.skipif(not HAS_PHOTOGRAPH, reason="scikit-image, of the extra [demo], is not installed")


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lesions")
    data.lesions(folder)
    return folder


@pytest.fixture(scope="module")
def green() -> np.ndarray:
    origin = importlib.util.find_spec("skimage").origin
    with Image.open(Path(origin).parent / "data" / "retina.jpg") as image:
        return np.asarray(image)[:, :, 1]


def rows(raw: Path) -> list[dict[str, str]]:
    with (raw / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_files_are_byte_for_byte_the_same_everywhere(raw):
    digest = hashlib.sha256()
    for file in sorted(path for path in raw.rglob("*") if path.is_file()):
        digest.update(file.relative_to(raw).as_posix().encode() + file.read_bytes())
    assert digest.hexdigest() == "3593b26668efd7c2dcf29cac624a91f08d5b675adf6393f063153f5f1972b9d7"


def test_half_of_each_region_has_a_lesion_and_a_region_is_in_one_split(raw):
    labels = Counter((row["patient"], row["label"]) for row in rows(raw))
    assert set(labels.values()) == {lesions.PATCHES // 2}
    splits = {(row["patient"], row["split"]) for row in rows(raw)}
    assert len(splits) == len({patient for patient, _ in splits})
    assert {split for _, split in splits} == {"train", "val", "test"}


def test_regions_do_not_overlap_and_are_inside_the_field_of_view(raw, green):
    corners = lesions._regions(green)
    assert len(corners) == len({row["patient"] for row in rows(raw)})
    covered = np.zeros(green.shape, int)
    for top, left in corners:
        covered[top : top + lesions.REGION, left : left + lesions.REGION] += 1
    assert covered.max() == 1
    assert green[covered > 0].min() >= lesions.DARK


def test_a_patch_without_a_lesion_is_a_part_of_its_region(raw, green):
    corners = lesions._regions(green)
    healthy = [row for row in rows(raw) if row["label"] == "healthy"]
    for row in healthy[:: len(healthy) // 20]:
        top, left = corners[int(row["patient"].split()[1])]
        region = green[top : top + lesions.REGION, left : left + lesions.REGION]
        windows = np.lib.stride_tricks.sliding_window_view(region, (lesions.PATCH, lesions.PATCH))
        with Image.open(raw / row["path"]) as image:
            assert (windows == np.asarray(image)).all((2, 3)).any()


def test_they_are_read_through_the_manifest_and_marked_as_composed(raw):
    source = layouts.find(raw, "auto", options())
    assert source.format == "csv"
    assert source.survey.classes == ["healthy", "lesion"]
    assert not source.survey.strays
    assert len(set(source.survey.patients.values())) == len({row["patient"] for row in rows(raw)})
    assert "composed" in (raw / raw_files.COMPOSED).read_text()


def test_without_scikit_image_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    with pytest.raises(
        PedigreeError, match=r"is not installed: install it with `uv pip install 'pedigree\[demo\]'`"
    ):
        data.lesions(tmp_path)
