import io
import math

import numpy as np
import pytest
from PIL import Image

from components.contracts import Rejected
from components.errors import PedigreeError
from components.tasks.image_generation.serve import load_predict, served
from tests.tasks.image_generation.values import SIZE, SMALL, manifest, network

PREDICT = load_predict(network(), manifest(), SMALL)


def pixels(answer):
    return [np.array(Image.open(io.BytesIO(each))) for each in answer["images"]]


def ask(*rows, **settings):
    return PREDICT(list(rows), settings)


def test_an_answer_has_as_many_images_as_were_asked_for_and_each_is_that_of_the_next_seed():
    (several,) = ask({"class": "b", "seed": 5, "count": 35})
    alone = ask(*({"class": "b", "seed": seed} for seed in (5, 6, 39)))
    images = pixels(several)
    assert len(images) == 35
    assert images[0].shape == (SIZE, SIZE)
    for (image,), other in zip(map(pixels, alone), (images[0], images[1], images[34]), strict=True):
        assert np.array_equal(image, other)


def test_rows_with_other_settings_are_answered_together_and_in_order():
    rows = [{"class": "a", "steps": 2}, {"class": "a", "steps": 3}, {"class": "c", "guidance": 2.0, "seed": 1}]
    together = ask(*rows)
    assert together == [answer for row in rows for answer in ask(row)]
    assert len({answer["images"][0] for answer in together}) == 3
    assert ask({"class": "a"}, steps=3)[0] == together[1], "what a row leaves out, the request sets"
    assert ask({"class": "a", "steps": None, "seed": math.nan, "count": 1.0}) == [together[0]]


def test_colour_is_served_in_colour():
    predict = load_predict(network(channels=3), manifest(channels=3), SMALL)
    (answer,) = predict([{"class": "a"}], {})
    assert pixels(answer)[0].shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"class": "d"}, "there is no class 'd'; the classes are a, b, c"),
        ({}, "it names no class; the classes are a, b, c"),
        ({"class": None}, "it names no class; the classes are a, b, c"),
        ({"class": "a", "seed": 2**70}, "seed = 1180591620717411303424: Input should be less than"),
        ({"class": "a", "guidance": math.inf}, "guidance = inf: Input should be a finite number"),
        ({"class": "a", 5: 1}, "5 is no column of it; leave it out"),
        ({"class": "a", "count": 41}, "count 41 is more than 40"),
        ({"class": "a", "steps": 101}, "steps 101 is more than 100"),
        ({"class": "a", "count": 0}, "count = 0: Input should be greater than or equal to 1"),
        ({"class": "a", "seed": -1}, "seed = -1: Input should be greater"),
        ({"class": "a", "sampler": "rk4"}, "sampler = 'rk4': Input should be 'euler' or 'heun'"),
        ({"class": "a", "guidance": "much"}, "guidance = 'much': Input should be a valid number"),
        ({"class": "a", "sede": 1}, "'sede' is no column of it; did you mean seed"),
    ],
)
def test_a_row_beyond_the_limits_is_rejected_with_the_reason_and_the_others_are_answered(row, said):
    first, rejected, last = ask({"class": "a"}, row, {"class": "a"})
    assert first == last
    assert isinstance(rejected, Rejected)
    assert said in rejected.reason


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"steps": 101}, "steps 101 is more than"), ({"stepz": 1}, "'stepz' is unknown; did you")],
)
def test_wrong_params_reject_the_request(settings, said):
    with pytest.raises(PedigreeError, match=f"^the request's params: {said}"):
        ask(**settings)


def test_what_is_served_says_what_a_row_may_leave_out():
    promise = served(manifest(), SMALL)
    assert promise.optional == {"count", "seed", "sampler", "steps", "guidance"} == promise.params.keys()
    assert promise.media == {"images": "image/png"}
