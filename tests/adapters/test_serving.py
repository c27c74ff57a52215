"""The registered model, served by MLflow's own program from another folder."""

import base64
import csv
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def address(chain, tmp_path_factory):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    folder = tmp_path_factory.mktemp("elsewhere")
    log = folder / "serve.log"
    env = os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{chain.root / 'mlflow.db'}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    model = ["-m", "models:/vision@champion", "--env-manager", "local"]
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "models", "serve", *model, "-h", "127.0.0.1", "-p", str(port)],
            cwd=folder,
            env=env,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(f"{url}/ping").close()
            break
        except OSError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
    yield url
    family = [*psutil.Process(server.pid).children(recursive=True), server]
    for process in family:
        process.terminate()
    server.wait(20)


def ask(address: str, images: list[bytes]) -> list[dict]:
    records = [{"image": base64.b64encode(image).decode()} for image in images]
    request = urllib.request.Request(
        f"{address}/invocations",
        data=json.dumps({"dataframe_records": records}).encode(),
        headers={"content-type": "application/json"},
    )
    return json.load(urllib.request.urlopen(request))["predictions"]


def test_the_server_answers_every_test_image_as_evaluation_did(chain, address):
    with (chain.evaluated.folder / "examples" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    raw = chain.root / "data" / "vision"
    answers = ask(address, [(raw / row["file"]).read_bytes() for row in rows])
    assert [a["label"] for a in answers] == [row["predicted"] for row in rows]
    for answer, row in zip(answers, rows, strict=True):
        assert answer["probability"] == pytest.approx(float(row["probability"]), abs=1e-5)
        assert answer["probabilities"][answer["label"]] == answer["probability"]


def test_the_server_takes_an_image_of_any_size_and_mode(address):
    for mode, size in (("RGBA", (300, 200)), ("L", (28, 28)), ("P", (31, 500)), ("CMYK", (64, 64))):
        data = io.BytesIO()
        Image.new(mode, size).save(data, "TIFF" if mode == "CMYK" else "PNG")
        (answer,) = ask(address, [data.getvalue()])
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_what_is_no_image_is_refused_with_the_reason(address):
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(address, [b"this is not an image"])
    assert caught.value.code == 400
    said = json.load(caught.value)["message"]
    assert said.endswith("Error: row 0: the image cannot be used: not an image; send another")
