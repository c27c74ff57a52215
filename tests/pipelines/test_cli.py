"""What a person meets when something is wrong: one sentence, the right exit code, and nothing lost."""

import base64
import http.client
import http.server
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from subprocess import PIPE

import psutil
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from components import __main__ as components_command
from components.adapters import mlflow_store
from components.datasets import arrays
from components.runtime import addresses, files, login, processes
from pipelines import cli, server
from tests.conftest import ROOT, run_in
from tests.running import free_ports, pedigree


@pytest.fixture
def workspace(chain, tmp_path):
    """A copy of the project in which the stages have run."""
    folder = tmp_path / "project"
    shutil.copytree(chain.root, folder, ignore=shutil.ignore_patterns(".prefect", "runs", "mlruns"))
    files.remove(folder / "build" / "digits")  # only a link
    shutil.move(folder / "build" / "digits-chain", folder / "build" / "digits")
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
        code = components_command.main(list(arguments))
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run


@pytest.fixture
def command(inside, monkeypatch, capsys):
    """Run one of pedigree's commands, which fails."""
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "WARNING")  # `run` would leave it set

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["pedigree", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return subprocess.CompletedProcess(arguments, ended.value.code, *capsys.readouterr())

    return run


def test_a_mistyped_parameter_stops_every_entry_point_with_its_line(workspace, stage):
    before = results(workspace)
    edit(workspace / "params.yaml", "epochs:", "epohcs:")
    for done in (pedigree(workspace, "run", "digits"), stage("digits", "train")):
        failed(done, "models.digits.train.epohcs is not a parameter; did you mean epochs?")
        assert "params.yaml:" in done.stderr
    assert results(workspace) == before
    assert not list((workspace / ".prefect").glob("*.db")), "tables that were being made would be left half made"


def test_wrong_usage_is_exit_code_2(workspace, stage):
    failed(pedigree(workspace, "rnu"), "No such command", code=2)
    failed(pedigree(workspace, "run", "--no-such-option"), "No such option", code=2)
    failed(stage("digits"), "usage:", code=2)
    failed(stage("digits", "trian"), "did you mean train?", code=2)


@pytest.mark.long
@pytest.mark.parametrize("stage", ["prepare", "register"])
def test_a_stage_runs_no_module_of_ours_that_dvc_yaml_does_not_name(workspace, stage):
    """What Python itself tells of its imports, against the deps, which were read off the source."""
    done = run_in(workspace, "components", "digits", stage, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    ran = set(re.findall(r"\| +(components\S*)$", done.stderr, re.MULTILINE))
    assert {"components.adapters.dvc_data", "components.tasks.image_classification.prepare"} <= ran
    own = {name for name in ran if name.split(".")[1:3] == ["tasks", "image_classification"]}
    deps = YAML().load(workspace / "dvc.yaml")["stages"][stage]["do"]["deps"]
    named = {dep.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for dep in deps}
    folders = tuple(dep.replace("/", ".") + "." for dep in deps if not dep.endswith(".py"))
    assert {name for name in ran - own - named if not name.startswith(folders)} == set()


def test_a_traceback_is_shown_only_with_debug(workspace, stage):
    failed(stage("digist", "prepare"), "there is no model 'digist'; did you mean digits?")
    for loud in (stage("digist", "prepare", "--debug"), pedigree(workspace, "--debug", "run", "digist")):
        assert loud.returncode == 1
        assert "Traceback" in loud.stderr


def test_outside_a_project_the_command_says_so(tmp_path):
    failed(pedigree(tmp_path, "run"), "is not inside a Pedigree project")


def test_an_unknown_profile_is_named_with_the_nearest(command):
    failed(command("run", "--profile", "cifar"), "did you mean cifar10?")


def test_no_data_is_said_with_the_command_that_brings_it(workspace, stage, command):
    shutil.rmtree(workspace / "data" / "digits")
    said = "error: data/digits is missing: restore the data set of digits with `pedigree data digits`"
    failed(command("run", "digits"), said)
    failed(stage("digits", "prepare"), said)


def test_dvcs_own_program_says_which_command_brings_what_its_stages_lack(workspace, inside, monkeypatch, capfd):
    """In this process; DVC itself is started by it."""
    from components.adapters import dvc_program

    shutil.rmtree(workspace / "data" / "words")
    monkeypatch.setattr(sys, "argv", ["dvc", "repro", "prepare@words"])
    assert dvc_program.main() != 0
    assert (
        "error: data/words is missing: restore the data set of words with `pedigree data words`\n"
        in capfd.readouterr().err
    )


def test_a_model_needs_no_other_models_data(workspace, stage):
    """Its stages by hand; tests/adapters/test_dvc_data.py has `dvc repro`."""
    for name in ("docstrings", "words"):
        shutil.rmtree(workspace / "data" / name)
    assert stage("digits", "prepare").returncode == 0


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("empty class", "no images there"),
        ("test class missing in train", "has classes that"),
        ("one class", "has only the class"),
        ("all corrupt", "more than prepare.max_rejected"),
    ],
)
def test_data_that_cannot_be_learnt_from_is_rejected_and_earlier_results_stay(workspace, stage, harm, said):
    before = results(workspace)
    raw = workspace / "data" / "digits"
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
    failed(stage("digits", "prepare"), said)
    after = results(workspace)
    after.pop("build/digits/rejected.json", None)
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
    failed(stage("digits", "train"), "resnet18.pth")
    assert results(workspace) == before


def _pretrained(workspace: Path) -> None:
    yaml = YAML()
    tree = yaml.load(workspace / "params.yaml")
    tree["models"]["digits"]["train"]["model"].update({"width": 1, "stem": "imagenet"})
    tree["models"]["digits"]["train"]["init"]["from"] = "resnet18.pth"
    yaml.dump(tree, workspace / "params.yaml")


def test_a_full_disk_stops_with_the_remedy_and_keeps_earlier_results(workspace, stage, monkeypatch):
    """/dev/full gives the genuine ENOSPC of the kernel on every write."""
    before = results(workspace)

    class Full(arrays.Writer):
        def __init__(self, path, *rest):
            if path.name == "train.images.npy":
                path.symlink_to("/dev/full")
            super().__init__(path, *rest)

    monkeypatch.setattr(arrays, "Writer", Full)
    failed(stage("digits", "prepare"), "the disk is full: free some space")
    assert results(workspace) == before


def test_an_mlflow_server_that_does_not_answer_is_named_without_the_password(stage, monkeypatch):
    with monkeypatch.context() as environment:
        environment.setenv("MLFLOW_TRACKING_URI", "http://ann:pass%40word@127.0.0.1:9")
        done = stage("digits", "train")
    failed(done, "MLflow does not answer at http://127.0.0.1:9 ")
    assert "ann" not in done.stderr


def test_a_prefect_server_that_does_not_answer_is_named_without_the_password(command, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://ann:word@127.0.0.1:9/api")
    done = command("run", "digits")
    failed(done, "Prefect does not answer at http://127.0.0.1:9/api:")
    assert "ann" not in done.stderr


def test_a_web_server_that_is_not_prefect_does_not_pass_for_it(command, monkeypatch):
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}/api")
    done = command("run", "digits")
    server.shutdown()
    failed(done, "Prefect does not answer")


STARTED = """
from pipelines import server
from prefect.settings import get_current_settings
with server.connected(lambda: None, lambda: None):
    print(get_current_settings().api.auth_string.get_secret_value(), flush=True)
    input()
"""


@pytest.fixture(scope="module")
def server_of_a_run(tmp_path_factory):
    """A process that has started a server of its own in an empty project, and that server's process and login."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.Popen([sys.executable, "-c", STARTED], cwd=folder, env=env, stdin=PIPE, stdout=PIPE, text=True)
    its_login = run.stdout.readline().strip()
    assert its_login.startswith("pedigree:")
    (server,) = [
        each for each in processes.tree(run.pid) if "pipelines.prefect_server" in psutil.Process(each.pid).cmdline()
    ]
    yield run, server, its_login
    run.kill()
    run.communicate()


def asked(port: int, method: str, path: str, **headers: str) -> tuple[int, str | None]:
    """Return the status of a server's answer, and which pages may read it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with closing(connection):
        connection.request(method, path, "{}", headers | {"Origin": "http://evil.example"})
        answer = connection.getresponse()
        return answer.status, answer.headers["Access-Control-Allow-Origin"]


@pytest.mark.long
def test_a_server_of_a_run_answers_that_run_alone_and_by_the_names_of_this_machine(server_of_a_run):
    run, server, its_login = server_of_a_run
    sockets = psutil.Process(server.pid).net_connections("tcp")
    (port,) = {each.laddr.port for each in sockets if each.status == psutil.CONN_LISTEN}
    known = {"Authorization": f"Basic {base64.b64encode(its_login.encode()).decode()}"}
    token = "/api/csrf-token?client=page"
    assert asked(port, "GET", "/api/health") == (200, None)
    assert asked(port, "GET", token) == (401, None)
    assert asked(port, "GET", token, **known) == (200, None)
    assert asked(port, "GET", token, **known, Host="evil.example") == (400, None)
    assert asked(port, "POST", "/api/flows/", **known) == (403, None)
    password = its_login.partition(":")[2]
    for each in processes.tree(run.pid):
        process = psutil.Process(each.pid)
        assert password not in f"{process.cmdline()} {process.environ()}"
    assert not (Path(psutil.Process(run.pid).cwd()) / login.FILE).exists()


@pytest.mark.long
def test_a_server_of_a_run_that_is_killed_ends_too(server_of_a_run):
    run, server, _ = server_of_a_run
    run.kill()
    run.communicate()
    end = time.monotonic() + 20
    while not server.gone:
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize("named", [None, "http://127.0.0.1:4300/api"])
def test_no_server_is_started_where_up_runs_in_this_checkout(tmp_path, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    if named:
        monkeypatch.setenv("PREFECT_API_URL", named)
    of_up = "http://127.0.0.1:4300/api", login.of(tmp_path)
    monkeypatch.setattr(server, "answers", lambda *asked: asked == of_up)
    monkeypatch.setattr(server._Own, "begin", classmethod(lambda cls: pytest.fail("it is started")))
    with (
        addresses.published(tmp_path, "http://127.0.0.1:5100", "http://127.0.0.1:4300"),
        server.connected(lambda: "checked", lambda: None) as checked,
    ):
        assert checked == "checked"


@pytest.mark.parametrize(
    ("command", "variable", "needs"),
    [
        (("up", "--prefect-port", "{}"), None, "Prefect's server needs it: choose another with --prefect-port"),
        (("up",), addresses.PREFECT, "Prefect's server needs it: choose another with --prefect-port"),
        (("ui", "--port", "{}"), None, "the MLflow UI needs it: choose another with --port"),
        (("ui",), addresses.MLFLOW, "the MLflow UI needs it: choose another with --port"),
        (("serve", "digits"), addresses.SERVE, "the scoring server needs it: choose another with --port"),
    ],
)
def test_a_port_in_use_is_named_with_the_flag_that_chooses_another(
    tmp_path, monkeypatch, capsys, command, variable, needs
):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        if variable:
            monkeypatch.setenv(variable.variable, port)
        code, said = here(tmp_path, monkeypatch, capsys, *(each.format(port) for each in command))
    assert code == 1
    assert said.startswith(f"error: port {port} on 127.0.0.1 is in use by pid {os.getpid()} (")
    assert said.endswith(f"), but {needs}, or stop the program that listens there\n")


def test_one_port_for_two_servers_is_wrong_usage(tmp_path, monkeypatch, capsys):
    code, said = here(tmp_path, monkeypatch, capsys, "up", "--prefect-port", "5000")
    assert code == 2
    assert "--prefect-port and --mlflow-port are both 5000" in said  # in a box, in lines


def here(folder: Path, monkeypatch, capsys, *arguments: str) -> tuple[int, str]:
    """Run a command that fails in a folder, in this process: each start of another takes seconds."""
    (folder / "params.yaml").touch()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["pedigree", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, capsys.readouterr().err


def test_help_names_every_command():
    done = pedigree(Path.cwd(), "--help")
    assert done.returncode == 0
    named = re.findall(r"^│ (\w+) ", done.stdout, re.MULTILINE)
    assert named == [command.name or command.callback.__name__ for command in cli.app.registered_commands]


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("run", "digits", "--task", "image_classification"), "name models or a task, not both", 2),
        (
            ("run", "--task", "image_clasification"),
            "error: no model in params.yaml has the task image_clasification; did you mean image_classification?",
            1,
        ),
        (
            ("run", "words", "--profile", "cifar10"),
            "error: profiles/cifar10.yaml is for the task image_classification, but words",
            1,
        ),
        (("data", "digits", "--all"), "name models or use --all, not both", 2),
        (("data", "--fetch", "cifar10"), "--fetch takes exactly one model", 2),
        (
            ("data", "digits", "--fetch", "cifar"),
            "error: the task image_classification has no public data set 'cifar'; did you",
            1,
        ),
        (("data", "digist"), "error: there is no model 'digist'; did you mean digits?", 1),
        (("data", "--resplit"), "--resplit takes exactly one model", 2),
        (("data", "digits", "--resplit", "--accept"), "--resplit takes exactly one model, and no other option", 2),
        (("data", "digist", "--resplit"), "error: there is no model 'digist'; did you mean digits?", 1),
        (
            ("new", "digits", "--like", "words", "--data", "data/words"),
            "the model digits already exists: choose",
            1,
        ),
        (
            ("new", "a/b", "--like", "words", "--data", "data/words"),
            "error: NAME: 'a/b' cannot name a model: use",
            1,
        ),
        (
            ("new", "a", "--like", "wrods", "--data", "data/words"),
            "error: there is no model 'wrods'; did you mean",
            1,
        ),
        (("new", "a", "--like", "words"), "Missing option '--data'", 2),
    ],
)
def test_what_is_asked_of_models_that_cannot_be_is_a_sentence(chain, monkeypatch, capsys, arguments, said, code):
    """In this process: what is asked changes nothing, and each start of another takes seconds."""
    monkeypatch.chdir(chain.root)
    monkeypatch.setattr(sys, "argv", ["pedigree", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert ended.value.code == code, printed
    assert said in printed
    assert "Traceback" not in printed


def test_the_list_of_models_shows_their_data_and_champions(workspace, inside):
    shutil.rmtree(workspace / "data" / "docstrings")
    (workspace / "data" / "words" / "more.txt").write_text("more")
    done = CliRunner().invoke(cli.app, ["list"])
    assert done.exit_code == 0
    shown = {line.split()[0]: " ".join(line.split()) for line in done.stdout.splitlines() if line.strip()}
    assert re.fullmatch(
        r"digits image_classification digits: [\d,]+ files, pinned version \d+ accuracy [\d.]+", shown["digits"]
    )
    assert shown["docstrings"] == "docstrings language_model docstrings: missing"
    assert re.fullmatch(r"words spoken_words words: \d+ files, changed since it was pinned.*", shown["words"])


def test_the_versions_of_a_model_are_listed_with_score_aliases_data_and_what_the_gate_decided(chain, inside):
    done = CliRunner().invoke(cli.app, ["versions", "digits"])
    assert done.exit_code == 0, done.stderr
    rows = [" ".join(line.split()) for line in done.stdout.splitlines() if line.strip(" ─")]
    assert rows[0] == "version score aliases age data why"
    assert re.fullmatch(
        rf"1 accuracy [\d.]+ \[[\d.]+, [\d.]+\] challenger, champion \d+ (s|min) "
        rf"digits {chain.prepared.manifest.raw[:8]}, pinned promoted: there was none before",
        rows[-1],
    )


def test_help_names_the_ways_to_name_a_version():
    for arguments in ([], ["predict"]):
        said = " ".join(CliRunner().invoke(cli.app, [*arguments, "--help"]).stdout.replace("│", " ").split())
        assert "@challenger (its newest version)" in said


def test_a_version_is_traced_and_its_lines_are_read_off_the_terminal(inside):
    done = CliRunner().invoke(cli.app, ["trace", "models:/digits@champion"])
    assert done.exit_code == 0, done.stderr
    for what in ("version", "promoted", "weights", "prepared", "data", "code", "lock", "params", "machine", "run"):
        assert f" {what}  " in f" {done.stdout}", what
    data = next(line.split()[-2] for line in done.stdout.splitlines() if " data  " in line)
    assert "digits" in CliRunner().invoke(cli.app, ["trace", "--data", data[:10]]).stdout


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("trace", "models:/digits@champoin"), "error: there is no models:/digits@champoin: digits has the", 1),
        (("versions", "digist"), "error: digist has no version: the registered models are", 1),
        (("trace", "--data", "abcdefg"), "error: no registered version was trained on data abcdefg", 1),
        (("trace",), "name a version, or a hash with --data", 2),
        (("serve", "digits/99"), "error: there is no digits/99: digits has the versions 1", 1),
        (("reproduce", "digits/99"), "error: there is no digits/99: digits has the versions", 1),
        (("diff", "digits@champion", "digits/99"), "error: there is no digits/99: digits has the versions", 1),
        (("diff", "digits@champion"), "Missing argument", 2),
        (("promote", "digits", "99", "--why", "x"), "error: there is no digits/99: digits has the versions", 1),
        (("promote", "digits/99", "--why", "x"), "error: there is no digits/99: digits has the versions", 1),
        (("promote", "digits", "--why", "x"), "name the version, too, such as digits/3", 2),
        (("promote", "digits", "1"), "Missing option '--why'", 2),
        (("gate", "digist"), "error: there is no model 'digist'; did you mean digits?", 1),
        (("rollback", "digits", "--why", "x"), "error: digits had no champion before version", 1),
        (("rollback", "digist", "--why", "x"), "error: there is no digist@champion: the registered models are", 1),
    ],
)
def test_what_is_asked_of_versions_that_are_not_there_is_a_sentence(
    chain, monkeypatch, capsys, arguments, said, code
):
    """In this process: what is asked changes nothing, and each start of another takes seconds."""
    monkeypatch.chdir(chain.root)
    (port,) = free_ports(1)
    monkeypatch.setenv(addresses.SERVE.variable, str(port))
    monkeypatch.setattr(sys, "argv", ["pedigree", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr().err
    assert ended.value.code == code, printed
    assert said in printed
    assert "Traceback" not in printed
