"""The served detector: boxes in the caller's pixels, and pictures of them."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from components.contracts import Manifest, Rejected
from components.errors import PedigreeError
from components.images import drawing
from components.images.annotations import layout
from components.images.measures import counting
from components.tasks.object_detection import evaluate, serve
from components.tasks.object_detection.model import build_model
from components.trust import intervals
from tests.images.test_annotations import real
from tests.tasks.object_detection import tiny
from tests.tasks.object_detection.values import facts, prepared, values


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    tiny.write(folder / "raw", {"train": 12, "val": 4, "test": 6})
    return prepared(folder / "raw", folder / "out")


@pytest.fixture(scope="module")
def served(scenes):
    """Return a function that loads a random network with changed parameters."""

    def load(threshold=0.5, **changes):
        torch.manual_seed(0)
        params = values(train={"model": {"width": 0.125, "neck": 16}}, **changes)
        model = build_model(params, scenes.manifest)
        model.get_buffer("threshold")[:] = threshold
        return serve.load_predict(model, scenes.manifest, params)

    return load


def png(width=60, height=40, **save):
    file = io.BytesIO()
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(file, "PNG", **save)
    return file.getvalue()


ALL = {"threshold": 0.0}


def test_an_answer_is_a_list_of_boxes_by_descending_score_inside_the_image(served):
    ((answer,),) = [served()([{"image": png()}], ALL)]
    scores = [each["score"] for each in answer["boxes"]]
    assert scores == sorted(scores, reverse=True)
    assert {*answer["boxes"][0]} == {"label", "score", "x", "y", "width", "height"}
    for each in answer["boxes"]:
        assert 0 <= each["x"] <= each["x"] + each["width"] <= 60
        assert 0 <= each["y"] <= each["y"] + each["height"] <= 40


def test_boxes_of_a_reduced_image_are_in_pixels_of_the_file(served):
    (small,) = served()([{"image": png(64, 64)}], ALL)
    file = io.BytesIO()
    with Image.open(io.BytesIO(png(64, 64))) as image:
        image.resize((256, 256), Image.Resampling.NEAREST).save(file, "PNG")
    (large,) = served(prepare={"longest": 64})([{"image": file.getvalue()}], ALL)
    assert max(each["x"] + each["width"] for each in large["boxes"]) > 128
    assert len(small["boxes"]) > 0


def test_an_image_is_answered_as_it_is_shown(served):
    tags = Image.Exif()
    tags[0x0112] = 6
    (answer,) = served()([{"image": png(exif=tags)}], ALL)
    assert max(each["y"] + each["height"] for each in answer["boxes"]) > 40


def test_answers_do_not_depend_on_other_images_of_the_request(served):
    predict = served()
    alone = predict([{"image": png()}], ALL)[0]["boxes"]
    among = predict(
        [{"image": png(100, 90)}, {"image": png()}, {"image": b"no image"}, {"image": png(32, 32)}], ALL
    )
    assert isinstance(among[2], Rejected)
    assert len(alone) == len(among[1]["boxes"])
    for one, other in zip(alone, among[1]["boxes"], strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_the_threshold_of_a_request_replaces_those_of_the_classes(served):
    row = {"image": base64.b64encode(png()).decode()}
    every = served()([row], ALL)[0]["boxes"]
    least, label = every[len(every) // 2]["score"], every[0]["label"]
    reached = [each for each in every if each["score"] >= least]
    assert served(least)([row], {})[0]["boxes"] == reached
    only = torch.ones(10, dtype=torch.float64)
    only[int(label)] = least
    predict = served(only)
    assert predict([row], {"threshold": None})[0]["boxes"] == [each for each in reached if each["label"] == label]
    assert predict([row], {"threshold": least})[0]["boxes"] == reached
    with pytest.raises(PedigreeError, match=r"threshold is 2: send a number between 0 and 1"):
        predict([row], {"threshold": 2.0})


def test_answers_to_the_test_images_give_the_outcomes_of_evaluation(scenes, served, tmp_path):
    from components.tasks.object_detection import train
    from components.tasks.object_detection.prepare import load_images, load_split

    torch.manual_seed(0)
    params = values(train={"model": {"width": 0.125, "neck": 16}})
    model = build_model(params, scenes.manifest).eval()
    split = load_split(scenes.folder, "test")
    with torch.inference_mode():
        predictions = [train.predict(model, split.__getitems__(torch.arange(6)), params)]
    expected = evaluate.outcomes(predictions, scenes, params)
    rows = list(serve.rows(scenes, lambda: scenes.folder.parent / "raw"))
    found = evaluate.outcomes_from(served()(rows, serve.ALL), scenes)
    answers = served(0.11)(rows, {})
    score = evaluate.score(scenes.manifest)
    assert intervals.value(found, score) == pytest.approx(intervals.value(expected, score), abs=1e-6)
    assert found.columns.keys() == expected.columns.keys()
    counted = [np.bincount([int(each["label"]) for each in one["boxes"]], minlength=10) for one in answers]
    every = list(evaluate._found(predictions, load_images(scenes.folder, "test")))
    tallies = counting.count([evaluate._scored(each, 10) for each in every], np.full(10, 0.11))
    assert np.array_equal(tallies.counted, counted), "evaluation counts the boxes of answers"
    rejected = evaluate.outcomes_from([Rejected("too large")] * 6, scenes)
    assert intervals.value(rejected, score) == 0


def test_right_answers_in_cocos_format_have_an_average_precision_of_1_in_cocos_own_evaluation(tmp_path):
    from faster_coco_eval import COCO, COCOeval_faster

    raw = real("coco-tiny.tar", tmp_path) / "coco-tiny"
    truth = COCO(raw / "annotations" / "instances_val2017.json")
    found = layout.read(raw, "coco", "auto", False)
    entries = coco_format(classes=found.classes, ids=found.ids)
    results = []
    for picture in found.splits["val"]:
        boxes = [
            {"label": found.classes[each.label], "score": 0.5, **sides(each)}
            for each in picture.boxes
            if not each.crowd
        ]
        results += entries(picture.file, {"boxes": boxes})
    assert type(results[0]["image_id"]) is int
    evaluation = COCOeval_faster(truth, truth.loadRes(json.loads(json.dumps(results))), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, -1]
    assert precision[precision > -1].min() == 1


def coco_format(**known):
    manifest = Manifest(task="object_detection", splits={}, rejected=[], facts=facts(**known))
    return serve.served(manifest, values()).formats["coco"]


def sides(box):
    return {"x": box.left, "y": box.top, "width": box.right - box.left, "height": box.bottom - box.top}


def test_in_cocos_format_a_name_that_is_no_number_is_the_id_and_classes_of_other_formats_count_from_1():
    box = {"label": "b", "score": 0.5, "x": 1.0, "y": 2.0, "width": 3.0, "height": 4.0}
    (entry,) = coco_format(classes=["a", "b"])("cells/left_3.jpg", {"boxes": [box]})
    assert entry == {"image_id": "left_3", "category_id": 2, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.5}


def test_a_picture_has_the_boxes_of_the_answer_in_one_colour_a_class():
    boxes = [
        {"label": label, "score": 0.9, "x": x, "y": 42.0, "width": 30.0, "height": 20.0}
        for label, x in (("a", 5.0), ("$b$", 65.0), ("a", 125.0))
    ]
    with Image.open(io.BytesIO(serve.draw({"image": png(200, 100)}, {"boxes": boxes}))) as image:
        assert image.size == (200, 100)
        assert image.getpixel((5, 50)) == image.getpixel((125, 50)) == drawing.colour_of("a")
        assert image.getpixel((65, 50)) == drawing.colour_of("$b$")


def test_a_part_of_an_image_shows_a_box_and_what_is_around_it():
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[40:60, 180:200] = 255
    part, box = drawing.cut(pixels, (180, 40, 200, 60))
    left, top, right, bottom = map(int, box)
    assert part.shape[0] == part.shape[1] == 50
    assert part[top:bottom, left:right].min() == 255
    assert part.sum() == pixels.sum()
