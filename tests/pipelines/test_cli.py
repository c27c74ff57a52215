"""What a person meets when something is wrong: one sentence, the right exit code, and nothing lost."""

import http.server
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from subprocess import PIPE

import psutil
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from components import __main__ as door
from components import processes
from components.adapters import mlflow_store
from components.errors import PedigreeError
from pipelines import cli, server
from tests.conftest import run_in
from tests.running import pedigree


@pytest.fixture
def workspace(chain, tmp_path):
    """A copy of the project in which the stages have run."""
    folder = tmp_path / "project"
    shutil.copytree(chain.root, folder, ignore=shutil.ignore_patterns(".prefect", "runs", "mlruns"))
    shutil.move(folder / "build" / "vision-chain", folder / "build" / "vision")
    return folder


def results(folder: Path) -> dict[str, bytes]:
    found = [p for p in (folder / "build").rglob("*") if p.is_file() and ".lock" not in p.suffixes]
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def failed(done: subprocess.CompletedProcess[str], said: str, code: int = 1) -> None:
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def inside(workspace, chain, monkeypatch):
    """Be in the workspace with this process: each start of another takes seconds."""
    monkeypatch.chdir(workspace)
    yield
    mlflow_store.connect(chain.root)


@pytest.fixture
def stage(inside, capsys):
    """Run a stage by hand, as `python -m components` does."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = door.main(list(arguments))
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run


def test_a_mistyped_parameter_stops_every_door_with_its_line(workspace, stage):
    before = results(workspace)
    edit(workspace / "params.yaml", "epochs:", "epohcs:")
    for done in (pedigree(workspace, "run", "vision"), stage("vision", "train")):
        failed(done, "tasks.vision.train.epohcs is not a parameter; did you mean epochs?")
        assert "params.yaml:" in done.stderr
    assert results(workspace) == before


def test_wrong_usage_is_exit_code_2(workspace, stage):
    failed(pedigree(workspace, "rnu"), "No such command", code=2)
    failed(pedigree(workspace, "run", "--no-such-option"), "No such option", code=2)
    failed(stage("vision"), "usage:", code=2)
    failed(stage("vision", "trian"), "did you mean train?", code=2)


@pytest.mark.parametrize("stage", ["prepare", "register"])
def test_a_stage_runs_no_module_of_ours_that_dvc_yaml_does_not_name(workspace, stage):
    """What Python itself tells of its imports, against the deps, which were read off the source."""
    done = run_in(workspace, "components", "vision", stage, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    ran = set(re.findall(r"\| +(components\S*)$", done.stderr, re.MULTILINE))
    assert {"components.adapters.dvc_data", "components.vision.prepare"} <= ran
    own = {name for name in ran if name.split(".")[1:2] == ["vision"]}
    deps = YAML().load(workspace / "dvc.yaml")["stages"][stage]["do"]["deps"]
    assert ran - own <= {dep.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for dep in deps}


def test_a_traceback_is_shown_only_with_debug(workspace, stage):
    failed(stage("visoin", "prepare"), "there is no task 'visoin'; did you mean vision?")
    with pytest.raises(PedigreeError):
        stage("visoin", "prepare", "--debug")
    loud = pedigree(workspace, "--debug", "run", "visoin")
    assert loud.returncode == 1
    assert "Traceback" in loud.stderr


def test_outside_a_project_the_command_says_so(tmp_path):
    failed(pedigree(tmp_path, "run"), "is not inside a Pedigree project")


def test_an_unknown_profile_is_named_with_the_nearest(workspace):
    failed(pedigree(workspace, "run", "--profile", "cifar"), "did you mean cifar10?")


def test_no_data_is_said_with_the_command_that_brings_it(workspace, stage):
    shutil.rmtree(workspace / "data")
    failed(pedigree(workspace, "run", "vision"), "run `pedigree data`")
    failed(stage("vision", "prepare"), "run `pedigree data`")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("empty class", "no images there"),
        ("test class missing in train", "has classes that"),
        ("one class", "has one class"),
        ("all corrupt", "refused"),
    ],
)
def test_data_that_cannot_be_learnt_from_is_refused_and_earlier_results_stay(workspace, stage, harm, said):
    before = results(workspace)
    raw = workspace / "data" / "vision"
    if harm == "empty class":
        for file in (raw / "train" / "1").iterdir():
            file.unlink()
    elif harm == "test class missing in train":
        shutil.rmtree(raw / "train" / "1")
    elif harm == "one class":
        for split in ("train", "test"):
            for name in ("1", "2", "3"):
                shutil.rmtree(raw / split / name)
    else:
        for file in (raw / "train" / "1").iterdir():
            file.write_bytes(file.read_bytes()[:60])
    failed(stage("vision", "prepare"), said)
    after = results(workspace)
    after.pop("build/vision/refused.json", None)
    assert after == before


@pytest.mark.parametrize("kind", ["missing", "foreign", "pickle"])
def test_a_checkpoint_that_is_none_stops_training_before_it_starts(workspace, stage, kind):
    import torch

    before = results(workspace)
    checkpoint = workspace / "resnet18.pth"
    if kind == "foreign":
        torch.save({"encoder.weight": torch.zeros(3)}, checkpoint)
    elif kind == "pickle":
        torch.save({"run": Path("x")}, checkpoint)
    _pretrained(workspace)
    failed(stage("vision", "train"), "resnet18.pth")
    assert results(workspace) == before


def _pretrained(workspace: Path) -> None:
    from ruamel.yaml import YAML

    yaml = YAML()
    tree = yaml.load(workspace / "params.yaml")
    tree["tasks"]["vision"]["train"]["model"].update(
        {"width": 1, "stem": "imagenet", "init": "pretrained", "checkpoint": "resnet18.pth"}
    )
    yaml.dump(tree, workspace / "params.yaml")


def test_a_full_disk_stops_with_the_remedy_and_keeps_earlier_results(workspace):
    """/dev/full gives the genuine ENOSPC of the kernel on every write."""
    before = results(workspace)
    script = (
        "import sys; from pathlib import Path; from components import arrays, __main__ as door\n"
        "class Full(arrays.Writer):\n"
        "    def __init__(self, path, *rest):\n"
        "        path.symlink_to('/dev/full') if path.name == 'train.images.npy' else None\n"
        "        super().__init__(path, *rest)\n"
        "arrays.Writer = Full\n"
        "sys.exit(door.main(['vision', 'prepare']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=workspace, capture_output=True, text=True, check=False
    )
    failed(done, "the disk is full: free some space")
    assert results(workspace) == before


def test_an_mlflow_server_that_does_not_answer_is_named_without_the_password(workspace):
    address = "http://ann:pass%40word@127.0.0.1:9"
    done = run_in(workspace, "components", "vision", "train", MLFLOW_TRACKING_URI=address)
    failed(done, "MLflow does not answer at http://127.0.0.1:9 ")
    assert "ann" not in done.stderr


def test_a_prefect_server_that_does_not_answer_is_named_without_the_password(workspace):
    done = pedigree(workspace, "run", "vision", PREFECT_API_URL="http://ann:word@127.0.0.1:9/api")
    failed(done, "Prefect does not answer at http://127.0.0.1:9/api:")
    assert "ann" not in done.stderr


def test_a_web_server_that_is_not_prefect_does_not_pass_for_it(workspace):
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    done = pedigree(workspace, "run", "vision", PREFECT_API_URL=f"http://127.0.0.1:{server.server_port}/api")
    server.shutdown()
    failed(done, "Prefect does not answer")


STARTED = """
from pathlib import Path
from pipelines import server
server.ADDRESS = "http://127.0.0.1:9"  # where none is
with server.connected(lambda: None, lambda: None):
    print("answers", flush=True)
    input()
"""


def test_a_server_of_a_run_that_is_killed_ends_too(workspace):
    run = subprocess.Popen([sys.executable, "-c", STARTED], cwd=workspace, stdin=PIPE, stdout=PIPE, text=True)
    assert run.stdout.readline() == "answers\n"
    (server,) = [
        each
        for each in processes.tree(run.pid)
        if "pipelines.temporary_server" in psutil.Process(each.pid).cmdline()
    ]
    run.kill()
    run.communicate()
    end = time.monotonic() + 20
    while not server.gone:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_no_server_is_begun_where_one_is_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(server, "answers", lambda api: api == f"{server.ADDRESS}/api")
    monkeypatch.setattr(server._Own, "begin", classmethod(lambda cls: pytest.fail("it is begun")))
    with server.connected(lambda: "checked", lambda: None) as checked:
        assert checked == "checked"


def test_a_run_with_a_wrong_parameter_makes_no_tables_of_prefect(workspace):
    failed(pedigree(workspace, "run", "vision", "--set", "train.epochs=-1"), "train.epochs")
    assert not list((workspace / ".prefect").glob("*.db")), "tables that were being made would be left half made"


def test_help_names_every_command():
    done = pedigree(Path.cwd(), "--help")
    assert done.returncode == 0
    versions = ("trace", "reproduce", "diff", "promote", "rollback", "predict", "serve")
    for command in ("data", "run", *versions, "up", "doctor"):
        assert command in done.stdout


def test_a_version_is_traced_and_its_lines_are_read_off_the_terminal(workspace, inside):
    done = pedigree(workspace, "trace", "models:/vision@champion")
    assert done.returncode == 0, done.stderr
    for what in ("version", "promoted", "weights", "prepared", "data", "code", "lock", "params", "machine", "run"):
        assert f" {what}  " in f" {done.stdout}", what
    data = next(line.split()[-4] for line in done.stdout.splitlines() if " data  " in line)
    assert "vision" in CliRunner().invoke(cli.app, ["trace", "--data", data[:10]]).stdout


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("trace", "models:/vision@champoin"), "error: there is no models:/vision@champoin: vision has the", 1),
        (("trace", "--data", "abcdefg"), "error: no registered version was made from data abcdefg", 1),
        (("trace",), "name a version, or a hash with --data", 2),
        (("reproduce", "vision/99"), "error: there is no vision/99: vision has the versions", 1),
        (("diff", "vision@champion", "vision/99"), "error: there is no vision/99: vision has the versions", 1),
        (("diff", "vision@champion"), "Missing argument", 2),
        (("promote", "vision", "99", "--why", "x"), "error: there is no vision/99: vision has the versions", 1),
        (("promote", "vision", "1"), "Missing option '--why'", 2),
        (("rollback", "vision", "--why", "x"), "error: no champion of vision was before version", 1),
        (("rollback", "visoin", "--why", "x"), "error: there is no visoin@champion: the registered models are", 1),
    ],
)
def test_what_is_asked_of_versions_that_are_not_there_is_a_sentence(
    chain, monkeypatch, capsys, arguments, said, code
):
    """In this process: what is asked changes nothing, and each start of another takes seconds."""
    monkeypatch.chdir(chain.root)
    monkeypatch.setattr(sys, "argv", ["pedigree", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr().err
    assert ended.value.code == code, told
    assert said in told
    assert "Traceback" not in told
