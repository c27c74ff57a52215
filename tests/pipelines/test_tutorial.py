"""The commands of docs/tutorial.md, as they are written there, with small pictures and torchvision's format."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from PIL import Image
from torchvision.models import mobilenet_v2

from components.adapters import mlflow_store
from tests.conftest import ROOT
from tests.running import PEDIGREE, free_ports

pytestmark = pytest.mark.long
COLOURS = {"cat": (200, 60, 40), "dog": (40, 160, 60), "horse": (60, 60, 200)}


def commands() -> list[str]:
    """Return the tutorial's commands, of which one may have two lines."""
    lines = (ROOT / "docs" / "tutorial.md").read_text().splitlines()
    text = "\n".join(line.removeprefix("    ") for line in lines if line.startswith("    "))
    return re.sub(r"\|\n\s+", "| ", text).splitlines()


@pytest.fixture
def place(project, tmp_path):
    """A project, in which the profile is quick, beside a home with photographs of different sizes."""
    folder = tmp_path / "project"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns("build", ".prefect"))
    profile = folder / "profiles" / "photographs.yaml"
    quick = profile.read_text().replace("size: 160", "size: 32").replace("epochs: 8", "epochs: 3")
    profile.write_text(quick.replace("freeze: 8", "freeze: 3"))
    for name, colour in COLOURS.items():
        (tmp_path / "home" / "pets" / name).mkdir(parents=True)
        for number in range(15):
            noise = Image.effect_noise((40 + number, 70 - number), 60).convert("RGB")
            picture = Image.blend(noise, Image.new("RGB", noise.size, colour), 0.6)
            picture.save(tmp_path / "home" / "pets" / name / f"{'abcdefghijklmno'[number]}.jpg")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "pedigree"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} {PEDIGREE[0]} '{PEDIGREE[1]}' \"$@\"\n")
    program.chmod(0o755)
    return folder


def test_its_commands_lead_from_photographs_to_a_champion_an_answer_and_two_runs_to_compare(place):
    serve, ui = free_ports(2)
    home = place.parent / "home"
    env = os.environ | {
        "HOME": str(home),
        "PATH": f"{place.parent / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PEDIGREE_SERVE_PORT": str(serve),
        "PEDIGREE_MLFLOW_PORT": str(ui),
    }
    servers, said = [], {}
    photo = ""
    try:
        for command in commands():
            if "download.pytorch.org" in command:  # there is no network here: a file of the same form
                file = place / command.split()[2]
                torch.manual_seed(0)
                torch.save(mobilenet_v2(weights=None).state_dict(), file)
            elif command in ("pedigree serve pets", "pedigree ui"):
                start(command, place, env, servers)
            elif command.startswith("photo="):
                photo = f"{command}\n"
            else:
                local = command.replace("127.0.0.1:5001", f"127.0.0.1:{serve}")
                bash = ["bash", "-ec", photo + local]
                done = subprocess.run(
                    bash, cwd=place, env=env, capture_output=True, text=True, timeout=300, check=False
                )
                assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
                said[command.split(" --")[0]] = done.stdout
    finally:
        for server in servers:
            server.terminate()
            server.wait(60)
    answer = next(text for command, text in said.items() if "curl" in command)
    (row,) = json.loads(answer)["predictions"]
    assert row["label"] in COLOURS
    assert set(row["probabilities"]) == set(COLOURS)
    assert "train.init.freeze" in said["pedigree params pets train.init"]
    assert "train.init.from" in said["pedigree diff pets/1 pets/2"]
    mlflow_store.connect(place)
    client = MlflowClient()
    assert int(client.get_model_version_by_alias("pets", "champion").version) == 1
    experiment = client.get_experiment_by_name("pets")
    runs = client.search_runs([experiment.experiment_id])
    froms = {Path(run.data.params["train.init.from"]).name for run in runs}
    assert froms == {"random", "mobilenet_v2-b0353104.pth"}
    assert all("score" in run.data.metrics for run in runs)


def start(command: str, folder: Path, env: dict[str, str], servers: list[subprocess.Popen[str]]) -> None:
    """Start a server, add it to the servers, and wait until it says where it listens."""
    log = folder.parent / f"{command.split()[1]}.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command.split(), cwd=folder, env=env, stdout=file, stderr=subprocess.STDOUT, text=True
        )
    servers.append(process)
    end = time.monotonic() + 200
    while "127.0.0.1" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)
