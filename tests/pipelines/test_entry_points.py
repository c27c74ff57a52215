"""dvc repro, a Prefect deployment and pedigree run register the same model."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image

from components.adapters import dvc_data
from components.runtime import addresses
from pipelines import cli
from tests import running
from tests.conftest import MODELS, listening, run_in
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
            "RAY_AUTH_TOKEN",
            "GITHUB_TOKEN",
        )
    )
}
PASSWORD = "secret-of-an-address-Zq7vK2"


@pytest.fixture(scope="module")
def workspace(project, tmp_path_factory):
    """A copy of the project that tests may change, with one more task, and a model of it with its data."""
    folder = tmp_path_factory.mktemp("entry-points") / "project"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns("build", "mlflow.db", "mlruns", ".prefect"))
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
    return workspace


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


@pytest.mark.long
def test_dvc_repro_means_four_stages_for_each_model(workspace):
    listed = run_in(workspace, "dvc", "stage", "list", "--name-only").stdout.split()
    stages = ("prepare", "train", "evaluate", "register")
    assert sorted(listed) == sorted(f"{stage}@{model}" for stage in stages for model in [*MODELS, "line"])


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
    with edited(workspace, "components/registry/compare.py", "components/trust/gate.py"):
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
    with running.up(workspace, ports, **everywhere, **SECRETS) as its:
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
    assert run.info.run_name == "line epochs=2"
    assert SECTION in (workspace / "params.yaml").read_text()
    artifacts = {a["key"]: a for a in its.api("artifacts/filter", {})}
    assert set(artifacts) == {"line-training", "line-result", "line-verdict", "line-run", "line-version"}
    assert artifacts["line-training"]["data"] == 100
    assert "test/squared_error" in json.dumps(artifacts["line-result"]["data"])
    assert "made-up points" in artifacts["line-result"]["description"]
    assert {"rule", "found", "passed"} <= json.loads(artifacts["line-verdict"]["data"])[0].keys()
    messages = [entry["message"] for entry in its.api("logs/filter", {})]
    assert any(re.match(r"line epoch 2/2  train/loss", message) for message in messages)


def test_all_that_is_up_listens_on_loopback_alone(up):
    assert listening(up.pid) == {"127.0.0.1"}


def test_a_parameter_out_of_bounds_is_rejected_before_anything_runs(workspace, its):
    before = versions(workspace)
    done = deployment_run(its, "-p", 'train={"epochs": 0}')
    assert done.returncode == 1
    assert "train.epochs" in done.stdout
    assert "less than the minimum of 1" in " ".join(done.stdout.split())
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
    address, before = f"http://ann:{PASSWORD}@127.0.0.1:{ports[1]}", completed(its)
    done = running.pedigree(
        workspace, "run", "line", "--set", "train.epochs=1", **SECRETS, MLFLOW_TRACKING_URI=address
    )
    assert done.returncode == 0, done.stderr
    assert "squared_error" in done.stdout
    assert "(made-up points)" in done.stdout
    for stage in ("prepare", "train", "evaluate", "register"):
        assert re.search(rf"{stage} \d+", done.stdout)
    assert completed(its) == before + 1
    assert f"line run      http://127.0.0.1:{ports[1]}/" in done.stdout
    (workspace / "run.log").write_text(done.stdout + done.stderr)
    assert files_with_a_secret(workspace, "run.log") == []


def completed(its) -> int:
    return len([run for run in its.api("flow_runs/filter", {}) if run["state_type"] == "COMPLETED"])


def files_with_a_secret(workspace: Path, *more: str) -> list[str]:
    """Return which of a workspace's files hold one: databases, artifacts, logs, results, and what was printed."""
    contents = {path.relative_to(workspace): path.read_bytes() for path in workspace.rglob("*") if path.is_file()}
    names = {path.name for path in contents}
    assert {"prefect.db", "mlflow.db", "lineage.json", "environment.json", "up.log", *more} <= names
    secrets = [each.encode() for each in (*SECRETS.values(), PASSWORD)]
    return [str(path) for path, content in contents.items() if any(secret in content for secret in secrets)]


@pytest.mark.long
def test_a_run_that_fails_in_a_stage_ends_with_its_sentence(workspace, up):
    train = workspace / "data" / "digits" / "train"
    Image.new("L", (28, 28)).save(train / "stray.png")
    for file in (train / "2").iterdir():
        file.write_bytes(b"not an image")
    done = running.pedigree(workspace, "run", "digits")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
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
