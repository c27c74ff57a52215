"""dvc repro, a Prefect deployment and pedigree run register the same model."""

import http.client
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from urllib.request import Request, urlopen

import psutil
import pytest
from mlflow import MlflowClient
from PIL import Image
from playwright.sync_api import expect
from ruamel.yaml import YAML
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.typing import Subprotocol

from components import models, params
from components.adapters import dvc_data
from components.jobs import gpus
from components.runtime import addresses, locks, login
from pipelines import cli, prefect_yaml
from tests import running
from tests.conftest import commit, listening, run_in
from tests.pages.browser import CHROMIUM, chromium
from tests.toy import tiny as toy
from tests.toy.tiny import SECTION

SECRETS = {
    name: f"secret-{number}-Zq7vK2"
    for number, name in enumerate(
        (
            "AWS_SECRET_ACCESS_KEY",
            "MLFLOW_TRACKING_PASSWORD",
            "MLFLOW_TRACKING_TOKEN",
            "PREFECT_API_KEY",
            "PREFECT_API_AUTH_STRING",
            "RAY_AUTH_TOKEN",
            "GITHUB_TOKEN",
        )
    )
}


TRUSTING = {
    "PREFECT_SERVER_API_AUTH_STRING": "",
    "prefect_server_api_auth_string": "",
    "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "false",
    "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "false",
    "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": "*",
    "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "*",
    "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
    "PREFECT_CLIENT_CUSTOM_HEADERS": '{"Authorization": "Basic of-a-team"}',
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true",
    "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "*",
    "MLFLOW_SERVER_X_FRAME_OPTIONS": "NONE",
    "MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow.example",
}
"""The environment of somebody whose own servers trust everybody, except for the last, which names a proxy."""


TWIN = "digits-twin"
"""A second model of the task and the data of digits."""


def leave_two_models(folder: Path) -> None:
    """Leave the model of digits, and give it a twin: with more, each start of `up` and of DVC takes longer."""
    yaml = YAML()
    tree = yaml.load(folder / params.FILE)
    digits = tree["models"]["digits"]
    tree["models"] = {"digits": digits, TWIN: deepcopy(digits)}
    yaml.dump(tree, folder / params.FILE)
    (folder / prefect_yaml.FILE).write_text(prefect_yaml.text(folder, models.listed(models.read(folder))))


@pytest.fixture(scope="module")
def workspace(project, tmp_path_factory):
    """A copy of the project that tests may change, with two models of digits, and one more task with a model."""
    folder = tmp_path_factory.mktemp("entry-points") / "project"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns("build", "mlflow.db", "mlruns", ".prefect"))
    leave_two_models(folder)
    toy.add(folder)
    dvc_data.add(folder, "points")
    return folder


def versions(folder: Path) -> list[int]:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return sorted(int(v.version) for v in client.search_model_versions("name = 'line'"))


@pytest.fixture(scope="module")
def built(workspace):
    """The workspace once `dvc repro` has run the four stages of the new task's model."""
    # As on most machines, Python leaves its bytecode beside the modules that the stages depend on.
    done = run_in(workspace, "dvc", "repro", "register@line", PYTHONDONTWRITEBYTECODE="")
    assert done.returncode == 0, done.stderr
    (workspace / "repro.log").write_text(done.stdout)
    return workspace


def test_dvc_repro_ends_with_the_verdict_and_the_folder_of_figures_as_pedigree_run_does(built):
    said = (built / "repro.log").read_text()
    assert "✓ weights at most 1 MB" in said
    assert "line files    build/line/evaluation\n" in said
    assert re.search(r"^line version  http://\S+/#/models/line/versions/1\?", said, re.MULTILINE)
    assert re.search(r"^line: squared_error \S+ \(version 1, champion\)$", said, re.MULTILINE)
    assert (built / "build/line/latest").readlink() == Path("evaluation")


def test_dvc_repro_builds_a_new_tasks_four_stages_and_a_second_one_does_nothing(workspace, built):
    assert (workspace / "components" / "tasks" / "toy" / "__pycache__").exists()
    metrics = json.loads((workspace / "build/line/evaluation/metrics.json").read_text())
    assert metrics["squared_error"] < 0.01
    assert versions(workspace) == [1]
    second = run_in(workspace, "dvc", "repro", "register@line")
    assert "Data and pipelines are up to date." in second.stdout
    assert versions(workspace) == [1]


@pytest.mark.long
@pytest.mark.parametrize(("what", "said"), [("metrics", "squared_error"), ("plots", "history.csv")])
def test_dvc_shows_the_metrics_and_curves_of_a_new_task(built, what, said):
    shown = run_in(built, "dvc", what, "show", "--json")
    assert shown.returncode == 0, shown.stderr
    assert said in shown.stdout


def quiet(folder: Path, *arguments: str) -> str:
    """Run this environment's `dvc`, which has nothing to complain of; return what it printed."""
    done = running.python(folder, 200, *running.DVC, *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "WARNING" not in done.stdout
    return done.stdout


@pytest.mark.long
def test_after_a_run_of_one_model_its_outputs_reach_a_clone_through_the_remote_and_compare_there(built, tmp_path):
    folder, clone = tmp_path / "project", tmp_path / "clone"
    shutil.copytree(built, folder)
    assert "squared_error" in quiet(folder, "metrics", "diff"), "HEAD has no metrics yet"
    quiet(folder, "remote", "add", "--default", "storage", str(tmp_path / "remote"))
    commit(folder, "The first run of line")
    quiet(folder, "push")
    subprocess.run(["git", "clone", "--quiet", folder, clone], check=True)
    quiet(clone, "pull")
    assert "Data and pipelines are up to date." in quiet(clone, "repro", "register@line")
    metrics = clone / "build/line/evaluation/metrics.json"
    metrics.unlink()
    metrics.write_text('{"squared_error": 1}')
    assert "squared_error" in quiet(clone, "metrics", "diff")
    assert "dvc_plots" in quiet(clone, "plots", "diff")
    assert "dvc_plots" in quiet(clone, "plots", "show")
    changes = subprocess.run(["git", "status", "--short"], cwd=clone, capture_output=True, text=True, check=True)
    assert changes.stdout == ""


@pytest.mark.long
def test_dvc_repro_means_four_stages_for_each_model(workspace):
    listed = run_in(workspace, "dvc", "stage", "list", "--name-only").stdout.split()
    stages = ("prepare", "train", "evaluate", "register")
    assert sorted(listed) == sorted(f"{stage}@{model}" for stage in stages for model in ["digits", TWIN, "line"])


def test_a_changed_parameter_runs_the_stages_that_depend_on_it_alone(workspace, built):
    text = (workspace / "params.yaml").read_text()
    (workspace / "params.yaml").write_text(text.replace(SECTION, SECTION.replace("batch_size: 4", "batch_size: 5")))
    dry = run_in(workspace, "dvc", "repro", "--dry", "register@line").stdout
    (workspace / "params.yaml").write_text(text)
    assert "Running stage 'evaluate@line'" in dry
    assert "Running stage 'train@line'" not in dry


def stages_that_would_run_again(workspace: Path) -> set[str]:
    done = run_in(workspace, "dvc", "status", "--json", "--with-deps", "register@line")
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.long
def test_an_edit_of_a_module_that_a_stage_imports_runs_it_again_and_another_edit_does_not(workspace, built):
    assert stages_that_would_run_again(workspace) == set()
    with edited(workspace, "components/registry/compare.py"):
        assert stages_that_would_run_again(workspace) == set()
    with edited(workspace, "components/stages/register.py"):
        assert stages_that_would_run_again(workspace) == {"register@line"}
    with edited(workspace, "components/training/loop.py"):
        assert stages_that_would_run_again(workspace) == {"train@line", "evaluate@line", "register@line"}


@contextmanager
def edited(workspace: Path, *modules: str) -> Iterator[None]:
    before = {workspace / module: (workspace / module).read_text() for module in modules}
    for file, code in before.items():
        file.write_text(f"{code}# An edit.\n")
    yield
    for file, code in before.items():
        file.write_text(code)


@pytest.mark.long
def test_a_stage_that_fails_keeps_its_earlier_output(workspace, built):
    metrics = workspace / "build/line/evaluation/metrics.json"
    before = metrics.read_text()
    weights = workspace / "build/line/model/weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    failed = run_in(workspace, "dvc", "repro", "-s", "-f", "evaluate@line")
    weights.write_bytes(whole)
    assert failed.returncode != 0
    assert "weights.safetensors is damaged" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert metrics.read_text() == before


@pytest.fixture(scope="module")
def ports():
    return running.free_ports(2)


@pytest.fixture(scope="module")
def its(workspace, ports):
    """The `pedigree up` of this project, in the environment of somebody who has opened other servers of theirs."""
    everywhere = dict.fromkeys(
        ("MLFLOW_HOST", "PREFECT_SERVER_API_HOST", "PREFECT_RUNNER_SERVER_HOST", "UVICORN_HOST"), "0.0.0.0"
    )
    everywhere |= {"MLFLOW_UVICORN_OPTS": "--host 0.0.0.0", "PREFECT_RUNNER_SERVER_ENABLE": "true"}
    with running.up(workspace, ports, **everywhere, **TRUSTING, **SECRETS) as its:
        yield its


@pytest.fixture(scope="module")
def up(its):
    return its.process


def deployment_run(its, *arguments: str) -> subprocess.CompletedProcess[str]:
    its.deployment("line")  # it is there a few seconds after the servers are
    return run_in(its.folder, "prefect", "--no-prompt", "deployment", "run", "line/local", *arguments)


def test_a_deployment_run_registers_a_model_with_its_own_parameters(workspace, its):
    before = versions(workspace)
    done = deployment_run(its, "-p", 'train={"epochs": 2}', "--watch")
    assert done.returncode == 0, done.stdout + done.stderr + (workspace / "up.log").read_text()
    new = max(before, default=0) + 1
    assert versions(workspace) == [*before, new]
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    run = client.get_run(client.get_model_version("line", str(new)).run_id)
    assert run.data.params["train.epochs"] == "2"
    assert "made-up points" in run.data.tags["mlflow.note.content"]
    assert "made-up points" in client.get_model_version("line", str(new)).description
    assert {f"seconds/{stage}" for stage in ("prepare", "train", "evaluate", "register")} <= set(run.data.metrics)
    assert run.info.run_name == f"line {new} epochs=2"
    assert SECTION in (workspace / "params.yaml").read_text()
    artifacts = {a["key"]: a for a in its.api("artifacts/filter", {})}
    assert set(artifacts) == {"line-training", "line-result", "line-verdict", "line-run", "line-version"}
    assert artifacts["line-training"]["data"] == 100
    assert "test/squared_error" in json.dumps(artifacts["line-result"]["data"])
    assert "made-up points" in artifacts["line-result"]["description"]
    assert {"rule", "found", "passed"} <= json.loads(artifacts["line-verdict"]["data"])[0].keys()
    latest = workspace / "build/line/latest"
    assert latest.resolve().parent.parent == (workspace / "build/runs").resolve()
    assert (latest / "metrics.json").is_file()
    messages = [entry["message"] for entry in its.api("logs/filter", {})]
    assert any(re.match(r"line epoch 2/2  train/loss", message) for message in messages)


@pytest.mark.long
def test_a_retried_flow_run_keeps_its_parameters_and_data_although_params_yaml_lost_its_model(workspace, its):
    values, points = workspace / "params.yaml", workspace / "data/points/points.csv"
    before = values.read_text(), points.read_text()
    try:
        with locks.alone(workspace / gpus.ACCELERATOR, "a training of the test"):
            flow_run = its.submit("line", {"train": {"epochs": 3}})
            its.wait_for(flow_run, lambda: "waiting for a training of the test" in its.messages(flow_run))
            values.write_text(before[0].replace(SECTION, ""))
            points.write_text(f"{before[1]}5,14\n")
            assert run_in(workspace, "prefect", "flow-run", "cancel", flow_run).returncode == 0
            its.wait_for(flow_run, lambda: its.state(flow_run) == "CANCELLED")
        assert run_in(workspace, "prefect", "flow-run", "retry", flow_run).returncode == 0
        its.wait_for(flow_run, lambda: its.state(flow_run) == "COMPLETED")
    finally:
        values.write_text(before[0])
        points.write_text(before[1])
    said = its.messages(flow_run)
    assert "although params.yaml now differs: there is no model 'line'" in said
    assert "it uses what it prepared" in said
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("line").experiment_id], max_results=1)
    assert found.data.params["train.epochs"] == "3"
    assert found.data.params["train.batch_size"] == "8"
    assert found.info.run_name.endswith("epochs=3")


def test_all_that_is_up_listens_on_loopback_alone_and_its_ports_stay_taken_when_a_server_ends(up, ports):
    assert listening(up.pid) == {"127.0.0.1"}
    sockets = psutil.Process(up.pid).net_connections("tcp")
    assert {each.laddr.port for each in sockets if each.status == psutil.CONN_LISTEN} == set(ports)


def test_pedigree_ui_at_the_port_where_up_serves_the_pages_of_this_checkout_says_that_it_does(workspace, up, ports):
    done = running.pedigree(workspace, "ui", "--port", str(ports[1]))
    assert done.returncode == 0, done.stderr
    address = f"http://127.0.0.1:{ports[1]}"
    assert f"MLflow       {address}, which this checkout already serves (pid {up.pid})" in done.stdout


def password(workspace: Path) -> str:
    return login.of(workspace).partition(":")[2]


def status(port: int, path: str, body: str | None = None, **headers: str) -> int:
    """Ask a server, by POST if there is a body, and return the status of its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    with closing(connection):
        connection.request("GET" if body is None else "POST", path, body, names)
        return connection.getresponse().status


NAMES = ("evil.example", "evil.example:{}", "127.0.0.1.evil.example:{}", "")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_whose_name_was_rebound_to_this_machine_reaches_neither_server(its, ports, name):
    prefect, mlflow = ports
    headers = {"Host": name.format(prefect), "Authorization": running.basic(its.folder)}
    assert status(prefect, "/api/csrf-token?client=page", **headers) == 400
    assert status(prefect, "/api/flows/filter", "{}", **headers, **its.token()) == 400
    assert status(prefect, "/", **headers) == 400
    with pytest.raises(InvalidStatus, match="HTTP 400"):
        events(prefect, "evil.example")
    headers["Host"] = name.format(mlflow)
    assert status(mlflow, EXPERIMENTS, **headers) == 403
    assert status(mlflow, "/", **headers) == 403


def test_the_names_of_this_machine_reach_both_servers_and_a_private_address_neither(its, ports):
    prefect, mlflow = ports
    for host in (
        "127.0.0.1",
        "localhost:4200",
        "[::1]:4200",
        "[::1]",
    ):  # the last three at the other end of a tunnel
        headers = {"Host": host, "Authorization": running.basic(its.folder)}
        assert status(prefect, "/api/csrf-token?client=page", **headers) == 200
        assert status(mlflow, EXPERIMENTS, **headers) == 200
    for host in ("10.0.0.1", "192.168.0.1:4200", "0.0.0.0:4200"):
        headers["Host"] = host
        assert status(prefect, "/api/csrf-token?client=page", **headers) == 400
        assert status(mlflow, EXPERIMENTS, **headers) == 403


EXPERIMENTS = "/ajax-api/2.0/mlflow/experiments/search?max_results=1"


@pytest.mark.parametrize(
    "authorization", ["", "Basic", "Basic !", f"Basic {b64encode(b'pedigree:').decode()}", "Bearer x"]
)
def test_without_its_login_neither_server_answers_anything_but_that_it_is_there(its, ports, authorization):
    prefect, mlflow = ports
    headers = {"Authorization": authorization} if authorization else {}
    assert status(prefect, "/api/health") == status(mlflow, "/health") == 200
    assert status(prefect, "/api/csrf-token?client=page", **headers) == 401
    assert status(prefect, "/api/flows/filter", "{}", **headers) == 403
    assert status(prefect, "/api/flows/filter", "{}", **headers, **its.token()) == 401
    for path in ("/", EXPERIMENTS, "/version", "/api/2.0/mlflow-artifacts/artifacts", "/graphql"):
        assert status(mlflow, path, **headers) == 401
        assert status(mlflow, path, "{}", **headers) == 401


def events(port: int, host: str, token: str = "") -> str:
    """Open Prefect's stream of events as its clients do; return the type of the server's answer to the login."""
    from websockets.sync import client

    address = f"ws://{host}:{port}/api/events/out"
    with (
        socket.create_connection(("127.0.0.1", port)) as connection,
        client.connect(address, sock=connection, subprotocols=[Subprotocol("prefect")]) as stream,
    ):
        stream.send(json.dumps({"type": "auth", "token": token}))
        return str(json.loads(stream.recv())["type"])


def test_prefects_stream_of_events_opens_with_the_login_alone(its, ports):
    assert events(ports[0], "127.0.0.1", login.of(its.folder)) == "auth_success"
    for token in ("", "pedigree:word"):
        with pytest.raises(ConnectionClosedError, match="1008"):
            events(ports[0], "127.0.0.1", token)


@pytest.mark.parametrize("kind", ["application/json", "text/plain", None])
def test_a_forged_request_changes_nothing_at_prefect_even_where_the_browser_adds_the_login(its, ports, kind):
    headers = {"Content_Type": kind} if kind else {}
    headers |= {"Authorization": running.basic(its.folder), "Origin": "http://evil.example"}
    assert status(ports[0], "/api/flows/", '{"name": "forged"}', **headers) == 403
    token = {"Prefect_Csrf_Token": "guessed", "Prefect_Csrf_Client": "page"}
    assert status(ports[0], "/api/flows/", '{"name": "forged"}', **headers, **token) == 403
    assert "forged" not in [flow["name"] for flow in its.api("flows/filter", {})]


@pytest.mark.parametrize("server", [0, 1])
@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:8888", "http://127.0.0.1:8888"]
)
def test_no_page_of_another_origin_may_read_an_answer_of_either_server(its, ports, server, origin):
    path = ("/api/csrf-token?client=page", EXPERIMENTS)[server]
    for headers in (
        {},
        {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"},
    ):
        connection = http.client.HTTPConnection("127.0.0.1", ports[server], timeout=20)
        with closing(connection):
            known = {"Origin": origin, "Authorization": running.basic(its.folder)}
            connection.request("OPTIONS" if headers else "GET", path, headers=known | headers)
            assert connection.getresponse().headers["Access-Control-Allow-Origin"] is None


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:8888", "https://mlflow.example.evil"]
)
def test_a_page_of_another_origin_can_change_nothing_at_mlflow(its, ports, origin):
    headers = {"Authorization": running.basic(its.folder), "Origin": origin}
    for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
        sent = status(
            ports[1], "/ajax-api/2.0/mlflow/experiments/create", '{"name": "x"}', **headers, Content_Type=kind
        )
        assert sent == 403
    for path in ("/graphql", "/get-artifact", "/api/2.0/mlflow-artifacts/artifacts/x"):
        assert status(ports[1], path, "{}", **headers) == 403


def test_a_proxy_that_mlflow_is_to_answer_may_pass_on_its_own_name_and_its_pages(its, ports):
    headers = {"Authorization": running.basic(its.folder), "Content_Type": "application/json"}
    headers["Origin"] = "https://mlflow.example"
    for host in ("mlflow.example", "127.0.0.1"):  # the latter where the proxy sends another name than its own
        headers["Host"] = host
        assert status(ports[1], "/ajax-api/2.0/mlflow/experiments/search", '{"max_results": 1}', **headers) == 200


def test_a_proxy_reaches_prefect_by_the_name_of_this_machine_with_the_origin_of_its_pages(its, ports):
    headers = {"Host": "127.0.0.1", "Authorization": running.basic(its.folder), "Origin": "https://prefect.example"}
    assert status(ports[0], "/api/flows/filter", "{}", **headers, **its.token()) == 200


def test_mlflows_pages_cannot_be_framed_by_others(its, ports):
    with urlopen(
        Request(f"http://127.0.0.1:{ports[1]}/", headers={"Authorization": running.basic(its.folder)})
    ) as page:
        assert page.headers["X-Frame-Options"] == "SAMEORIGIN"


def test_the_login_is_in_no_argument_no_log_and_no_file_that_others_can_read(workspace, its, up):
    top = psutil.Process(up.pid)
    for process in [top, *top.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            assert password(workspace) not in " ".join(process.cmdline())
    assert password(workspace) not in its.log()
    files = [workspace / login.FILE, workspace / ".prefect" / "profiles.toml"]
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]
    for file in files:
        assert password(workspace) in file.read_text()


AS_NOBODY = """
import encodings.idna, http.client, os, sys
prefect, mlflow, *files = sys.argv[1:]
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
for port, path in ((prefect, "/api/csrf-token?client=nobody"), (prefect, "/api/flow_runs/"), (mlflow, "/graphql")):
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=20)
    connection.request("POST" if path.endswith("/") else "GET", path, "{}")
    print(connection.getresponse().status)
    connection.close()
for file in files:
    try:
        print(open(file).read())
    except PermissionError:
        print("denied")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
def test_another_account_of_the_machine_can_use_neither_server_nor_read_the_login(workspace, its, ports, up):
    open_folder = Path(tempfile.mkdtemp())  # unlike pytest's, which others may not enter
    try:
        shutil.copytree(workspace / ".prefect", open_folder / ".prefect")
        for folder in (open_folder, open_folder / ".prefect"):
            folder.chmod(0o755)
        files = [open_folder / login.FILE, open_folder / ".prefect/profiles.toml"]
        files += [Path(f"/proc/{each.pid}/environ") for each in psutil.Process(up.pid).children()]
        command = [sys.executable, "-I", "-c", AS_NOBODY, *map(str, [*ports, *files])]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    finally:
        shutil.rmtree(open_folder)
    assert done.stdout.split() == ["401", "403", "401", *["denied"] * len(files)], done.stderr


@pytest.mark.long
def test_a_server_that_restarts_has_the_login_with_which_up_was_started(workspace, ports, up):
    known, file = running.basic(workspace), workspace / login.FILE
    before = file.read_text()
    file.write_text("ann:another\n")
    try:
        for each in psutil.Process(up.pid).children():
            if "components.adapters.mlflow_app" in each.cmdline():
                each.kill()
                each.wait()
        end = time.monotonic() + 120
        while True:
            with suppress(OSError):  # it takes a while
                assert status(ports[1], EXPERIMENTS, Authorization=known) == 200
                break
            assert time.monotonic() < end
    finally:
        file.write_text(before)


def test_a_parameter_out_of_bounds_is_rejected_before_anything_runs(workspace, its):
    before = versions(workspace)
    done = deployment_run(its, "-p", 'train={"epochs": -1}')
    assert done.returncode == 1
    assert "train.epochs" in done.stdout
    assert "less than the minimum of 0" in " ".join(done.stdout.split())
    assert versions(workspace) == before


def test_prefects_form_shows_the_values_of_params_yaml_with_their_descriptions(its):
    text = json.dumps(its.deployment("line")["parameter_openapi_schema"])
    assert "Passes over the training split" in text
    assert '"default": 30' in text


@pytest.mark.long
def test_prefect_yaml_deploys_the_same_flow_to_a_work_pool(workspace, its):
    for command in (["work-pool", "create", "local", "--type", "process"], ["--no-prompt", "deploy", "--all"]):
        done = run_in(workspace, "prefect", *command)
        assert done.returncode == 0, done.stdout + done.stderr
    pool, local = (its.deployment("digits", name) for name in ("pool", "local"))
    assert pool["parameter_openapi_schema"] == local["parameter_openapi_schema"]
    assert (pool["work_pool_name"], pool["entrypoint"]) == ("local", "pipelines/flow.py:model_digits")


def test_prefects_own_commands_in_the_checkout_find_its_server(workspace, its, ports):
    said = run_in(workspace, "prefect", "config", "view")
    assert f"PREFECT_API_URL='http://127.0.0.1:{ports[0]}/api'" in said.stdout
    assert password(workspace) not in said.stdout


def test_files_that_are_uploaded_to_mlflows_pages_are_none_of_the_commits(workspace):
    assert (
        subprocess.run(["git", "check-ignore", "-q", "mlartifacts/1/a.txt"], cwd=workspace, check=False).returncode
        == 0
    )


def test_a_second_up_of_the_same_checkout_is_rejected_whatever_its_ports(workspace, up, ports, monkeypatch, capsys):
    prefect, mlflow = map(str, running.free_ports(2))
    monkeypatch.chdir(workspace)
    monkeypatch.setattr(sys, "argv", ["pedigree", "up", "--prefect-port", prefect, "--mlflow-port", mlflow])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    said = f"error: `pedigree up` already runs in {workspace}, with Prefect at http://127.0.0.1:{ports[0]}: "
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.long
def test_pedigree_run_uses_the_server_that_is_up(workspace, up, ports, its):
    address, before = f"http://{login.of(workspace)}@127.0.0.1:{ports[1]}", completed(its)
    done = running.pedigree(
        workspace, "run", "line", "--set", "train.epochs=1", **SECRETS, MLFLOW_TRACKING_URI=address
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"line: squared_error \d\S* \(version \d+, (champion|challenger)\)", last), last
    assert "(made-up points)" in done.stdout
    for stage in ("prepare", "train", "evaluate", "register"):
        assert re.search(rf"{stage} \d+", done.stdout)
    assert completed(its) == before + 1
    assert f"line run      http://127.0.0.1:{ports[1]}/" in done.stdout
    (workspace / "run.log").write_text(done.stdout + done.stderr)
    assert files_with_a_secret(workspace, "run.log") == []


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_trainings_of_two_models_of_one_task_that_are_started_together_take_turns(workspace, its):
    for name in ("digits", TWIN):
        its.deployment(name)
    runs = [its.submit(name, {"train": {"epochs": 30}}) for name in ("digits", TWIN)]
    end = time.monotonic() + 300
    while (states := [its.state(run) for run in runs]) != ["COMPLETED"] * 2:
        assert not {"FAILED", "CRASHED", "CANCELLED"} & {*states}, its.log()
        assert time.monotonic() < end, its.log()
        time.sleep(0.5)
    first, second = sorted(training(workspace, name) for name in ("digits", TWIN))
    assert first[1] <= second[0]


def training(workspace: Path, name: str) -> tuple[int, int]:
    """Return when the only training of a model began, and when it was last validated."""
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    return run.info.start_time, max(
        each.timestamp for each in client.get_metric_history(run.info.run_id, "val/loss")
    )


def completed(its) -> int:
    return len([run for run in its.api("flow_runs/filter", {}) if run["state_type"] == "COMPLETED"])


def started_by_hand(browser) -> bool:
    """Start a run on a deployment's page; return whether the server has created it."""
    with browser.expect_response("**/create_flow_run") as answer:
        browser.get_by_role("button", name="Run", exact=True).click()
        browser.get_by_role("menuitem", name="Quick run").click()
    return answer.value.ok


def files_with_a_secret(workspace: Path, *more: str) -> list[str]:
    """Return which of a workspace's files hold one: databases, artifacts, logs, results, and what was printed."""
    contents = {path.relative_to(workspace): path.read_bytes() for path in workspace.rglob("*") if path.is_file()}
    names = {path.name for path in contents}
    assert {"prefect.db", "mlflow.db", "lineage.json", "environment.json", "up.log", *more} <= names
    secrets = [each.encode() for each in (*SECRETS.values(), password(workspace))]
    own = {login.FILE, Path(".prefect", "profiles.toml")}
    return [
        str(path)
        for path, content in contents.items()
        if path not in own and any(secret in content for secret in secrets)
    ]


@pytest.fixture(scope="module")
def scoring(built, tmp_path_factory):
    """The port of `pedigree serve` with the new task's model, and its log."""
    (port,) = running.free_ports(1)
    log = tmp_path_factory.mktemp("scoring") / "serve.log"
    with log.open("w") as out:
        command = [sys.executable, *running.PEDIGREE, "serve", "line", "--port", str(port)]
        server = subprocess.Popen(command, cwd=built, stdout=out, stderr=subprocess.STDOUT)
    try:
        await_line(server, log, "Ctrl-C")
        yield port, log
    finally:
        server.terminate()
        server.wait(30)


def await_line(server: subprocess.Popen, log: Path, text: str) -> None:
    end = time.monotonic() + 120
    while text not in log.read_text():
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)


class Trusting(http.server.BaseHTTPRequestHandler):
    """A server that answers every page; its / is the page of a stranger."""

    def do_GET(self):
        self.send_response(200)
        for name, value in (("Origin", "*"), ("Headers", "*")):
            self.send_header(f"Access-Control-Allow-{name}", value)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>A page of a stranger</title>")

    do_POST = do_OPTIONS = do_GET  # noqa: N815 - the library's names

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def stranger():
    """The port of the stranger's server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Trusting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


FETCH = """async ([url, body]) => {
    const form = "application/x-www-form-urlencoded";
    const types = {json: "application/json", text: "text/plain", form, none: ""};
    const found = [];
    for (const mode of ["cors", "no-cors"])
        for (const [name, type] of Object.entries(body === null ? {read: ""} : types)) {
            const sent = body === null ? {} : {method: "POST", body: new Blob([body], {type})};
            const answer = await fetch(url, {mode, credentials: "include", ...sent}).catch(() => null)
                ?? await fetch(url, {mode, ...sent}).catch(() => null);
            found.push([`${mode} ${name}`, answer && answer.type !== "opaque" ? answer.status : null]);
        }
    return found;
}"""
"""Ask in every way that scripts have; a null is an answer that the page may not read, or none."""
POST_FORM = """([url, body]) => new Promise(done => {
    const frame = document.createElement("iframe"), form = document.createElement("form");
    const field = document.createElement("input");
    // Sent as name=value, which is the body with one more entry.
    Object.assign(field, {name: body.slice(0, -1) + ', "x": "', value: '"}'});
    Object.assign(form, {action: url, method: "POST", enctype: "text/plain", target: "answer"});
    frame.name = "answer";
    form.append(field);
    document.body.append(frame, form);
    const end = () => { frame.remove(); form.remove(); done(); };
    frame.onload = end;
    setTimeout(end, 5000);
    form.submit();
})"""


def what_a_page_would_ask(its: running.Up, scoring: int) -> list[tuple[int, str, str | None]]:
    """Port, path and body: read, change and start something at each of the three servers."""
    prefect, mlflow = its.ports
    start = f"/api/deployments/{its.deployment('line')['id']}/create_flow_run"
    return [
        (prefect, "/api/csrf-token?client=page", None),
        (prefect, "/api/flows/", '{"name": "forged"}'),
        (prefect, start, '{"parameters": {}}'),
        (mlflow, EXPERIMENTS, None),
        (mlflow, "/ajax-api/2.0/mlflow/experiments/create", '{"name": "forged"}'),
        (scoring, "/version", None),
        (scoring, "/invocations", '{"dataframe_records": [{"x": 0.5}]}'),
    ]


def state_of(its: running.Up, log: Path) -> tuple[object, ...]:
    """What a page may have changed or started."""
    flows = sorted(flow["name"] for flow in its.api("flows/filter", {}))
    experiments = MlflowClient(f"sqlite:///{its.folder / 'mlflow.db'}").search_experiments()
    answered = log.read_text().count('"POST /invocations HTTP/1.1" 200')
    return flows, len(its.api("flow_runs/filter", {})), sorted(each.name for each in experiments), answered


@pytest.fixture(scope="module")
def browser(workspace):
    """A browser in which the user has logged in to MLflow, and for which a stranger's name is this machine."""
    with chromium(login.of(workspace), "--host-resolver-rules=MAP evil.example 127.0.0.1") as page:
        yield page


BROWSER = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no chromium here: `apt-get install chromium` brings it"
)


@BROWSER
@pytest.mark.long
def test_a_page_of_another_origin_reads_changes_and_starts_nothing_at_any_of_the_three_servers(
    its, scoring, stranger, browser
):
    port, log = scoring
    asked, before = what_a_page_would_ask(its, port), state_of(its, log)
    browser.goto(f"http://127.0.0.1:{its.ports[1]}/")  # from now on, the browser adds MLflow's login by itself
    browser.goto(f"http://evil.example:{stranger}/")
    for _ in range(3):  # a loaded machine may miss an answer of the test's own server, which allows all
        readable = browser.evaluate(FETCH, [f"http://127.0.0.1:{stranger}/", "{}"])
        if None not in (read := [status for way, status in readable if way.startswith("cors")]):
            break
    assert read == [200] * 4
    for at, path, body in asked:
        for name in ("127.0.0.1", "localhost", "evil.example"):
            found = browser.evaluate(FETCH, [f"http://{name}:{at}{path}", body])
            assert [way for way, status in found if status is not None] == [], (name, path)
            if body is not None:
                browser.evaluate(POST_FORM, [f"http://{name}:{at}{path}", body])
    assert state_of(its, log) == before


@BROWSER
@pytest.mark.long
def test_a_page_whose_name_is_rebound_reads_changes_and_starts_nothing_at_any_of_the_three_servers(
    its, scoring, browser
):
    port, log = scoring
    before = state_of(its, log)
    for at, path, body in what_a_page_would_ask(its, port):
        browser.goto(f"http://evil.example:{at}/")  # of the same origin as the server, for the browser
        found = browser.evaluate(FETCH, [path, body])
        assert {status for _, status in found} <= {400, 403, None}, path
        assert any(status is not None for _, status in found)
    assert state_of(its, log) == before


@BROWSER
@pytest.mark.long
def test_prefects_pages_work_after_the_login_and_start_a_deployment(its, browser):
    before, answers = completed(its), []
    its.deployment("line")
    browser.on("response", lambda answer: answers.append((answer.status, answer.url)))
    browser.goto(f"http://localhost:{its.ports[0]}/")  # as at the other end of a tunnel
    browser.get_by_placeholder("admin:pass").fill(login.of(its.folder))
    browser.get_by_role("button", name="Login").click()
    expect(browser.get_by_role("link", name="Deployments")).to_be_visible(timeout=60_000)
    answers.clear()
    browser.goto(f"http://localhost:{its.ports[0]}/v2/deployments/deployment/{its.deployment('line')['id']}")
    end = time.monotonic() + 180
    while not started_by_hand(browser):  # 503 while the database is busy, which Prefect's own client tries again
        assert time.monotonic() < end
    while completed(its) == before:
        assert time.monotonic() < end, its.log()
        time.sleep(0.5)
    assert [each for each in answers if each[0] in (401, 403)] == []
    browser.goto("about:blank")


@pytest.mark.long
def test_a_run_that_fails_in_a_stage_ends_with_its_sentence(workspace, up):
    train = workspace / "data" / "digits" / "train"
    Image.new("L", (28, 28)).save(train / "stray.png")
    for file in (train / "2").iterdir():
        file.write_bytes(b"not an image")
    done = running.pedigree(workspace, "run", "digits")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("cannot be used") == 1, "Prefect says it of the task, of its state and of the flow"
    last = done.stderr[done.stderr.rindex("error: ") :]
    assert "cannot be used" in last
    assert "train/stray.png: outside the class folders" in last


def test_ctrl_c_takes_all_of_it_down(workspace, up, ports):
    up.send_signal(signal.SIGINT)
    assert up.wait(30) == 0, (workspace / "up.log").read_text()
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert addresses.prefect(workspace) is None
    assert "PREFECT_API_URL" not in run_in(workspace, "prefect", "config", "view").stdout


def test_no_secret_of_the_environment_was_written_or_printed_anywhere_by_a_deployments_run(workspace, up):
    assert files_with_a_secret(workspace) == []


@pytest.mark.long
def test_ctrl_c_while_a_flow_trains_takes_all_of_it_down_without_a_traceback(workspace, up):
    if up.poll() is None:
        up.send_signal(signal.SIGINT)  # the one of the tests above
    assert up.wait(30) == 0
    with running.up(workspace, running.free_ports(2)) as its:
        flow_run = its.submit("line", {"train": {"epochs": 100_000, "workers": 1}})
        its.wait_for(flow_run, lambda: "line epoch 1/" in its.messages(flow_run))
        its.process.send_signal(signal.SIGINT)
        assert its.process.wait(30) == 0
    assert "Traceback" not in its.log()
    assert "never awaited" not in its.log()


@pytest.mark.long
def test_up_uses_the_pages_of_this_checkouts_ui_and_serves_them_itself_once_that_ends(workspace, up):
    if up.poll() is None:
        up.send_signal(signal.SIGINT)  # the one of the tests above
    assert up.wait(30) == 0
    prefect, mlflow = running.free_ports(2)
    command = [sys.executable, *running.PEDIGREE, "ui", "--port", str(mlflow)]
    with subprocess.Popen(command, cwd=workspace, stdout=subprocess.PIPE, text=True) as ui:
        try:
            while ui.stdout.readline() != "Press Ctrl-C to stop.\n":
                assert ui.poll() is None
            with running.up(workspace, (prefect, mlflow)) as its:
                assert f"http://127.0.0.1:{mlflow}, which `pedigree ui` serves (pid {ui.pid})" in its.log()
                ui.send_signal(signal.SIGINT)
                assert ui.wait(30) == 0
                end = time.monotonic() + 60
                found = None
                while found is None:
                    assert time.monotonic() < end, its.log()
                    with suppress(OSError):  # nobody listens for some seconds
                        found = status(mlflow, EXPERIMENTS, Authorization=running.basic(workspace))
                assert found == 200
        finally:
            ui.kill()
    assert not addresses.serves_mlflow(workspace)
