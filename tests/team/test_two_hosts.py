"""A training on the workers of a Ray cluster of two hosts, which see one folder."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from components.training import model_files
from components.trust import lineage
from tests.conftest import run_in
from tests.pipelines.test_cli import edit
from tests.team import hosts
from tests.team.hosts import two_hosts

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(480),
    pytest.mark.skipif(bool(hosts.why_not()), reason=hosts.why_not()),
]

TRAIN = [sys.executable, "-m", "components", "digits", "train"]


@dataclass
class Trained:
    """The same training of two workers, on one host and on two; the folders are the models'."""

    one: Path
    two: Path
    ran: list[set[str]]
    """What the processes on each of the two hosts called themselves."""


@pytest.fixture(scope="module")
def trained(project, tmp_path_factory) -> Trained:
    folder = tmp_path_factory.mktemp("cluster")
    one, two = folder / "one", folder / "two"
    shutil.copytree(project, one, ignore=shutil.ignore_patterns("build", "mlflow.db", "mlruns", ".prefect"))
    edit(one / "params.yaml", "workers: 0", "workers: 2")  # of digits' training, which is first
    prepared = run_in(one, "components", "digits", "prepare")
    assert prepared.returncode == 0, prepared.stderr
    shutil.copytree(one, two)
    ran: list[set[str]] = [set(), set()]
    with two_hosts() as both, (folder / "one.log").open("w") as log:
        processes = [both[0].popen(TRAIN, two, folder / "two.log")]
        # One thread a worker, as on the two hosts: another number of threads may give other bits.
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        processes += [subprocess.Popen(TRAIN, cwd=one, env=env, stdout=log, stderr=subprocess.STDOUT)]
        while any(process.poll() is None for process in processes):
            ran = [names | host.names() for host, names in zip(both, ran, strict=True)]
            time.sleep(0.2)
    for process, name in zip(processes, ("two", "one"), strict=True):
        assert process.returncode == 0, (folder / f"{name}.log").read_text()
    return Trained(*(each / "build" / "digits" / "model" for each in (one, two)), ran)


def test_a_worker_is_on_each_host(trained):
    for names in trained.ran:
        assert any(name.startswith("ray::RayTrainWorker") for name in names), names
    assert lineage.read(trained.two).machine.world == 2


def test_two_hosts_train_bit_for_bit_what_one_does(trained):
    weights = [(model / model_files.WEIGHTS).read_bytes() for model in (trained.one, trained.two)]
    assert weights[0] == weights[1]
    losses = [
        [row["train/loss"] for row in model_files.read_history(model)] for model in (trained.one, trained.two)
    ]
    assert losses[0] == losses[1]
