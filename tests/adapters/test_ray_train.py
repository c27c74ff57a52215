"""Real Ray workers: their number changes nothing that is evaluated, and their failures reach the person."""

import os
import platform
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from components.adapters import ray_cluster, ray_train
from components.contracts import Workers
from components.errors import PedigreeError
from components.stages import evaluate, train
from components.stages.origin import Origin
from components.training import saved
from tests.conftest import ROOT
from tests.stages.test_chain import changed


def evaluated_by(chain, workers: int, folder):
    values = chain.values.model_copy(
        update={"evaluate": chain.values.evaluate.model_copy(update={"workers": workers, "batch_size": 5})}
    )
    return evaluate.evaluate(chain.task, values, chain.prepared, chain.trained, folder / str(workers))


@pytest.mark.long
def test_two_workers_and_one_evaluate_to_the_same_digits(chain, tmp_path):
    samples = chain.prepared.manifest.splits["test"].samples
    assert samples % 2 == 0
    assert samples % 5, "the last batch is a part of one, and the batches do not divide among two workers"
    here, one, two = (evaluated_by(chain, workers, tmp_path) for workers in (0, 1, 2))
    assert two.metrics == one.metrics
    assert here.metrics == one.metrics
    predictions = [(e.folder / "examples" / "predictions.csv").read_text() for e in (one, two)]
    assert predictions[0] == predictions[1]


@pytest.mark.long
def test_two_workers_train_one_model_and_tell_of_it(chain, tmp_path):
    told = []
    values = changed(chain, workers=2, epochs=2, accumulate=2)
    trained = train.train(
        chain.task, values, chain.prepared, tmp_path / "model", Origin(chain.root), listeners=[told.append]
    )
    history = saved.read_history(trained.folder)
    assert [row["epoch"] for row in history] == [1, 2]
    assert [e["metrics"]["epoch"] for e in told if e["kind"] == "epoch"] == [1, 2]
    assert history[-1]["train/loss"] < history[0]["train/loss"]
    saved.rebuild(chain.task, trained.folder)


JOIN = """
from components.adapters import ray_cluster
from components.errors import PedigreeError
try:
    ray_cluster.connect()
except PedigreeError as error:
    print(error)
else:
    print("joined")
"""


@pytest.mark.parametrize(
    ("token", "said"),
    [
        pytest.param("its own", "joined", marks=pytest.mark.long),
        pytest.param(
            "another",
            "asks for a token, and this is not its own: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN",
            marks=pytest.mark.long,
        ),
        (None, "asks for a token, and this is not its own: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN"),
    ],
)
def test_nobody_joins_the_cluster_of_a_training_without_its_token(token, said, monkeypatch, tmp_path):
    ray_cluster.connect()
    own = os.environ["RAY_AUTH_TOKEN"]
    assert len(own) == 64, "made by this process"
    monkeypatch.setenv("RAY_ADDRESS", ray_train.ray.get_runtime_context().gcs_address)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_gcs_server_port_wait_time_s", "2")  # how often a refused one tries again
    if token is None:
        monkeypatch.delenv("RAY_AUTH_MODE")
        monkeypatch.delenv("RAY_AUTH_TOKEN")
    else:
        monkeypatch.setenv("RAY_AUTH_TOKEN", own if token == "its own" else "0" * 64)
    done = subprocess.run(
        [sys.executable, "-c", JOIN], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert said in done.stdout, done.stderr
    assert not (tmp_path / ".ray" / "auth_token").exists(), "no token is left behind for others"


STARTED = """
import signal, sys, time
from components.adapters import ray_cluster, ray_train
from components.background import in_thread
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
if sys.argv[1] == "here":
    ray_cluster.connect()
else:
    in_thread(ray_train.begin, "ray-begin")
while not ray_train.ray.is_initialized():
    time.sleep(0.1)
time.sleep(1)
assert ray_train.ray.cluster_resources()["CPU"], "its programs live though the call that started them is over"
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.parametrize("at", ["here", "beside"])
def test_a_ray_that_is_started_leaves_sigterm_as_it_is(tmp_path, at):
    done = subprocess.run(
        [sys.executable, "-c", STARTED, at],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 3, done.stderr


ENDED = """
import sys, time
from components.adapters import ray_train
from components.background import in_thread
in_thread(ray_train.begin, "ray-begin")
time.sleep(float(sys.argv[1]))
sys.exit(4)
"""


@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.5])
def test_a_program_ends_as_it_would_while_ray_is_being_started(tmp_path, seconds):
    done = subprocess.run(
        [sys.executable, "-c", ENDED, f"{seconds}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (4, "")


@pytest.mark.parametrize(
    ("loaded", "spared"),
    [("components.adapters.ray_controller", "torch"), ("components.stages.fit", "mlflow")],
)
def test_the_controller_loads_no_torch_and_what_a_worker_does_no_mlflow(loaded, spared):
    code = f"import sys, {loaded}; sys.exit({spared!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def die(workers: Workers) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.long
def test_a_training_whose_workers_died_leaves_the_cpus_to_the_next_one(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with pytest.raises(PedigreeError, match="worker") as caught:
        ray_train.run(die, 2, tmp_path / "first", lambda event: None, "first")
    assert "\n" not in str(caught.value), "a sentence"
    ray_train.run(print, 2, tmp_path / "second", lambda event: None, "second")


ray = ray_train.ray  # which reads its settings when it is imported, after ray_cluster has made them
LOST = ray.exceptions.ActorUnavailableError("The actor is temporarily unavailable: Connection reset by peer", None)
MISTAKE = PedigreeError("what to do")


@pytest.mark.parametrize(
    ("raised", "attempts"),
    [
        (ray.exceptions.RayError("the raylet died"), 3),
        (ray.train.ControllerError(LOST), 3),
        (ray.train.ControllerError(MISTAKE), 1),
        (ray.train.WorkerGroupError("a worker died", {0: LOST}), 1),  # which Ray has tried again by itself
    ],
)
def test_ray_is_started_again_where_it_ended_by_itself_and_not_after_what_it_ran(
    raised, attempts, tmp_path, monkeypatch
):
    tried = []

    def fit(self):
        tried.append(self)
        raise raised

    monkeypatch.setattr(ray.train.torch.TorchTrainer, "fit", fit)
    # Only the decision is asked for: each start of Ray takes seconds, and `make chaos` kills real ones.
    for name, answer in (("connect", 0.0), ("ours", False), ("cpus_each", 1)):
        monkeypatch.setattr(ray_cluster, name, lambda *_, answer=answer: answer)
    with pytest.raises(PedigreeError):
        ray_train.run(print, 1, tmp_path, lambda event: None, "lost", retries=2)
    assert len(tried) == attempts


def test_more_workers_than_this_machine_has_cpus_is_a_sentence_and_no_endless_wait(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(PedigreeError, match=r"^1000 workers need a CPU each, and Ray has \d+ here: "):
        ray_train.run(die, 1000, tmp_path, lambda event: None, "many")


@pytest.mark.parametrize(
    ("hosts", "workers", "cpus"),
    [
        ((2,), 1, 2),
        ((2,), 2, 1),
        ((2,), 3, 0),
        ((16, 16), 2, 16),
        ((16, 16), 3, 8),
        ((0, 8, 8, 4), 5, 4),
        ((), 1, 0),
    ],
)
def test_a_worker_gets_as_many_cpus_as_leave_room_for_all_on_their_hosts(hosts, workers, cpus):
    assert ray_cluster.share(hosts, workers) == cpus


GLIBC = platform.libc_ver()[0] == "glibc"


def tell_a_lot(folder: Path, workers: Workers) -> None:
    for number in range(1000):
        workers.emit({"kind": "progress", "number": number})
    folder.rename(folder.with_name("away"))
    time.sleep(0.5)
    folder.with_name("away").rename(folder)
    for number in range(1000, 2000):
        workers.emit({"kind": "progress", "number": number})
    if GLIBC:
        torch.set_num_threads(1)  # the pages that this thread fetches are counted
        workers.emit({"kind": "memory", "fetched": [pages_fetched_for_megabytes(size) for size in (200, 80, 80)]})
    raise PedigreeError(f"worker {workers.rank} says what to do")


def pages_fetched_for_megabytes(size: int) -> int:
    """Take and free memory, as an update does; return how many pages the kernel had to hand out for it."""
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    torch.zeros(size, 2**20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


@pytest.fixture(scope="module")
def told_a_lot(tmp_path_factory):
    """What came of the events, in their order, and what was said at the end."""
    told, folder = [], tmp_path_factory.mktemp("told") / "run"
    folder.mkdir()
    with pytest.raises(PedigreeError) as said:
        ray_train.run(partial(tell_a_lot, folder), 1, folder, told.append, "many")
    return told, str(said.value)


def test_no_event_is_lost_or_out_of_order_though_their_folder_is_away_for_a_while(told_a_lot):
    assert [event["number"] for event in told_a_lot[0] if event["kind"] == "progress"] == list(range(2000))


@pytest.mark.skipif(not GLIBC, reason="other libraries keep memory in other ways")
def test_a_worker_keeps_the_memory_of_an_update_for_the_next_one(told_a_lot):
    first, *others = next(event["fetched"] for event in told_a_lot[0] if event["kind"] == "memory")
    assert first > 50, "the first time the pages come from the kernel, be they of 4 KiB or of 2 MiB"
    assert max(others) < first / 20


def test_what_a_worker_says_to_people_reaches_them(told_a_lot):
    assert told_a_lot[1] == "worker 0 says what to do"


@pytest.mark.long
def test_a_python_in_a_folder_with_a_space_in_its_name_starts_workers(tmp_path):
    (tmp_path / "a folder").symlink_to(Path(sys.prefix), target_is_directory=True)
    program = (
        "from pathlib import Path; from components.adapters import ray_train\n"
        "ray_train.run(print, 1, Path(r'" + str(tmp_path) + "'), lambda event: None, 'spaced')\n"
    )
    python = tmp_path / "a folder" / "bin" / "python"
    subprocess.run([python, "-c", program], cwd=ROOT, check=True, timeout=120)
