import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from components.classification import judge
from components.contracts import Manifest
from components.errors import PedigreeError
from components.vision.decode import decode
from components.vision.register import MAX_MEGAPIXELS, load_predict, served

SIZE = 28


def manifest(classes=("a", "b", "c"), channels=1):
    facts = {
        "classes": list(classes),
        "channels": channels,
        "size": SIZE,
        "mean": [0.5] * channels,
        "std": [0.5] * channels,
        "counts": {},
    }
    return Manifest(task="vision", splits={}, refused=[], facts=facts)


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
    predict = load_predict(model, described)
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
    decoded = torch.stack([torch.from_numpy(decode(image, SIZE, 1, MAX_MEGAPIXELS)) for image in images])
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


def test_a_row_that_is_no_image_fails_the_request_and_is_named():
    predict = predictor(Network(), manifest())
    rows = [{"image": file()} for _ in range(70)]
    rows[66] = {"image": file()[:60]}
    with pytest.raises(PedigreeError, match=r"^row 66: the image cannot be used: .+; send another$"):
        predict(rows)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"image": "not base64!"}, "not base64"),
        ({"image": "nicht base64 ä"}, "not base64"),
        ({"image": "data:image/png;base64"}, ""),
        ({"image": ""}, ""),
        ({"image": b""}, ""),
        ({"image": None}, "NoneType"),
        ({"image": 3.5}, "float"),
        ({"picture": b""}, "NoneType"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(row, reason):
    with pytest.raises(PedigreeError, match=f"^row 0: the image cannot be used: .*{reason}"):
        predictor(Network(), manifest())([row])


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
    promise = served(described)
    assert list(promise.example) == list(promise.inputs)
    (answer,) = predictor(Network(3, channels), described)([promise.example])
    assert list(answer) == list(promise.outputs)
    assert served(described) == promise
