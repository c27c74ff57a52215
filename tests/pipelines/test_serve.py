"""Served equals evaluated: `pedigree serve`, one server per model, in a project whose own code has moved on."""

import asyncio
import base64
import http.client
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import mlflow
import numpy
import pandas as pd
import psutil
import pytest
import soundfile
from PIL import Image

from components.adapters import scoring_server
from tests.conftest import EACH, ROOT, listening, tiny, with_broken_code
from tests.running import PEDIGREE, free_ports

SECONDS = 120


@pytest.fixture(scope="module")
def server_of(chain_of, tmp_path_factory):
    """Return a model's server (process, address and log), which is started on first use."""
    processes = []

    @cache
    def started(name):
        folder = with_broken_code(chain_of(name).root, tmp_path_factory.mktemp("serve") / "project")
        (port,) = free_ports(1)
        log = folder / f"{name}.log"
        process = start(folder, log, name, "--port", str(port))
        processes.append(process)
        end = time.monotonic() + SECONDS
        while "Ctrl-C" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        return process, f"http://127.0.0.1:{port}", log

    yield started
    for process in processes:
        if process.poll() is None:
            process.terminate()
            process.wait(30)


def start(folder, log, *arguments):
    with log.open("w") as out:
        return subprocess.Popen(
            [sys.executable, *PEDIGREE, "serve", *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "MLFLOW_HOST": "0.0.0.0", "UVICORN_HOST": "0.0.0.0"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )


def ask(address, rows, settings=None):
    plain = [
        {name: base64.b64encode(v).decode() if isinstance(v, bytes) else v for name, v in row.items()}
        for row in rows
    ]
    return post(address, {"dataframe_records": plain, "params": settings or {}})


def post(address, body):
    request = urllib.request.Request(
        f"{address}/invocations",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    return json.load(urllib.request.urlopen(request))["predictions"]


@pytest.mark.parametrize("name", EACH)
def test_the_server_answers_the_whole_test_split_as_evaluation_did(server_of, chain_of, name):
    chain, case = chain_of(name), tiny(name)
    rows, settings = case.requests(chain.raw, chain.evaluated.folder)
    case.check(ask(server_of(name)[1], rows, settings), chain.evaluated.folder)


CURL = pytest.mark.skipif(not shutil.which("curl"), reason="curl is not on this machine")


def printed(log, address):
    """Return the command that a server printed, as people select it: all lines that are indented."""
    _, announced, after = log.read_text().partition(f"is served at {address}; to ask it:\n")
    assert announced
    return "".join(takewhile(lambda line: line.startswith("  "), after.splitlines(keepends=True)))


def pasted(command):
    """Run a command in bash, and return what the server predicts."""
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "predictions" in done.stdout, done.stdout
    return json.loads(done.stdout)["predictions"]


@CURL
@pytest.mark.parametrize("name", EACH)
def test_the_request_that_is_printed_can_be_pasted_and_sends_a_test_sample_if_there_is_one(
    server_of, chain_of, tmp_path, name
):
    _, address, log = server_of(name)
    assert f"{name} version {chain_of(name).registered.version} is served at" in log.read_text()
    command = printed(log, address)
    rows, _ = tiny(name).requests(chain_of(name).raw, chain_of(name).evaluated.folder)
    content = next(iter(rows[0].values()))
    if "base64 < FILE;" in command:  # samples are no files, such as those of few-shot, which are classes
        (tmp_path / "file").write_bytes(content)
        command = command.replace("< FILE;", f"< {tmp_path / 'file'};")
    assert len(pasted(command)) == 1
    if isinstance(content, bytes):
        assert Path(re.search("base64 < (.*?);", command)[1]).read_bytes() == content


def photograph(file):
    Image.frombytes("RGB", (700, 700), os.urandom(3 * 700 * 700)).save(file, "PNG")


def recording(file):
    soundfile.write(file, numpy.random.default_rng(0).uniform(-0.5, 0.5, (10 * 44_100, 2)), 44_100, format="WAV")


@CURL
@pytest.mark.parametrize(
    ("name", "write"), [("digits", photograph), pytest.param("words", recording, marks=pytest.mark.long)]
)
def test_the_request_that_is_printed_takes_a_file_of_over_a_megabyte_and_so_does_the_readmes(
    server_of, tmp_path, name, write
):
    _, address, log = server_of(name)
    file = tmp_path / "a large file"
    write(file)
    assert file.stat().st_size > 1_000_000
    command = re.sub("base64 < .*?;", lambda _: f"base64 < {shlex.quote(str(file))};", printed(log, address))
    (answer,) = pasted(command)
    assert answer["probability"] > 0
    readme = re.search(r"^    (\(echo .*\n +curl .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)[1]
    at_port = readme.replace("http://127.0.0.1:5001", address).replace('"image"', f'"{COLUMN[name]}"')
    assert pasted(re.sub("base64 < .*?;", lambda _: f"base64 < {shlex.quote(str(file))};", at_port)) == [answer]


COLUMN = {"digits": "image", "words": "audio"}


def test_a_server_listens_on_loopback_alone(server_of):
    assert listening(server_of("digits")[0].pid) == {"127.0.0.1"}


def test_the_server_takes_an_image_of_any_size_and_mode(server_of):
    for mode, size in (("RGBA", (300, 200)), ("L", (28, 28)), ("P", (31, 500)), ("CMYK", (64, 64))):
        data = io.BytesIO()
        picture = Image.linear_gradient("L").resize(size).convert(mode)
        picture.save(data, "TIFF" if mode == "CMYK" else "PNG")
        (answer,) = ask(server_of("digits")[1], [{"image": data.getvalue()}])
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_what_is_no_image_is_rejected_with_the_reason(server_of):
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(server_of("digits")[1], [{"image": b"this is not an image"}])
    assert caught.value.code == 400
    said = json.load(caught.value)["message"]
    assert said.endswith("Error: row 0: the image cannot be used: not an image; send another")


def forms_of(data: bytes, kind: str) -> list[str]:
    """Every way in which a file can be written in JSON."""
    text = base64.b64encode(data).decode()
    encoded = urllib.parse.quote(text, safe="")
    return [
        text,
        base64.encodebytes(data).decode(),
        text.rstrip("="),
        base64.urlsafe_b64encode(data).decode(),
        f"data:{kind};base64,{text}",
        f"data:{kind};base64,{encoded}",
        f"data:{kind},{urllib.parse.quote(data)}",
    ]


def formats_of(column: str, values: list[Any]) -> list[dict[str, Any]]:
    """A request with a column of values in each of the server's formats."""
    rows = [{column: value} for value in values]
    return [
        {"dataframe_records": rows},
        {"dataframe_split": {"columns": [column], "data": [[value] for value in values]}},
        {"instances": rows},
        {"instances": values},
        {"inputs": rows},
        {"inputs": values},
        {"inputs": {column: values}},
    ]


def check_forms(address, chain, column, kind, formats):
    """Every form of a test sample's file has the answer that the registered model gives."""
    (row, *_), _ = tiny(chain.model.name).requests(chain.raw, chain.evaluated.folder)
    forms = forms_of(row[column], kind)
    model = mlflow.pyfunc.load_model(f"models:/{chain.registered.name}/{chain.registered.version}")
    (expected,) = model.predict(pd.DataFrame([row])).to_dict("records")
    in_python = [model.predict(pd.DataFrame({column: forms})).to_dict("records")]
    over_http = [post(address, request) for request in formats(column, forms)]
    (label,) = {"label", "word"} & {*expected}
    for answers in in_python + over_http:
        assert [answer[label] for answer in answers] == [expected[label]] * len(forms)
        assert answers[0]["probability"] == pytest.approx(expected["probability"], abs=1e-6)


def test_every_form_of_an_image_is_answered_in_every_format_of_a_request_and_in_python(server_of, chain):
    check_forms(server_of("digits")[1], chain, "image", "image/png", formats_of)


@pytest.mark.long
def test_every_form_of_a_sound_is_answered_in_every_format_that_names_its_column(server_of, chain_of):
    def with_names(column, values):
        return [each for each in formats_of(column, values) if values not in each.values()]

    address = server_of("words")[1]
    check_forms(address, chain_of("words"), "audio", "audio/wav", with_names)
    for name in ("instances", "inputs"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(address, {name: ["AAAA", "AAAA"]})
        said = json.load(caught.value)["message"]
        assert "row 0 names no column: send an object with one or more of audio, samples, rate" in said


def test_no_rows_have_no_answers_in_every_format(server_of):
    for request in formats_of("image", []):
        assert post(server_of("digits")[1], request) == [], request


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "expected bytes, base64 or a data URL in the column image and found null"),
        (7, "expected bytes, base64 or a data URL in the column image and found int"),
        (True, "expected bytes, base64 or a data URL in the column image and found bool"),
        ("not base64!", "the text is neither base64 nor a data URL; send the file in base64"),
        ("data:image/png;base64,?", "the text of the data URL is not base64; send the file in base64"),
        ("data:image/png,not%20an%20image", "not an image"),
    ],
)
def test_what_is_no_form_of_an_image_is_rejected_in_every_format_with_row_and_reason(server_of, value, reason):
    address = server_of("digits")[1]
    for request in formats_of("image", [value]):
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(address, request)
        assert caught.value.code == 400
        said = json.load(caught.value)["message"]
        assert f"row 0: the image cannot be used: {reason}" in said, request


def test_a_row_that_cannot_be_answered_has_the_reason_beside_the_answers_to_the_others(server_of, chain):
    rows, _ = tiny("digits").requests(chain.raw, chain.evaluated.folder)
    address = server_of("digits")[1]
    good, bad, more = ask(address, [rows[0], {"image": b"this is not an image"}, rows[1]])
    assert bad.pop("error") == "the image cannot be used: not an image; send another"
    assert set(bad.values()) == {None}
    assert [good.pop("error"), more.pop("error")] == [None, None]
    assert [good["label"], more["label"]] == [each["label"] for each in ask(address, rows[:2])]


def answer_of(address, head, *body):
    """Send a request as it stands, and return the status and the body of the answer."""
    parts = urllib.parse.urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        connection.sendall("\r\n".join([head, "connection: close", "", ""]).encode())
        for each in body:
            connection.sendall(each)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read().decode()


POST = "POST /invocations HTTP/1.1\r\nhost: {host}\r\ncontent-type: {kind}\r\norigin: http://evil.example"
JSON = POST.format(host="127.0.0.1", kind="application/json")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:5001", "127.0.0.1.evil.example", "10.0.0.1"])
def test_a_page_whose_name_was_rebound_to_this_machine_gets_no_prediction(server_of, host):
    head = POST.format(host=host, kind="application/json")
    assert answer_of(server_of("digits")[1], f"{head}\r\ncontent-length: 2", b"{}") == (400, "Invalid host header")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:5001", "[::1]:5001"])
def test_the_server_answers_by_the_names_of_this_machine(server_of, host):
    head = POST.format(host=host, kind="application/json")
    status, said = answer_of(server_of("digits")[1], f"{head}\r\ncontent-length: 2", b"{}")
    assert status == 400
    assert "BAD_REQUEST" in said  # MLflow's: the request holds no rows


@pytest.mark.parametrize("kind", ["text/csv", "text/csv; charset=utf-8", "application/vnd.apache.parquet", "a/b"])
def test_a_request_that_is_not_json_is_rejected_with_what_to_send(server_of, kind):
    head = POST.format(host="127.0.0.1", kind=kind)
    sent = kind.partition(";")[0]
    assert answer_of(server_of("digits")[1], f"{head}\r\ncontent-length: 12", b"image\naGVsbG8") == (
        415,
        f"the request has {sent}: send application/json, with a file in base64 in a row, as the command does that "
        "`pedigree serve` prints",
    )


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_what_a_page_may_send_without_asking_first_gets_no_prediction_and_asking_is_refused(server_of, kind):
    address = server_of("digits")[1]
    head = POST.format(host="127.0.0.1", kind=kind)
    assert answer_of(address, f"{head}\r\ncontent-length: 2", b"{}")[0] == 415
    untyped = re.sub("content-type.*\r\n", "", head)
    assert answer_of(address, f"{untyped}\r\ncontent-length: 2", b"{}")[0] == 415
    preflight = JSON.replace("POST", "OPTIONS", 1) + "\r\naccess-control-request-method: POST"
    assert answer_of(address, preflight)[0] == 405


@CURL
def test_a_file_that_is_sent_as_it_is_gets_a_sentence_that_says_what_to_send(server_of, tmp_path):
    _, address, _ = server_of("digits")
    photograph(tmp_path / "image.png")
    done = subprocess.run(
        ["curl", "--silent", "-F", f"image=@{tmp_path}/image.png", f"{address}/invocations"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(
        "the request has multipart/form-data: send application/json, with a file in base64"
    )


@pytest.mark.parametrize("length", ["content-length: 67108865", "content-length: 999999999999"])
def test_a_request_that_announces_more_than_64_mib_is_rejected_before_it_is_sent(server_of, length):
    status, said = answer_of(server_of("digits")[1], f"{JSON}\r\n{length}")
    assert (status, said) == (413, "the request is over 64 MiB: send fewer rows at a time")


def test_a_request_of_unknown_length_is_read_up_to_64_mib(server_of):
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    status, said = answer_of(
        server_of("digits")[1], f"{JSON}\r\ntransfer-encoding: chunked", *[chunk] * 64, b"1\r\n0"
    )
    assert (status, said) == (413, "the request is over 64 MiB: send fewer rows at a time")


@pytest.mark.parametrize("bracket", ["[", '{"a":'])
def test_a_request_of_nothing_but_brackets_is_rejected_as_a_callers_mistake(server_of, bracket):
    body = (bracket * 200_000).encode()
    status, said = answer_of(server_of("digits")[1], f"{JSON}\r\ncontent-length: {len(body)}", body)
    assert status == 400
    assert "too many nested brackets" in said


def test_a_request_that_does_not_arrive_is_given_up(monkeypatch):
    monkeypatch.setattr(scoring_server, "SECONDS", 0.05)
    sent = []

    async def receive():
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"[", "more_body": True}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/invocations", "headers": []}
    asyncio.run(scoring_server._bounded(lambda *_: pytest.fail("it is asked"))(scope, receive, send))
    assert sent[0]["status"] == 408


@pytest.mark.parametrize(
    ("name", "number"), [("digits", signal.SIGINT), pytest.param("words", signal.SIGTERM, marks=pytest.mark.long)]
)
def test_ctrl_c_or_termination_takes_the_server_and_its_files_down(server_of, name, number):
    process, _, log = server_of(name)
    family = psutil.Process(process.pid).children(recursive=True)
    programs = [each.cmdline() for each in family]
    (folder,) = {Path(words[-2]) for words in programs if any("scoring_server" in word for word in words)}
    assert family
    assert folder.is_dir()
    process.send_signal(number)
    assert process.wait(30) == 0, log.read_text()
    assert not any(each.is_running() for each in family)
    assert not folder.exists()
