import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from components.classification.report import judge
from components.contracts import Manifest, Rejected
from components.datasets.ingest import contents
from components.images.decoding.decode import Unusable, decode
from components.params import read, validate
from components.tasks.image_classification.params import VisionParams
from components.tasks.image_classification.serve import load_predict, served

SIZE = 28
PARAMS = validate(VisionParams, read(Path(__file__).parents[2] / "params.yaml"), ("models", "digits"))


def manifest(classes=("a", "b", "c"), channels=1):
    facts = {
        "classes": list(classes),
        "channels": channels,
        "size": SIZE,
        "mean": [0.5] * channels,
        "std": [0.5] * channels,
        "counts": {},
    }
    return Manifest(task="image_classification", splits={}, rejected=[], facts=facts)


class Network(nn.Module):
    """Images on the scale 0..255 to logits, with parts that behave otherwise while training."""

    def __init__(self, classes=3, channels=1):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.drop = nn.BatchNorm2d(channels), nn.Dropout()
        self.head = nn.Linear(channels * SIZE * SIZE, classes)

    def forward(self, image):
        return self.head(self.drop(self.norm(image.float() / 255)).flatten(1))


def file(seed=0, mode="L", size=(SIZE, SIZE), kind="PNG"):
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def predictor(model, described):
    """What answers rows when the request sets nothing."""
    predict = load_predict(model, described, PARAMS)
    return lambda rows: predict(rows, {})


def test_base64_and_a_data_url_are_answered_as_the_bytes_are():
    predict = predictor(Network(), manifest())
    data = file()
    text = base64.b64encode(data).decode()
    wrapped = base64.encodebytes(data).decode()  # with line ends, as mail and `base64` write it
    url = f"data:image/png;base64,{text}"
    answers = predict([{"image": image} for image in (data, bytearray(data), text, wrapped, url)])
    assert answers == [answers[0]] * 5


def test_the_label_is_what_evaluation_counts():
    network, images = Network(), [file(seed) for seed in range(20)]
    answers = predictor(network, manifest())([{"image": image} for image in images])
    decoded = torch.stack(
        [torch.from_numpy(decode(image, SIZE, 1, PARAMS.prepare.max_megapixels)) for image in images]
    )
    with torch.inference_mode():
        judged = judge(network.eval()(decoded), torch.zeros(20, dtype=torch.long))
    assert [answer["label"] for answer in answers] == ["abc"[i] for i in judged.predicted]
    assert len({answer["label"] for answer in answers}) > 1
    assert [answer["probability"] for answer in answers] == pytest.approx(judged.probability.tolist())


def test_many_rows_are_answered_in_order():
    predict = predictor(Network(), manifest())
    images = [{"image": file(seed)} for seed in range(70)]
    together = predict(images)
    for row, answer in zip(images, together, strict=True):
        (alone,) = predict([row])
        assert alone["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-6)


def test_no_rows_have_no_answers():
    assert predictor(Network(), manifest())([]) == []


def test_every_class_has_its_probability():
    classes = [f"class {i}" for i in range(200)]
    (answer,) = predictor(Network(200), manifest(classes))([{"image": file()}])
    assert list(answer["probabilities"]) == classes
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert answer["probability"] == max(answer["probabilities"].values())
    assert answer["label"] == max(classes, key=answer["probabilities"].__getitem__)


def test_of_equally_probable_classes_the_first_is_the_label():
    network = Network()
    nn.init.zeros_(network.head.weight)
    nn.init.zeros_(network.head.bias)
    (answer,) = predictor(network, manifest())([{"image": file()}])
    assert (answer["label"], answer["probability"]) == ("a", pytest.approx(1 / 3))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_an_image_of_any_size_colour_and_format_is_answered(channels, kind):
    predict = predictor(Network(3, channels), manifest(channels=channels))
    images = [file(1, "RGB", (120, 90), kind), file(2, "L", (31, 200), kind)]
    assert len(predict([{"image": image} for image in images])) == 2


def test_a_row_that_is_no_image_is_rejected_and_the_others_are_answered():
    predict = predictor(Network(), manifest())
    rows = [{"image": file(seed)} for seed in range(70)]
    whole = predict(rows)
    rows[66] = {"image": file()[:60]}
    answers = predict(rows)
    rejected = answers.pop(66)
    assert isinstance(rejected, Rejected)
    assert re.fullmatch(r"the image cannot be used: .+; send another", rejected.reason)
    for answer, before in zip(answers, whole[:66] + whole[67:], strict=True):
        assert answer["probabilities"] == pytest.approx(before["probabilities"], abs=1e-6)


def test_rows_none_of_which_is_an_image_are_all_rejected():
    answers = predictor(Network(), manifest())([{"image": b"no image"}] * 65)
    assert [type(answer) for answer in answers] == [Rejected] * 65


def test_an_image_larger_than_preparation_takes_is_rejected():
    few = PARAMS.model_copy(update={"prepare": PARAMS.prepare.model_copy(update={"max_megapixels": 0.01})})
    rows = [{"image": file(size=size)} for size in ((101, 100), (100, 100))]
    large, small = load_predict(Network(), manifest(), few)(rows, {})
    assert "max_megapixels 0.01" in large.reason
    assert set(small) == {"label", "probability", "probabilities"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"image": "not base64!"}, "neither base64 nor a data URL"),
        ({"image": "nicht base64 ä"}, "neither base64 nor a data URL"),
        ({"image": "data:image/png;base64"}, "neither base64 nor a data URL"),
        ({"image": "data:image/png;base64,"}, "zero bytes"),
        ({"image": None}, "expected bytes, base64 or a data URL in the column image and found null"),
        ({"image": ""}, ""),
        ({"image": b""}, ""),
        ({"image": 3.5}, "float"),
        ({"image": []}, "expected bytes, base64 or a data URL in the column image and found list"),
        ({"picture": b""}, "expected bytes, base64 or a data URL in the column image and found null"),
    ],
)
def test_what_is_no_image_is_rejected_with_the_reason(row, reason):
    (answer,) = predictor(Network(), manifest())([row])
    assert isinstance(answer, Rejected)
    assert re.match(f"the image cannot be used: .*{reason}", answer.reason)


def test_what_preparation_rejects_is_rejected_in_a_request_for_the_same_reason(tmp_path):
    stream, noise = io.BytesIO(), file(size=(400, 400), mode="RGB", kind="JPEG")
    Image.new("L", (SIZE, SIZE), 255).save(stream, "PNG")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    damaged = noise[:20_000] + bytes(5000) + noise[25_000:]
    said = []
    for number, data in enumerate((stream.getvalue(), pointer, damaged, b"\xff\x0a" + bytes(99))):
        (tmp_path / f"{number}.png").write_bytes(data)
        with pytest.raises(Unusable) as error:
            decode(contents(tmp_path, f"{number}.png", "an image"), SIZE, 1, PARAMS.prepare.max_megapixels)
        (answer,) = predictor(Network(), manifest())([{"image": data}])
        assert answer.reason == f"the image cannot be used: {error.value}; send another"
        said.append(str(error.value).split()[:3])
    assert said == [
        ["all", "pixels", "have"],
        ["a", "Git", "LFS"],
        ["damaged:", "the", "compressed"],
        ["JPEG", "XL,", "a"],
    ]


def test_a_network_that_was_training_answers_as_in_evaluation_and_is_left_unchanged():
    network = Network().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    predict = predictor(network, manifest())
    assert predict([{"image": file()}]) == predict([{"image": file()}])
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_example_is_answered_with_the_columns_that_were_promised(channels):
    described = manifest(channels=channels)
    promise = served(described, PARAMS)
    assert list(promise.example) == list(promise.inputs)
    (answer,) = predictor(Network(3, channels), described)([promise.example])
    assert list(answer) == list(promise.outputs)
    assert served(described, PARAMS) == promise
