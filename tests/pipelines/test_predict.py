"""`pedigree predict` as a person meets it, in a project whose own code has moved on."""

import base64
import gzip
import json
import logging
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

import mlflow
import pytest
from mlflow.models import Model, ModelSignature
from mlflow.pyfunc import PythonModel
from mlflow.types.schema import ColSpec, Schema
from PIL import Image
from typer.testing import CliRunner

from components.adapters import mlflow_store, mlflow_versions, version_process
from components.adapters.version_process import Answering, FileColumn, TextTable, answering
from components.contracts import Rejected, RejectedFile, Row, Served
from components.errors import PedigreeError
from components.registry import predict as predictions
from components.registry.predict import Answer
from pipelines import cli, predict
from tests.conftest import MODELS, Chain, tiny, with_broken_code
from tests.running import PEDIGREE, pedigree

ROWS = "made-digits"
"""A model that takes rows of a table instead of files."""
OF_COLUMNS = ("docstring-qa", "highway", "disease")
"""Further ones, whose rows have several columns, numbers or lists."""
OF_FILES = [
    MODELS[0],
    *(pytest.param(each, marks=pytest.mark.long) for each in MODELS[1:] if each not in (ROWS, *OF_COLUMNS)),
]
"""The other models."""
MEASURED = """
import pathlib, resource, subprocess, sys
done = subprocess.run(sys.argv[2:])
pathlib.Path(sys.argv[1]).write_text(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(done.returncode)
"""
"""Runs a command and writes to a file how many KiB the largest of its processes had."""


@pytest.fixture(scope="module")
def moved_on(chain_of, tmp_path_factory):
    """Copy the project, with broken code, once a model's version is registered in it."""

    @cache
    def copied(name: str) -> Path:
        return with_broken_code(chain_of(name).root, tmp_path_factory.mktemp("predict") / "project")

    return copied


def bomb() -> bytes:
    """Return a whole PNG of 100,000 x 100,000 black pixels, one bit each: 1.25 GB of zeros in 1.2 MB."""
    side, row = 100_000, 1 + 12_500
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(1000 * row)) + packer.flush(zlib.Z_FULL_FLUSH)
    adler = (side * row % 65521 << 16) | 1  # of nothing but zeros
    data = b"\x78\xda" + block * (side // 1000) + packer.flush() + struct.pack(">I", adler)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def wav(file: Path, hours: float) -> None:
    """Write a wav file of silence, 8,000 samples a second, that takes no room on the disk."""
    size = int(hours * 3600) * 16_000
    with file.open("wb") as out:
        out.write(b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt ")
        out.write(struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16_000, 2, 16) + b"data" + struct.pack("<I", size))
        out.truncate(44 + size)


def write_bad(folder: Path, name: str) -> dict[str, str]:
    """Write files that cannot be answered; return for each what is said of it."""
    folder.mkdir()
    (folder / "hollow").mkdir()
    os.mkfifo(folder / "pipe")
    said = {
        "nosuch": "there is no such file; check its name",
        "hollow": "no visible file to answer is in this folder; name another",
        "pipe": "not a file; name a file or a folder",
        "x" * 300: "unreadable (File name too long); check its permissions and its disk",
    }
    with (folder / "huge").open("wb") as file:
        file.truncate(2**40)
    said["huge"] = "over 128 MiB; send a smaller one"
    match name:
        case "digits":
            (folder / "bomb.png").write_bytes(bomb())
            said["bomb.png"] = "the image cannot be used: decompression bomb: the image is far over"
            (folder / "words.png").write_text("words")
            said["words.png"] = "the image cannot be used: not an image; send another"
        case "words":
            wav(folder / "hours.wav", 2)
            said["hours.wav"] = "the sound cannot be used: too long: 7200.0 seconds is over max_seconds 30; send"
            (folder / "picture.wav").write_bytes(bomb()[:1000])
            said["picture.wav"] = "the sound cannot be used: not audio; send another"
        case "docstrings":
            (folder / "long.txt").write_text("words " * 2**19)
            said["long.txt"] = "the text cannot be used: 3,145,728 bytes are over 1,048,576; send it in parts"
            (folder / "latin.txt").write_bytes("né".encode("latin-1"))
            said["latin.txt"] = "not text: its byte 1 is not UTF-8; send text in UTF-8"
    return said


@dataclass
class Asked:
    done: subprocess.CompletedProcess[bytes]
    files: list[str]
    bad: dict[str, str]
    """What is said of each bad file, in order."""
    chain: Chain
    kilobytes: int
    """Of the largest process, at most."""


@pytest.fixture(scope="module", params=OF_FILES)
def asked(request, chain_of, moved_on) -> Asked:
    """The whole test split from a folder, but for its first file from standard input, and bad files between."""
    name, chain = request.param, chain_of(request.param)
    rows, settings = tiny(name).requests(chain.raw, chain.evaluated.folder)
    values = [value for row in rows for value in row.values()]
    contents = [each if isinstance(each, bytes) else f"{each.removesuffix(chr(10))}\n".encode() for each in values]
    project = moved_on(name)
    here = project / "files"
    good = here / "good" / "deeper"
    good.mkdir(parents=True)
    for number, content in enumerate(contents[1:]):
        (good / f"{number:04d}").write_bytes(content)
    (good / ".hidden").write_text("")
    bad = {f"bad/{file}": said for file, said in write_bad(here / "bad", name).items()}
    done = subprocess.run(
        [
            *(sys.executable, "-c", MEASURED, str(here / "memory")),
            *(sys.executable, *PEDIGREE, "predict", name, "-", *bad, *(["good"] if contents[1:] else [])),
            *(part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")),
        ],
        cwd=here,  # paths are meant from here, though the project is above
        env=os.environ | {"PYTHONPATH": str(project)},
        input=contents[0],
        capture_output=True,
        timeout=200,
        check=False,
    )
    files = ["-", *(f"good/deeper/{number:04d}" for number in range(len(contents) - 1))]
    return Asked(done, files, bad, chain, int((here / "memory").read_text()))


def test_every_test_file_is_answered_as_evaluation_did_by_the_code_the_version_was_registered_with(asked):
    answers = [json.loads(line) for line in asked.done.stdout.splitlines()]
    assert [answer.pop("file") for answer in answers] == asked.files
    tiny(asked.chain.model.name).check(answers, asked.chain.evaluated.folder)


def test_each_bad_file_is_one_line_with_the_reason_and_the_exit_code_is_1(asked):
    lines = asked.done.stderr.decode().splitlines()
    assert asked.done.returncode == 1
    assert len(lines) == len(asked.bad)
    for line, (file, said) in zip(lines, asked.bad.items(), strict=True):
        assert line.startswith(f"{file}: {said}")
        assert "; " in line


def test_files_of_any_size_take_bounded_memory(asked):
    assert asked.kilobytes < 2 * 2**20


@pytest.mark.long
def test_each_row_of_a_table_is_answered_as_evaluation_did_and_its_images_are_written(chain_of, moved_on):
    project, evaluation = moved_on(ROWS), chain_of(ROWS).evaluated.folder
    rows, _ = tiny(ROWS).requests(project, evaluation)
    (project / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows) + '{"class": "none"}')
    done = pedigree(project, "predict", ROWS, "rows.jsonl", "--out", "out")
    assert done.returncode == 1
    place = f"rows.jsonl:{len(rows) + 1}"
    assert done.stderr.startswith(f"{place}: the request cannot be used: there is no class 'none'; the classes are")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers[1] == {"file": "rows.jsonl", "line": 2, "images": ["out/rows-2-1.png"]}
    images = [[(project / path).read_bytes() for path in answer["images"]] for answer in answers]
    tiny(ROWS).check([{"images": each} for each in images], evaluation)


@pytest.mark.long
def test_the_projects_own_code_could_not_answer_any_more(chain, moved_on):
    loading = (
        "import sys, components.training.model_files\n"
        "from components.adapters import mlflow_store\n"
        "import mlflow, pathlib\n"
        "mlflow_store.connect(pathlib.Path.cwd())\n"
        "mlflow.pyfunc.load_model('models:/digits/1')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", loading], cwd=moved_on("digits"), capture_output=True, text=True, check=False
    )
    assert "whose code differs from that of the version" in done.stderr


@pytest.mark.long
def test_all_files_good_is_exit_code_0_and_nothing_but_answers(moved_on):
    project = moved_on("docstrings")
    (project / "prompt.txt").write_text("the sun")
    settings = ("--set", "max_length=7", "--set", "temperature=0")
    done = pedigree(project, "predict", "models:/docstrings@champion", *settings, "prompt.txt")
    assert (done.returncode, done.stderr) == (0, "")
    (answer,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert list(answer) == ["file", "continuation", "tokens", "log_probabilities", "note"]
    assert (answer["file"], len(answer["tokens"])) == ("prompt.txt", 7)
    (project / "lines.txt").write_text("the sun\nbelow it 日本\n")
    done = pedigree(project, "predict", "docstrings", "--set", "score=true", "lines.txt")
    assert done.returncode == 0
    assert done.stderr == "note: lines.txt:2: 2 characters are not in the model's vocabulary: '日', '本'\n"
    likely, unlikely = [json.loads(line) for line in done.stdout.splitlines()]
    assert list(likely) == ["file", "line", "log_probability", "bits_per_character", "perplexity", "note"]
    assert (likely["line"], unlikely["line"]) == (1, 2)
    assert 0 < likely["bits_per_character"] < unlikely["bits_per_character"]


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        ("digist", {}, "there is no digist@champion: the registered models are"),
        ("models:/digits@champoin", {}, "there is no models:/digits@champoin: digits has the versions 1"),
        ("digits", {"temperature": 1}, "temperature: digits version 1 has no such param; it takes none"),
        pytest.param(
            "docstrings",
            {"temprature": 1},
            r"temprature: .* no such param; did you mean temperature\?; it takes",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "docstrings",
            {"temperature": "warm"},
            "temperature=warm: the value is not a double, which .* needs: change it",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "docstrings",
            {"temperature": -1},
            "rejects the request: the request's params: temperature = -1.0: .*gr",
            marks=pytest.mark.long,
        ),
    ],
)
def test_what_no_file_could_fix_is_one_sentence_for_all_of_them(chain_of, model, settings, said):
    root = chain_of(model if model in MODELS else "digits").root
    with pytest.raises(PedigreeError, match=said):
        predict.predict(root, root, model, ["params.yaml"], settings, predict.Output("json"), debug=False)


@pytest.mark.long
def test_the_gate_asks_an_older_version_only_with_the_params_that_it_knows(chain):
    with answering(mlflow_versions.find("digits/1"), {"score": True}, only_known=True) as version:
        assert version.params == {}


class Pickled(PythonModel):
    """What another tool may have registered: an object, which MLflow keeps as a pickle."""

    def predict(self, context, model_input, params=None):
        return model_input


def test_a_version_that_holds_a_pickle_is_rejected(chain):
    mlflow_store.connect(chain.root)
    column = ModelSignature(Schema([ColSpec("string", "text")]))
    with mlflow.start_run(chain.trained.run_id):
        mlflow.pyfunc.log_model(
            name="pickled",
            python_model=Pickled(),
            signature=column,
            metadata={mlflow_versions.FILE: "text"},
            pip_requirements=[],
            registered_model_name="pickled",
        )
    with (
        pytest.raises(
            PedigreeError, match=r"pickled version 1 cannot be loaded here \(Deserializing model using pickle"
        ),
        answering(mlflow_versions.find("pickled/1"), {}, debug=False),
    ):
        pass


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["digits"], "Missing argument"),
        (["digits", "-", "-"], "standard input can be read only once"),
        (["digits", "a", "--set", "score"], "write it as param=value"),
    ],
)
def test_wrong_usage_is_exit_code_2(project, monkeypatch, arguments, said):
    monkeypatch.chdir(project)
    done = CliRunner().invoke(cli.app, ["predict", *arguments], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert said in done.output


def test_a_format_that_the_version_does_not_have_is_exit_code_2_and_a_sentence_that_names_its_own(
    chain, monkeypatch
):
    monkeypatch.chdir(chain.root)
    done = CliRunner().invoke(cli.app, ["predict", "digits/1", "a", "--format", "jason"], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    said = "digits version 1 has no format 'jason'; did you mean json?; its formats are table, json"
    assert said in " ".join(done.output.replace("│", " ").split())


class Fake:
    """Stands for a version: rejects every bad content, and remembers what it was asked."""

    file = FileColumn("image", True)
    inputs: Sequence[str] = ("image",)
    media: ClassVar[dict[str, str]] = {}
    table: TextTable | None = None
    readers: ClassVar[frozenset[str]] = frozenset()
    objects: ClassVar[frozenset[str]] = frozenset()
    name = "stand-in version 1"
    answers, _answered = Answering.answers, Answering._answered

    def __init__(self, bad: bytes = b"bad", answer: Callable[[bytes], Any] = bytes.decode) -> None:
        self.bad, self.answer, self.requests = bad, answer, []

    def ask(self, rows):
        contents = [row["image"] for row in rows]
        self.requests.append(contents)
        return [
            Rejected("it is\nbad; send another") if each == self.bad else {"answer": self.answer(each)}
            for each in contents
        ]


def test_the_rejected_files_of_a_request_stand_among_the_answers_to_the_others(tmp_path):
    for number in range(version_process.TOGETHER):
        (tmp_path / f"{number:02d}").write_bytes(b"bad" if number in (3, 11) else b"%d" % number)
    model = Fake()
    found = list(predictions.answers(model, predictions.files(["."], tmp_path, Fake.file), tmp_path))
    assert [each.file for each in found] == [f"{number:02d}" for number in range(version_process.TOGETHER)]
    assert [each.file for each in found if isinstance(each, RejectedFile)] == ["03", "11"]
    assert found[3] == RejectedFile(file="03", reason="it is bad; send another")
    assert found[4] == predictions.Answer("04", {"answer": "4"})
    assert len(model.requests) == 1


def test_of_a_request_that_has_no_answer_each_file_has_the_reason(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"bad")
    model = Fake()
    rejected = [RejectedFile(file=name, reason="it is bad; send another") for name in ("a", "b", "c")]
    assert list(predictions.answers(model, predictions.files(["."], tmp_path, Fake.file), tmp_path)) == rejected


OLDER = """
import mlflow, pandas
from mlflow.exceptions import MlflowException

class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        rows = list(model_input["image"])
        if b"bad" in rows:
            raise MlflowException.invalid_parameter_value(f"row {rows.index(b'bad')}: it is bad; send another")
        return pandas.DataFrame({"answer": [row.decode() for row in rows]})

mlflow.models.set_model(Model())
"""
"""Rejects a whole request for one of its rows, as versions did before each row had an answer of its own."""


def test_of_an_older_version_that_rejects_a_whole_request_for_one_row_the_others_are_answered(tmp_path):
    (tmp_path / "older.py").write_text(OLDER)
    mlflow.pyfunc.save_model(
        tmp_path / "model",
        python_model=str(tmp_path / "older.py"),
        signature=ModelSignature(Schema([ColSpec("binary", "image")])),
        pip_requirements=[],
    )
    with version_process._process(tmp_path / "model", debug=False) as process:
        model = Answering("older version 1", ["image"], ["image"], None, {}, frozenset(), {}, process)
        assert model.listen() == []
        bad = Rejected("it is bad; send another")
        good, wrong = {"image": b"1"}, {"image": b"bad"}
        assert model.ask([good, wrong, {"image": b"3"}]) == [{"answer": "1"}, bad, {"answer": "3"}]
        assert model.ask([wrong, wrong]) == [bad, bad]
        assert model.ask([wrong]) == [bad]
        assert list(model.answers(iter([good] * 100))) == [{"answer": "1"}] * 100, "in more than one request"


def test_large_files_are_not_asked_about_together(tmp_path, monkeypatch):
    monkeypatch.setattr(version_process, "SIZE", 10)
    for number, size in enumerate((6, 4, 1, 30, 2)):
        (tmp_path / str(number)).write_bytes(b"x" * size)
    model = Fake()
    assert len(list(predictions.answers(model, predictions.files(["."], tmp_path, Fake.file), tmp_path))) == 5
    assert [[len(each) for each in request] for request in model.requests] == [[6, 4], [1], [30], [2]]


class Echo:
    """Stands for a version that answers a text with itself."""

    file: FileColumn | None = FileColumn("text", False)
    inputs: Sequence[str] = ("text",)
    table: TextTable | None = None
    readers: ClassVar[frozenset[str]] = frozenset()
    name = "stand-in version 1"
    answers, _answered = Answering.answers, Answering._answered

    def ask(self, rows):
        return rows


def test_what_editors_add_to_a_text_is_not_asked_about(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfReturn the\r\n")
    (answer,) = predictions.answers(Echo(), ["a.txt"], tmp_path)
    assert answer.columns == {"text": "Return the"}


def test_folders_give_their_visible_files_in_order_and_links_to_folders_do_not_go_round(tmp_path):
    for file in ("b/2", "b/1", "b/a/z", ".git/x", "b/.x", "b/Thumbs.db", "c"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "b" / "3").symlink_to(tmp_path / "c")
    assert predictions.files(["c", "b/", "-"], tmp_path, Fake.file) == ["c", "b/1", "b/2", "b/3", "b/a/z", "-"]


def test_texts_beside_images_in_a_folder_are_passed_over_and_named(tmp_path, caplog):
    caplog.set_level(logging.INFO, "pedigree.predict")
    for file in ("a/1.png", "a/where from.txt", "a/2"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("")
    assert predictions.files(["a"], tmp_path, Fake.file) == ["a/1.png", "a/2"]
    assert predictions.files(["a/where from.txt"], tmp_path, Fake.file) == ["a/where from.txt"], "it is asked for"
    assert predictions.files(["a"], tmp_path, Echo.file) == ["a/1.png", "a/2", "a/where from.txt"]
    assert caplog.messages == ["ignored a/where from.txt"]


def test_a_name_that_is_not_utf8_is_shown_with_backslashes(tmp_path):
    name = os.fsdecode(b"n\xe9")
    (tmp_path / name).write_bytes(b"x")
    (answer,) = predictions.answers(Fake(), predictions.files([name], tmp_path, Fake.file), tmp_path)
    assert answer == predictions.Answer("n\\udce9", {"answer": "x"})


def test_a_version_whose_process_dies_is_a_sentence():
    process = subprocess.Popen(
        [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    model = Answering("digits version 1", ["image"], ["image"], None, {}, frozenset(), {}, process)
    with (
        process,
        pytest.raises(PedigreeError, match="digits version 1 ended with exit code -9: check whether memory"),
    ):
        model.ask([{"image": b"x"}])


def test_a_table_has_a_row_for_each_file_and_its_refusals_are_beside_it(chain, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(predict.version_process, "answering", lambda *_, **__: nullcontext(Fake()))
    for name in ("good", "bad", "[better]"):
        (tmp_path / name).write_text(name)
    names = ["good", "bad", "[better]"]
    assert not predict.predict(chain.root, tmp_path, "digits", names, {}, predict.Output("table"), debug=False)
    printed = capsys.readouterr()
    assert [line.split() for line in printed.out.splitlines() if line.strip(" ─")] == [
        ["file", "answer"],
        ["good", "good"],
        ["[better]", "[better]"],
    ]
    assert printed.err == "bad: it is bad; send another\n"


class FakeText(Fake):
    """Stands for a version that scores each line of a file."""

    file = FileColumn("text", False, lines=True)

    def ask(self, rows):
        return [
            Rejected("too long; send it in parts")
            if row["text"] == "bad"
            else {
                "log_probability": -1.0 * len(row["text"]),
                "note": "1 character is unknown: 'я'" * ("я" in row["text"]),
            }
            for row in rows
        ]


class FakeRows(Fake):
    """Stands for a version that draws a class some times, and takes no files."""

    file = None
    inputs = ("class", "count")
    media: ClassVar[dict[str, str]] = {"images": "image/png"}

    def ask(self, rows):
        assert all(list(row) == ["class", "count"] for row in rows)
        counts = [int(row["count"] or 1) for row in rows]
        return [
            Rejected("no class; send one")
            if row["class"] is None
            else {"images": [f"{row['class']}{n}".encode() for n in range(count)]}
            for row, count in zip(rows, counts, strict=True)
        ]


def test_files_for_a_version_that_takes_none_are_tables_whose_rows_are_named_by_their_lines(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"class": "a"}\n\n{"class": "b", "count": 2}\n[1]\n{"clas": "a"}\n{')
    (tmp_path / "rows.csv").write_text('class,count\na,2\n,1\n"b\nc",\nd,1,2\n')
    (tmp_path / "rows.txt").write_text("{}")
    names = ["rows.jsonl", "rows.csv", "rows.txt", "none.csv"]
    found = list(predictions.answers(FakeRows(), predictions.files(names, tmp_path, None), tmp_path))
    assert [(each.file, each.columns) for each in found if isinstance(each, Answer)] == [
        ("rows.jsonl", {"line": 1, "images": [b"a0"]}),
        ("rows.jsonl", {"line": 3, "images": [b"b0", b"b1"]}),
        ("rows.csv", {"line": 2, "images": [b"a0", b"a1"]}),
        ("rows.csv", {"line": 4, "images": [b"b\nc0"]}),
    ]
    assert [(each.file, each.reason) for each in found if isinstance(each, RejectedFile)] == [
        ("rows.jsonl:4", "not a JSON object; write a row as an object on one line"),
        ("rows.jsonl:5", "unknown column 'clas'; did you mean class?; the columns are class, count"),
        (
            "rows.jsonl:6",
            "not JSON: Expecting property name enclosed in double quotes; write a row as an object on one line",
        ),
        ("rows.csv:3", "no class; send one"),
        (
            "rows.csv:6",
            "3 cells under 2 columns, with a comma between cells: put cells that have one in their text between "
            "quotation marks",
        ),
        (
            "rows.txt",
            "not a table of rows; name a file that ends in .jsonl, .ndjson, .csv, or - for lines of JSON",
        ),
        ("none.csv", "there is no such file; check its name"),
    ]


def test_columns_that_a_version_does_not_take_are_left_out_with_a_notice_and_misspelt_ones_are_rejected(
    tmp_path, caplog
):
    caplog.set_level("INFO", "pedigree.predict")
    (tmp_path / "rows.csv").write_text("class,count,truth\na,1,x\nb,,y\n")
    (tmp_path / "wrong.csv").write_text("class,cuont\na,1\n")
    (tmp_path / "other.csv").write_text("truth\nx\n")
    names = ["rows.csv", "wrong.csv", "other.csv"]
    found = list(predictions.answers(FakeRows(), predictions.files(names, tmp_path, None), tmp_path))
    assert [each.columns["images"] for each in found if isinstance(each, Answer)] == [[b"a0"], [b"b0"]]
    assert [(each.file, each.reason) for each in found if isinstance(each, RejectedFile)] == [
        ("wrong.csv", "unknown column 'cuont'; did you mean count?; the columns are class, count"),
        ("other.csv", "unknown column 'truth'; the columns are class, count"),
    ]
    assert caplog.messages == ["rows.csv: left out 'truth', which the version does not take"]


class EchoRows(Echo):
    """Stands for a version of texts whose data had them in the column `sentence` of tables."""

    file = FileColumn("text", False, lines=True)
    table: TextTable | None = TextTable({"text": "sentence"}, header=True)


def answered(model: Any, folder: Path, **files: str | bytes) -> tuple[list[Row], dict[str, str]]:
    """Return the answers to files, without their names, and why others are rejected; `_csv` is the suffix .csv."""
    names = [name.replace("_", ".") for name in files]
    for name, content in zip(names, files.values(), strict=True):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    found = list(predictions.answers(model, names, folder))
    return (
        [each.columns for each in found if isinstance(each, Answer)],
        {each.file: each.reason for each in found if isinstance(each, RejectedFile)},
    )


def test_tables_of_texts_are_read_as_data_are_and_other_files_line_by_line(tmp_path, caplog):
    caplog.set_level("INFO", "pedigree.predict")
    answers, rejected = answered(
        EchoRows(),
        tmp_path,
        a_csv='\ufefflabel,sentence,id\nx,"one, two\nthree",7\ny,NA,\n',
        b_tsv='sentence\tlabel\nit is "good\tx\r\n\n\u2028 null\t\n',
        c_jsonl='{"id": "q1", "sentence": "four"}\n{"sentence": 5, "id": [1]}\n',
        d_csv_gz=gzip.compress(b"text;label\n six, 7;x\n"),
        e_txt="sentence,label\n8,x",
    )
    assert rejected == {}
    assert answers == [
        {"line": 2, "id": "7", "text": "one, two\nthree"},
        {"line": 4, "id": "", "text": "NA"},
        {"line": 2, "text": 'it is "good'},
        {"line": 4, "text": "\u2028 null"},
        {"line": 1, "id": "q1", "text": "four"},
        {"line": 2, "id": None, "text": "5"},
        {"line": 2, "text": " six, 7"},
        {"line": 1, "text": "sentence,label"},
        {"line": 2, "text": "8,x"},
    ]
    of_label = "left out 'label', which the version does not take"
    assert caplog.messages == [f"{name}: {of_label}" for name in ("a.csv", "b.tsv", "d.csv.gz")]


def test_tables_without_a_header_have_numbered_columns_if_those_of_the_data_have(tmp_path, monkeypatch):
    monkeypatch.setattr(EchoRows, "table", TextTable({"text": "2"}, header=False))
    answers, _ = answered(EchoRows(), tmp_path, a_csv="3,Wall St. Bears\n4,Oil\n")
    assert answers == [{"line": 1, "text": "Wall St. Bears"}, {"line": 2, "text": "Oil"}]


def test_what_cannot_be_read_of_a_table_of_texts_is_said_with_its_line_and_the_rest_is_answered(tmp_path):
    answers, rejected = answered(
        EchoRows(),
        tmp_path,
        a_csv='sentence,label\none,x\ntwo,x,y\n"three,x\nfour",x\nfive"six,"x\nseven,x"y\n',
        b_csv="txt,label\n1,x\n2,y\n",
        c_csv="sentense,label\n1,x\n",
        d_csv="sentence,label\r1,x\r",
        e_txt="one\rtwo",
        f_csv="sentence\none\n".encode("utf-16"),
        g_tsv=b"sentence\none\n" + b"x" * 50_000_000 + b"\nlast",
        h_jsonl='{"label": "x", "sentence": "eight"}\n{"label": "x"}\n{"sentence": null}\n{',
        i_csv="",
        j_jsonl="no json",
    )
    assert [each["text"] for each in answers] == ["one", "one", "last", "eight"]
    returns = "its lines end with carriage returns alone: save it with line feeds, as Unix and Windows do"
    assert rejected == {
        "a.csv:3": "3 cells under 2 columns, with a comma between cells: put cells that have one in their text "
        "between quotation marks",
        "a.csv:4": "quotation marks make one row of lines that each are one: double a stray quotation mark",
        "a.csv:6": "the row that begins here is not CSV (',' expected after '\"'): a quotation mark inside a cell "
        "has to be doubled, and the cell enclosed in quotation marks",
        "b.csv": "it has the columns 'txt', 'label', and none is called 'sentence'; rename one",
        "c.csv": "it has the columns 'sentense', 'label', and none is called 'sentence'; rename one",
        "d.csv:1": returns,
        "e.txt": returns,
        "f.csv": "it is in UTF-16 or UTF-32: save it as UTF-8",
        "g.tsv:3": "over 1,048,576 bytes in a line",
        "h.jsonl:2": "unknown column 'label'; the columns are sentence",
        "h.jsonl:3": "'sentence' holds null, and no text",
        "h.jsonl:4": "not JSON: Expecting property name enclosed in double quotes; write a row as an object on "
        "one line",
        "i.csv": "it is empty: put text there, or remove the file",
        "j.jsonl": "it has no JSON object on a line of its own: write one for each sample",
    }


READING = """
import mlflow, pandas

class Model(mlflow.pyfunc.PythonModel):
    def read(self, suffix, file):
        for number in range(20):
            yield {"id": f"q{number}", **({"reason": "it is bad"} if number == 3 else {"row": {"text": suffix}})}
        yield {"problem": f"{file}:5: it ends too soon"}

    def predict(self, context, model_input, params=None):
        return pandas.DataFrame({"answer": list(model_input["text"])})

mlflow.models.set_model(Model())
"""
"""Reads files with a format of the field by itself."""


def test_a_file_that_a_version_reads_itself_is_answered_by_the_ids_in_it(tmp_path):
    (tmp_path / "reading.py").write_text(READING)
    (tmp_path / "a.json").write_text("{}")
    mlflow.pyfunc.save_model(
        tmp_path / "model",
        python_model=str(tmp_path / "reading.py"),
        signature=ModelSignature(Schema([ColSpec("string", "text")])),
        pip_requirements=[],
    )
    with version_process._process(tmp_path / "model", debug=False) as process:
        model = Answering(
            *("reading version 1", ["text"], ["text"], None, {}, frozenset(), {}, process),
            readers=frozenset([".json"]),
        )
        assert model.listen() == []
        found = list(predictions.answers(model, ["a.json", "b.json", "c.txt"], tmp_path))
    assert found == [
        *(Answer("a.json", {"id": f"q{number}", "answer": ".json"}) for number in range(3)),
        RejectedFile(file="a.json:q3", reason="it is bad"),
        *(Answer("a.json", {"id": f"q{number}", "answer": ".json"}) for number in range(4, 20)),
        RejectedFile(file="a.json:5", reason="it ends too soon"),
        RejectedFile(file="b.json", reason="there is no such file; check its name"),
        RejectedFile(
            file="c.txt",
            reason="not a table of rows; name a file that ends in .json, .jsonl, .ndjson, .csv, or - for lines of "
            "JSON",
        ),
    ]


class Mapped(EchoRows):
    """Stands for a version with a format of the field that is two JSON objects."""

    media: ClassVar[dict[str, str]] = {}
    objects: ClassVar[frozenset[str]] = frozenset(["squad"])

    def entries(self, file, answer):
        name = answer.get("id", file)
        return [{"predictions.json": {name: answer["text"]}, "null_odds.json": {name: 0.5}}]


def test_a_format_that_is_json_objects_is_printed_or_written_as_a_file_for_each(
    chain, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(predict.version_process, "answering", lambda *_, **__: nullcontext(Mapped()))
    (tmp_path / "a.csv").write_text("id,sentence\nq1,one\nq2,two\nq1,three\n")
    (tmp_path / "null_odds.json").write_text("")
    ask = partial(predict.predict, chain.root, tmp_path, "digits", ["a.csv"], {}, debug=False)
    assert not ask(output=predict.Output("squad"))
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"q1": "one", "q2": "two"}
    assert printed.err == "a.csv: another answer has the id 'q1'; answer it by itself\n"
    assert not ask(output=predict.Output("squad", Path("out")))
    assert capsys.readouterr().out == ""
    assert json.loads((tmp_path / "out" / "predictions.json").read_text()) == {"q1": "one", "q2": "two"}
    assert json.loads((tmp_path / "out" / "null_odds.json").read_text()) == {"q1": 0.5, "q2": 0.5}
    (tmp_path / "out" / "predictions.json").rename(tmp_path / "predictions.json")
    with pytest.raises(PedigreeError, match=r"predictions\.json would be replaced by what is written"):
        predict.predict(
            chain.root,
            tmp_path,
            "digits",
            ["a.csv", "predictions.json"],
            {},
            predict.Output("squad", tmp_path),
            debug=False,
        )


def test_what_a_version_says_of_its_tables_and_formats_is_known_to_whoever_asks_it():
    served = Served(
        inputs={"text": "string"},
        outputs={"label": "string"},
        example={"text": "a"},
        requirements=(),
        file="text",
        lines={},
        columns={"text": "sentence"},
        header=False,
        readers={".json": lambda file: []},
        objects={"squad": lambda file, answer: {}},
    )
    described = Model(metadata=mlflow_versions._metadata(served))
    assert version_process._table(described) == TextTable({"text": "sentence"}, header=False)
    assert described.metadata[mlflow_versions.READERS] == [".json"]
    assert described.metadata[mlflow_versions.FORMATS] == described.metadata[mlflow_versions.OBJECTS] == ["squad"]
    version_process._check_form(described, "squad", "version 1")


def test_a_record_is_shown_as_its_values():
    assert predict._cell([{"text": "un", "score": 0.5}, {"text": "le", "score": 0.25}]) == "un 0.5  le 0.25"
    assert predict._cell({"a": 0.25, "b": 0.5}) == "b 0.5  a 0.25"


def test_files_of_answers_are_written_below_a_folder_and_their_paths_stand_in_the_answers(
    chain, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(predict.version_process, "answering", lambda *_, **__: nullcontext(FakeRows()))
    (tmp_path / "in").mkdir()
    for name in ("a.jsonl", "a.ndjson"):
        (tmp_path / "in" / name).write_text('{"class": "a", "count": 2}\n{}\n')
    out = tmp_path / "out"
    assert not predict.predict(chain.root, tmp_path, "digits", ["in"], {}, predict.Output("json", out), debug=False)
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    paths = [[f"{out}/in/a-1-1{again}.png", f"{out}/in/a-1-2{again}.png"] for again in ("", "-2")]
    assert [each["images"] for each in answers] == paths
    assert sorted(path.read_text() for path in out.rglob("*.png")) == ["a0", "a0", "a1", "a1"]
    assert not predict.predict(
        chain.root, tmp_path, "digits", ["in/a.jsonl"], {}, predict.Output("table", out), debug=False
    )
    with pytest.raises(
        PedigreeError, match=r"a-1-1\.png cannot be written \(Not a directory\): name another folder"
    ):
        predict.predict(
            chain.root,
            tmp_path,
            "digits",
            ["in"],
            {},
            predict.Output("json", tmp_path / "in" / "a.jsonl"),
            debug=False,
        )
    monkeypatch.setattr(FakeRows, "media", {})
    with pytest.raises(PedigreeError, match=r"stand-in version 1 answers with no files .*: leave out --out"):
        predict.predict(chain.root, tmp_path, "digits", ["in"], {}, predict.Output("json", out), debug=False)


def test_each_line_of_a_file_is_scored_and_named_by_its_number(chain, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(predict.version_process, "answering", lambda *_, **__: nullcontext(FakeText()))
    (tmp_path / "lines.txt").write_bytes("one\r\n\nbad\nя\n".encode())
    assert not predict.predict(
        chain.root, tmp_path, "digits", ["lines.txt"], {}, predict.Output("json"), debug=False
    )
    printed = capsys.readouterr()
    answers = [json.loads(line) for line in printed.out.splitlines()]
    assert [(each["file"], each["line"], each["log_probability"]) for each in answers] == [
        ("lines.txt", 1, -3.0),
        ("lines.txt", 2, -0.0),
        ("lines.txt", 4, -1.0),
    ]
    assert printed.err.splitlines() == [
        "lines.txt:3: too long; send it in parts",
        "note: lines.txt:4: 1 character is unknown: 'я'",
    ]


def test_a_few_notes_are_printed_and_the_others_counted_and_none_is_a_column_of_the_table(
    chain, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(predict.version_process, "answering", lambda *_, **__: nullcontext(FakeText()))
    (tmp_path / "lines.txt").write_text("я\n" * 9)
    assert predict.predict(chain.root, tmp_path, "digits", ["lines.txt"], {}, predict.Output("table"), debug=False)
    printed = capsys.readouterr()
    assert printed.out.split()[:3] == ["file", "line", "log_probability"]
    assert [line.split(": ")[1] for line in printed.err.splitlines()] == [
        *(f"lines.txt:{number}" for number in range(1, 6)),
        "4 more answers have such notes",
    ]


def test_paths_of_a_narrow_table_are_shortened_from_the_left_and_stay_different(
    chain, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(
        predict.version_process, "answering", lambda *_, **__: nullcontext(Fake(answer=lambda _: "x " * 50))
    )
    (tmp_path / "sounds").mkdir()
    names = [f"sounds/{'no_03401e93_' * 5}nohash_{number}_日本.wav" for number in range(3)]
    for name in names:
        (tmp_path / name).write_text("x")
    assert predict.predict(chain.root, tmp_path, "digits", ["sounds"], {}, predict.Output("table"), debug=False)
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines() if ".wav" in line]
    assert [name.endswith(text.lstrip("…")) for name, text in zip(names, shown, strict=True)] == [True] * 3
    assert all(text.startswith("…") for text in shown)
    assert len(set(shown)) == 3


def test_control_characters_of_names_and_answers_reach_no_terminal_and_names_stay_exact_in_json(
    chain, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(predict.version_process, "answering", lambda *_, **__: nullcontext(Fake()))
    names = ["\x1b[2J\n.png", "bad\x1b[2J"]
    (tmp_path / names[0]).write_text("\u202ea :cat: [red]")
    (tmp_path / names[1]).write_text("bad")
    assert not predict.predict(chain.root, tmp_path, "digits", names, {}, predict.Output("table"), debug=False)
    printed = capsys.readouterr()
    assert "\\x1b[2J\\n.png   \\u202ea :cat: [red] \n" in printed.out
    assert "\x1b" not in printed.out
    assert printed.err == "bad\\x1b[2J: it is bad; send another\n"
    assert not predict.predict(chain.root, tmp_path, "digits", names, {}, predict.Output("json"), debug=False)
    assert json.loads(capsys.readouterr().out) == {"file": names[0], "answer": "\u202ea :cat: [red]"}


def test_bytes_of_an_answer_are_base64_in_json_and_counted_in_a_table(chain, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        predict.version_process, "answering", lambda *_, **__: nullcontext(Fake(answer=bytes.upper))
    )
    (tmp_path / "file").write_text("abc")
    assert predict.predict(chain.root, tmp_path, "digits", ["file"], {}, predict.Output("json"), debug=False)
    assert json.loads(capsys.readouterr().out) == {"file": "file", "answer": base64.b64encode(b"ABC").decode()}
    assert predict.predict(chain.root, tmp_path, "digits", ["file"], {}, predict.Output("table"), debug=False)
    assert capsys.readouterr().out.split()[-3:] == ["file", "3", "bytes"]


class FakeDetector(Fake):
    """Stands for a version with a format of its field: two entries for each letter of a file."""

    def entries(self, file, answer):
        return [{"image_id": file, "letter": letter, "number": n} for letter in answer["answer"] for n in (1, 2)]


def test_the_entries_of_all_answers_in_a_format_of_the_field_are_one_list(chain, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(predict.version_process, "answering", lambda *_, **__: nullcontext(FakeDetector()))
    for name, letters in {"a": "xy", "b": "bad", "c": "", "d": "z"}.items():
        (tmp_path / name).write_text(letters)

    def printed(*names):
        predict.predict(chain.root, tmp_path, "digits", names, {}, predict.Output("coco"), debug=False)
        return json.loads(capsys.readouterr().out)

    assert [(each["image_id"], each["letter"]) for each in printed("a", "b", "c", "d")][::2] == [
        ("a", "x"),
        ("a", "y"),
        ("d", "z"),
    ]
    assert printed("b", "c") == []


def test_a_cell_of_the_table_shows_the_first_of_many():
    assert predict._cell({"a": 0.1, "b": 0.9}) == "b 0.9  a 0.1"
    assert predict._cell([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == "1  2  3  4  5  …"


def test_answers_are_drawn_into_a_folder_under_the_names_of_their_files(tmp_path):
    answers = [Answer(file, {}, file.encode()) for file in ("a/1.jpg", "a/1.png", "../b/1.png", "-")]
    folders = predictions.Folders(tmp_path, draw=Path("drawn"))
    assert list(predictions.written(answers, folders, {})) == [Answer(each.file, {}) for each in answers]
    drawn = tmp_path / "drawn"
    assert {str(path.relative_to(drawn)): path.read_bytes() for path in drawn.rglob("*.png")} == {
        "a/1.png": b"a/1.jpg",
        "a/1-2.png": b"a/1.png",
        "b/1.png": b"../b/1.png",
        "stdin.png": b"-",
    }


def test_a_version_whose_answers_have_no_picture_says_so(chain, tmp_path):
    with pytest.raises(PedigreeError, match=r"digits version \d+ rejects the request: it draws no pictures"):
        predict.predict(
            chain.root, tmp_path, "digits", ["a.png"], {}, predict.Output("json", draw=tmp_path), debug=False
        )


@pytest.mark.parametrize("columns", [{"images": b"new"}, {}], ids=["a file", "a picture"])
def test_no_file_that_is_to_be_answered_is_replaced(tmp_path, columns):
    (tmp_path / "b.png").write_bytes(b"mine")
    folders = predictions.Folders(tmp_path, Path(), Path(), ["a.jpg", "b.png"])
    answers = predictions.written([Answer("b.jpg", columns, b"new")], folders, {"images": "image/png"})
    with pytest.raises(PedigreeError, match=r"^b\.png would be replaced .*: name another folder$"):
        list(answers)
    assert (tmp_path / "b.png").read_bytes() == b"mine"


@pytest.mark.long
def test_a_detector_draws_boxes_on_the_images_that_it_can_read(chain_of, tmp_path, capsys):
    chain = chain_of("scenes")
    images = [str(path) for path in sorted((chain.raw / "test" / "images").iterdir())[:2]]
    output = predict.Output("coco", draw=tmp_path / "drawn")
    (tmp_path / "text.jpg").write_text("no image")
    names = [*images, "text.jpg"]
    assert not predict.predict(chain.root, tmp_path, "scenes/1", names, {"threshold": 0.0}, output, debug=False)
    for name in images:
        (file,) = (tmp_path / "drawn").rglob(f"{Path(name).stem}.png")
        with Image.open(name) as image, Image.open(file) as drawn:
            assert drawn.size == image.size
            assert drawn.convert("RGB").tobytes() != image.convert("RGB").tobytes()
    assert len(list((tmp_path / "drawn").rglob("*.png"))) == 2
    results = json.loads(capsys.readouterr().out)
    assert {each["image_id"] for each in results} == {int(Path(name).stem) for name in images}
    assert {each["category_id"] for each in results} <= set(chain.prepared.manifest.facts["ids"])
