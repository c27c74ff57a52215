"""An image file in, a mask of its size and the areas of the classes out."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from components.contracts import Manifest, Rejected
from components.errors import PedigreeError
from components.tasks.segmentation.serve import answered, draw, load_predict, served
from tests.tasks.segmentation.test_train import FACTS, network
from tests.tasks.segmentation.tiny import scene
from tests.tasks.segmentation.values import values

MANIFEST = Manifest(task="segmentation", splits={}, rejected=[], facts=FACTS)


def file(kind="PNG", **options) -> bytes:
    pixels, _ = scene(np.random.default_rng(0), 50, 70)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture(scope="module")
def predict():
    torch.manual_seed(0)
    answer = load_predict(network(), MANIFEST, values(prepare={"longest": 48}))
    return lambda *images: answer([{"image": image} for image in images], {})


def mask(answer) -> np.ndarray:
    with Image.open(io.BytesIO(answer["mask"])) as image:
        assert (image.format, image.mode) == ("PNG", "P")
        return np.asarray(image)


def test_the_mask_has_the_size_of_the_image_and_the_areas_are_its_own(predict):
    (answer,) = predict(file())
    pixels = mask(answer)
    assert pixels.shape == (50, 70)
    assert answer["classes"] == FACTS["classes"]
    assert list(answer["areas"]) == FACTS["classes"]
    for index, name in enumerate(answer["classes"]):
        assert answer["areas"][name] == pytest.approx((pixels == index).mean())
    assert sum(answer["areas"].values()) == pytest.approx(1)


def test_an_image_is_turned_upright_and_so_is_its_mask(predict):
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = io.BytesIO()
    Image.open(io.BytesIO(file())).transpose(Image.Transpose.ROTATE_270).save(upright, "PNG")
    turned, expected = predict(file(exif=exif), upright.getvalue())
    assert mask(turned).shape == (70, 50)
    assert np.array_equal(mask(turned), mask(expected))


def test_images_of_other_sizes_in_a_request_change_nothing(predict):
    other = io.BytesIO()
    Image.open(io.BytesIO(file())).crop((0, 0, 33, 41)).save(other, "PNG")
    (alone,) = predict(file())
    assert predict(other.getvalue(), file(), other.getvalue())[1] == alone


def test_base64_and_data_urls_are_images_and_others_are_rejected_with_a_reason(predict):
    text = base64.b64encode(file()).decode()
    first, second, *rejected = predict(
        text, f"data:image/png;base64,{text}", b"", b"\x00\x00\x00\x18ftypmp42", None
    )
    assert first == second
    assert all(isinstance(each, Rejected) for each in rejected)
    assert "a video" in rejected[1].reason


def test_the_palette_of_the_mask_is_black_for_the_background_and_differs_between_classes(predict):
    (answer,) = predict(file())
    palette = np.reshape(Image.open(io.BytesIO(answer["mask"])).getpalette(), (-1, 3))[:3].tolist()
    assert palette[0] == [0, 0, 0]
    assert len({tuple(colour) for colour in palette}) == 3


def test_the_answer_of_another_version_is_read_by_the_names_of_its_classes(predict):
    (answer,) = predict(file())
    pixels = mask(answer)
    found = answered(answer, ["disc", "background"])
    assert np.array_equal(found, np.array([1, 2, 0], np.uint8)[pixels])
    with pytest.raises(PedigreeError, match="no columns 'mask' and 'classes' but label"):
        answered({"label": "a"}, ["disc"])


def test_what_is_served_names_the_media_type_of_the_mask():
    described = served(MANIFEST, values())
    assert described.media == {"mask": "image/png"}
    assert described.requirements == ("pillow",)
    assert "torchvision" in served(MANIFEST, values(train={"model": {"network": "mobilenet_v2"}})).requirements


def test_an_answer_is_drawn_over_its_image(predict):
    (answer,) = predict(file())
    drawn = np.asarray(Image.open(io.BytesIO(draw({"image": file()}, answer))))
    plain = np.asarray(Image.open(io.BytesIO(file())))
    assert drawn.shape == plain.shape
    changed = (drawn != plain).any(2)
    assert changed.any()
    assert not changed[mask(answer) == 0].any(), "the background keeps its colours"
