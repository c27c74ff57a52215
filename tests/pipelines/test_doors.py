"""The three doors lead to the same registered model: dvc repro, a Prefect deployment, pedigree run."""

import json
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image

from tests import running
from tests.conftest import TASKS, listening, run_in
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
    """A copy of the project for doors that change it, with one more task: a folder, a section, and its data."""
    folder = tmp_path_factory.mktemp("doors") / "project"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns("build", "mlflow.db", "mlruns", ".prefect"))
    toy.add(folder)
    assert run_in(folder, "dvc", "add", "-q", "data").returncode == 0
    return folder


def versions(folder: Path) -> list[int]:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return sorted(int(v.version) for v in client.search_model_versions("name = 'toy'"))


def test_dvc_repro_builds_a_new_tasks_four_stages_and_a_second_one_does_nothing(workspace):
    # As on most machines, Python leaves its bytecode beside the modules that the stages depend on.
    first = run_in(workspace, "dvc", "repro", "register@toy", PYTHONDONTWRITEBYTECODE="")
    assert first.returncode == 0, first.stderr
    assert (workspace / "components" / "toy" / "__pycache__").exists()
    metrics = json.loads((workspace / "build/toy/evaluation/metrics.json").read_text())
    assert metrics["squared_error"] < 0.01
    assert versions(workspace) == [1]
    second = run_in(workspace, "dvc", "repro", "register@toy")
    assert "Data and pipelines are up to date." in second.stdout
    assert versions(workspace) == [1]
    for what, said in (("metrics", "squared_error"), ("plots", "history.csv")):
        shown = run_in(workspace, "dvc", what, "show", "--json")
        assert shown.returncode == 0, shown.stderr
        assert said in shown.stdout


def test_dvc_repro_means_four_stages_for_each_task(workspace):
    listed = run_in(workspace, "dvc", "stage", "list", "--name-only").stdout.split()
    stages = ("prepare", "train", "evaluate", "register")
    assert sorted(listed) == sorted(f"{stage}@{task}" for stage in stages for task in [*TASKS, "toy"])


def test_a_changed_parameter_runs_the_stages_that_depend_on_it_alone(workspace):
    text = (workspace / "params.yaml").read_text()
    (workspace / "params.yaml").write_text(text.replace(SECTION, SECTION.replace("batch_size: 4", "batch_size: 5")))
    dry = run_in(workspace, "dvc", "repro", "--dry", "register@toy").stdout
    (workspace / "params.yaml").write_text(text)
    assert "Running stage 'evaluate@toy'" in dry
    assert "Running stage 'train@toy'" not in dry


def stages_that_would_run_again(workspace: Path) -> set[str]:
    done = run_in(workspace, "dvc", "status", "--json", "--with-deps", "register@toy")
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_an_edit_of_a_module_that_a_stage_imports_runs_it_again_and_another_edit_does_not(workspace):
    assert stages_that_would_run_again(workspace) == set()
    four = {f"{stage}@toy" for stage in ("prepare", "train", "evaluate", "register")}
    for module, again in (
        ("components/stages/compare.py", set()),
        ("components/trust/gate.py", {"register@toy"}),
        ("components/training/loop.py", four - {"prepare@toy"}),
        ("components/batches.py", four),
    ):
        code = (workspace / module).read_text()
        (workspace / module).write_text(f"{code}# An edit.\n")
        assert stages_that_would_run_again(workspace) == again, module
        (workspace / module).write_text(code)


def test_a_stage_that_fails_keeps_its_earlier_output(workspace):
    metrics = workspace / "build/toy/evaluation/metrics.json"
    before = metrics.read_text()
    weights = workspace / "build/toy/model/weights.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1])
    failed = run_in(workspace, "dvc", "repro", "-s", "-f", "evaluate@toy")
    weights.write_bytes(kept)
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
    running.with_ports(workspace, ports)
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
    its.deployment("toy")  # it is there a few seconds after the servers are
    return run_in(its.folder, "prefect", "--no-prompt", "deployment", "run", "toy/local", *arguments)


def test_a_deployment_run_registers_a_model_with_its_own_parameters(workspace, its):
    before = versions(workspace)
    done = deployment_run(its, "-p", 'train={"epochs": 2}', "--watch")
    assert done.returncode == 0, done.stdout + done.stderr + (workspace / "up.log").read_text()
    new = max(before, default=0) + 1
    assert versions(workspace) == [*before, new]
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    run = client.get_run(client.get_model_version("toy", str(new)).run_id)
    assert run.data.params["train.epochs"] == "2"
    assert "made-up points" in run.data.tags["mlflow.note.content"]
    assert "made-up points" in client.get_model_version("toy", str(new)).description
    assert {f"seconds/{stage}" for stage in ("prepare", "train", "evaluate", "register")} <= set(run.data.metrics)
    assert run.info.run_name == "toy epochs=2"
    assert SECTION in (workspace / "params.yaml").read_text()
    artifacts = {a["key"]: a for a in its.api("artifacts/filter", {})}
    assert set(artifacts) == {"toy-training", "toy-result", "toy-verdict", "toy-run", "toy-version"}
    assert artifacts["toy-training"]["data"] == 100
    assert "test/squared_error" in json.dumps(artifacts["toy-result"]["data"])
    assert "made-up points" in artifacts["toy-result"]["description"]
    assert {"rule", "found", "passed"} <= json.loads(artifacts["toy-verdict"]["data"])[0].keys()
    messages = [entry["message"] for entry in its.api("logs/filter", {})]
    assert any(re.match(r"toy epoch 2/2  train/loss", message) for message in messages)


def test_all_that_is_up_listens_on_loopback_alone(up):
    assert listening(up.pid) == {"127.0.0.1"}


def test_a_parameter_out_of_bounds_is_refused_before_anything_runs(workspace, its):
    before = versions(workspace)
    done = deployment_run(its, "-p", 'train={"epochs": 0}')
    assert done.returncode == 1
    assert "train.epochs" in done.stdout
    assert "less than the minimum of 1" in " ".join(done.stdout.split())
    assert versions(workspace) == before


def test_prefects_form_shows_the_values_of_params_yaml_with_their_descriptions(its):
    text = json.dumps(its.deployment("toy")["parameter_openapi_schema"])
    assert "Passes over the training part" in text
    assert '"default": 30' in text


@pytest.mark.long
def test_prefect_yaml_deploys_the_same_flow_to_a_work_pool(workspace, its):
    for command in (["work-pool", "create", "local", "--type", "process"], ["--no-prompt", "deploy", "--all"]):
        done = run_in(workspace, "prefect", *command)
        assert done.returncode == 0, done.stdout + done.stderr
    pool, local = (its.deployment("vision", name) for name in ("pool", "local"))
    assert pool["parameter_openapi_schema"] == local["parameter_openapi_schema"]
    assert (pool["work_pool_name"], pool["entrypoint"]) == ("local", "pipelines/flow.py:vision")


def test_a_second_up_says_which_port_is_in_use(workspace, up, ports):
    done = running.pedigree(workspace, "up")
    assert done.returncode == 1
    assert re.match(rf"error: port {ports[0]} on 127\.0\.0\.1 is in use", done.stderr), done.stderr


def test_pedigree_run_uses_the_server_that_is_up(workspace, up, ports, its):
    address = f"http://ann:{PASSWORD}@127.0.0.1:{ports[1]}"
    done = running.pedigree(
        workspace, "run", "toy", "--set", "train.epochs=1", **SECRETS, MLFLOW_TRACKING_URI=address
    )
    assert done.returncode == 0, done.stderr
    assert "squared_error" in done.stdout
    assert "(made-up points)" in done.stdout
    for stage in ("prepare", "train", "evaluate", "register"):
        assert re.search(rf"{stage} \d+", done.stdout)
    runs = its.api("flow_runs/filter", {})
    assert len([r for r in runs if r["state_type"] == "COMPLETED"]) == 2
    assert f"toy run      http://127.0.0.1:{ports[1]}/" in done.stdout
    (workspace / "run.log").write_text(done.stdout + done.stderr)


def test_a_run_that_fails_in_a_stage_ends_with_its_sentence(workspace, up):
    train = workspace / "data" / "vision" / "train"
    Image.new("L", (28, 28)).save(train / "stray.png")
    for file in (train / "2").iterdir():
        file.write_bytes(b"not an image")
    done = running.pedigree(workspace, "run", "vision")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr[done.stderr.rindex("error: ") :]
    assert "refused" in last
    assert "train/stray.png: outside the class folders" in last


def test_ctrl_c_takes_all_of_it_down(workspace, up, ports):
    up.send_signal(signal.SIGINT)
    assert up.wait(30) == 0, (workspace / "up.log").read_text()
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_no_secret_of_the_environment_was_written_or_printed_anywhere(workspace, up):
    """After a deployment's run and one by hand: databases, artifacts, logs, results, and what was printed."""
    kept = {path.relative_to(workspace): path.read_bytes() for path in workspace.rglob("*") if path.is_file()}
    names = {path.name for path in kept}
    assert {"prefect.db", "mlflow.db", "lineage.json", "environment.json", "up.log", "run.log"} <= names
    for secret in (*SECRETS.values(), PASSWORD):
        assert [str(path) for path, content in kept.items() if secret.encode() in content] == []
