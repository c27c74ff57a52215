"""Real Ray workers: their number changes nothing that is evaluated, and their failures reach the person."""

import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from components.adapters import ray_cluster, ray_train
from components.contracts import Worker
from components.errors import PedigreeError
from components.stages import evaluate, train
from components.training import device, model_files
from components.training.receiver import Receiver
from tests.conftest import ROOT
from tests.stages.test_chain import changed


def evaluated_by(chain, workers: int, folder):
    values = chain.values.model_copy(
        update={"evaluate": chain.values.evaluate.model_copy(update={"workers": workers, "batch_size": 5})}
    )
    return evaluate.evaluate(chain.having(values), chain.prepared, chain.trained, folder / str(workers))


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
@pytest.mark.parametrize("compiled", [False, True])
def test_two_workers_train_one_model_and_tell_of_it(compiled, chain, tmp_path):
    if compiled and not device.can_compile():
        pytest.skip("this machine cannot compile")
    events = []
    values = changed(chain, workers=2, epochs=2, accumulate=2, compile=compiled)
    trained = train.train(chain.having(values), chain.prepared, tmp_path / "model", listeners=[events.append])
    history = model_files.read_history(trained.folder)
    assert [row["epoch"] for row in history] == [1, 2]
    assert [e["metrics"]["epoch"] for e in events if e["kind"] == "validation"] == [1, 2]
    assert history[-1]["train/loss"] < history[0]["train/loss"]
    model_files.rebuild(chain.task, trained.folder)


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


@pytest.mark.long
@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("its own", "joined"),
        (
            "another",
            "requires a token, and ours is missing or wrong: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN",
        ),
        (None, "requires a token, and ours is missing or wrong: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN"),
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


@pytest.mark.long
def test_a_cluster_of_another_release_of_ray_is_a_sentence_with_all_versions(monkeypatch):
    ray_cluster.connect()
    monkeypatch.setenv("RAY_ADDRESS", ray_train.ray.get_runtime_context().gcs_address)
    code = f"import ray\nray.__version__ = '2.1.0'\n{JOIN}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    python = platform.python_version()
    versions = f"has Ray {ray_train.ray.__version__} and Python {python}, and this is Ray 2.1.0 and Python {python}"
    assert f"{versions}: install the same" in done.stdout, done.stderr


STARTED = """
import signal, sys, time
from components.adapters import ray_cluster
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
ray_cluster.connect()
time.sleep(1)
assert ray_cluster.ray.cluster_resources()["CPU"], "its programs live though the call that started them is over"
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.long
def test_a_ray_that_is_started_leaves_sigterm_as_it_is(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", STARTED],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 3, done.stderr


def test_a_worker_that_something_else_killed_is_one_sentence_that_names_where_to_look(tmp_path):
    text = (
        "Worker exit detail: Some common causes include: (1) the process was killed by the OOM killer, (2) more\n"
    )
    sentence = str(ray_train._cause(ray.train.WorkerGroupError(f"{text}more", {0: LOST})))
    assert sentence.startswith(
        "a training worker was killed, or crashed: if Linux did so for want of memory, which "
    )
    assert sentence.endswith("run the same command again to resume from the last checkpoint")


LOADED = """
import sys
import components.adapters.ray_controller
assert "torch" not in sys.modules
import components.jobs.fit
assert "mlflow" not in sys.modules
"""


@pytest.mark.long
def test_the_controller_loads_no_torch_and_what_a_worker_does_no_mlflow():
    done = subprocess.run([sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def die(worker: Worker) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.long
def test_a_training_whose_workers_died_leaves_the_cpus_to_the_next_one(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with pytest.raises(PedigreeError, match="worker") as caught:
        ray_train.run(die, 2, tmp_path / "first", Receiver(print), "first")
    assert "\n" not in str(caught.value), "a sentence"
    ray_train.run(print, 2, tmp_path / "second", Receiver(print), "second")


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
        ray_train.run(print, 1, tmp_path, Receiver(print), "lost", retries=2)
    assert len(tried) == attempts


def test_more_workers_than_this_machine_has_cpus_is_a_sentence_and_no_endless_wait(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(PedigreeError, match=r"^1000 workers need a CPU each, and Ray has \d+ here: "):
        ray_train.run(die, 1000, tmp_path, Receiver(print), "many")


@pytest.mark.parametrize(("gpus", "workers", "each"), [(0, 8, False), (1, 1, True), (2, 1, True), (8, 8, True)])
def test_a_worker_on_a_cluster_has_a_gpu_if_there_is_any(gpus, workers, each):
    assert ray_cluster.gpu_each(workers, gpus) is each


def test_more_workers_than_a_cluster_has_gpus_are_an_error_with_both_numbers(tmp_path, monkeypatch):
    for name, answer in (("connect", 8.0), ("ours", False), ("cpus_each", 1)):
        monkeypatch.setattr(ray_cluster, name, lambda *_, answer=answer: answer)
    with pytest.raises(PedigreeError, match=r"^16 workers need a GPU each, and the Ray cluster has 8: use fewer"):
        ray_train.run(print, 16, tmp_path, Receiver(print), "many")


class StartedError(Exception):
    """Raised where workers would start."""


@pytest.mark.parametrize(
    ("of_ray", "names", "expected"),
    [
        (0.0, ["2", "3"], ({"CPU": 1}, {"CUDA_VISIBLE_DEVICES": "2,3"}, "nccl", True)),
        (8.0, [], ({"CPU": 1, "GPU": 1}, None, "nccl", False)),
        (0.0, [], ({"CPU": 1}, None, "gloo", False)),
    ],
    ids=["of this machine", "of a cluster", "none"],
)
def test_workers_see_the_gpus_that_were_chosen_for_them_or_those_that_ray_gives_them(
    of_ray, names, expected, tmp_path, monkeypatch
):
    started = []

    def fit(self):
        env = self.run_config.worker_runtime_env.get("env_vars")
        resources = self.scaling_config.resources_per_worker
        started.append((resources, env, self.backend_config.backend, self.train_loop_config["gpus"]))
        raise StartedError

    monkeypatch.setattr(ray.train.torch.TorchTrainer, "fit", fit)
    for name, answer in (("connect", of_ray), ("ours", not of_ray), ("cpus_each", 1)):
        monkeypatch.setattr(ray_cluster, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(ray_train, "_notes", lambda: tmp_path)
    monkeypatch.setattr(ray_cluster, "started", list)
    with pytest.raises(StartedError):
        ray_train.run(print, 2, tmp_path, Receiver(print), "chosen", names)
    assert started == [expected]


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


def tell_a_lot(folder: Path, attempts: Path, worker: Worker) -> None:
    with attempts.open("a") as file:
        file.write("again\n")
    for number in range(1000):
        worker.emit({"kind": "progress", "number": number})
    folder.rename(folder.with_name("away"))
    time.sleep(0.5)
    folder.with_name("away").rename(folder)
    for number in range(1000, 2000):
        worker.emit({"kind": "progress", "number": number})
    if GLIBC:
        torch.set_num_threads(1)  # the pages that this thread fetches are counted
        worker.emit({"kind": "memory", "fetched": [pages_fetched_for_megabytes(size) for size in (200, 80, 80)]})
    worker.emit({"kind": "niceness", "value": os.getpriority(os.PRIO_PROCESS, 0)})
    with device.explaining_memory(f"worker {worker.rank} says what to do"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more than 1EB memory.")


def pages_fetched_for_megabytes(size: int) -> int:
    """Take and free memory, as an update does; return how many pages the kernel had to hand out for it."""
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    torch.zeros(size, 2**20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


@pytest.fixture(scope="module")
def many_events(tmp_path_factory):
    """What came of the events, in their order, what was said at the end, and how often the worker was started."""
    events, folder = [], tmp_path_factory.mktemp("events") / "run"
    attempts = folder.with_name("attempts")
    folder.mkdir()
    with pytest.raises(PedigreeError) as said:
        ray_train.run(partial(tell_a_lot, folder, attempts), 1, folder, Receiver(events.append), "many", retries=2)
    return events, str(said.value), attempts.read_text().split()


def test_no_event_is_lost_or_out_of_order_though_their_folder_is_away_for_a_while(many_events):
    assert [event["number"] for event in many_events[0] if event["kind"] == "progress"] == list(range(2000))


@pytest.mark.skipif(not GLIBC, reason="other libraries keep memory in other ways")
def test_a_worker_keeps_the_memory_of_an_update_for_the_next_one(many_events):
    first, *others = next(event["fetched"] for event in many_events[0] if event["kind"] == "memory")
    assert first > 50, "the first time the pages come from the kernel, be they of 4 KiB or of 2 MiB"
    assert max(others) < first / 20


def test_a_worker_has_the_niceness_of_the_process_that_started_it(many_events):
    (found,) = [event["value"] for event in many_events[0] if event["kind"] == "niceness"]
    assert found == os.getpriority(os.PRIO_PROCESS, 0)


@pytest.mark.long
def test_a_person_can_give_workers_another_niceness():
    code = "import os; from components.adapters import ray_cluster; print(os.environ['RAY_worker_niceness'])"
    env = os.environ | {"RAY_worker_niceness": "7"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"7\n"


def test_what_a_worker_says_to_people_of_a_lack_of_memory_reaches_them_and_is_not_tried_again(many_events):
    said = "the GPU has too little memory (CUDA out of memory. Tried to allocate more than 1EB memory.)"
    assert many_events[1] == f"{said}: worker 0 says what to do"
    assert many_events[2] == ["again"]


@pytest.mark.long
def test_a_python_in_a_folder_with_a_space_in_its_name_starts_workers(tmp_path):
    (tmp_path / "a folder").symlink_to(Path(sys.prefix), target_is_directory=True)
    program = (
        "from pathlib import Path; from components.adapters import ray_train\n"
        "from components.training.receiver import Receiver\n"
        "ray_train.run(print, 1, Path(r'" + str(tmp_path) + "'), Receiver(print), 'spaced')\n"
    )
    python = tmp_path / "a folder" / "bin" / "python"
    subprocess.run([python, "-c", program], cwd=ROOT, check=True, timeout=120)


SHORTAGE = """1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 127.0.0.1, \
ID: 9e769b9de7df) was 7.75GB used / 23.54GB limit (0.329205)
OOM kill reason: Memory usage 9561497600B exceeded threshold of 9251200000B (36.6% of 25276502016B limit)
Object store memory usage: [- objects spillable: 1
]
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SHORTAGE, r"9\.6 GB of 25\.3 GB were in use on 127\.0\.0\.1, and Ray allows 9\.3 GB"),
        (
            "Task was killed due to the node running low on memory.\nSee https://docs.ray.io/",
            "Ray gives no figures",
        ),
    ],
)
def test_a_worker_that_ray_ended_for_want_of_memory_is_one_sentence_with_figures_and_remedy(
    text, said, tmp_path, monkeypatch, caplog
):
    def fit(self):
        raise ray.exceptions.OutOfMemoryError(text)

    monkeypatch.setattr(ray.train.torch.TorchTrainer, "fit", fit)
    for name, answer in (("connect", 0.0), ("ours", False), ("cpus_each", 1)):
        monkeypatch.setattr(ray_cluster, name, lambda *_, answer=answer: answer)
    sentence = rf"^a training worker was ended for want of memory \({said}\): use fewer workers .* last checkpoint$"
    with pytest.raises(PedigreeError, match=sentence):
        ray_train.run(print, 1, tmp_path, Receiver(print), "short", retries=1)
    assert "docs.ray.io" not in caplog.text


KILLED = """
import sys, time
from pathlib import Path
from components.adapters import ray_train
from components.training.receiver import Receiver
try:
    ray_train.run(time.sleep, 1, Path(sys.argv[1]), Receiver(print), "short")
except Exception as error:
    print(error)
"""


@pytest.mark.long
def test_rays_own_text_on_a_shortage_of_memory_has_the_figures_that_are_read_from_it(tmp_path):
    env = os.environ | {"RAY_memory_usage_threshold": "0.01"}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert "GB were in use on 127.0.0.1, and Ray allows" in done.stdout, done.stderr


SESSION = """
from components.adapters import ray_cluster
ray_cluster.connect()
session = ray_cluster.ray._private.worker._global_node.get_session_dir_path()
print(session, oct(ray_cluster.ray_folder.sessions().parent.stat().st_mode & 0o777))
"""


@pytest.mark.long
@pytest.mark.parametrize(("length", "expected"), [(60, "/tmp"), (20, "usual"), (0, "/tmp")])
def test_ray_has_a_private_folder_while_it_runs_even_if_the_one_for_temporary_files_is_long_or_a_file(
    length, expected, monkeypatch
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with tempfile.TemporaryDirectory(dir="/tmp") as above:
        folder = Path(above, "a" * (length - len(above) - 1)) if length else Path(above, "file")
        if length:
            folder.mkdir()
        else:
            folder.touch()
        env = os.environ | {"TMPDIR": str(folder)}
        done = subprocess.run(
            [sys.executable, "-c", SESSION],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        session, _, mode = done.stdout.strip().partition(" ")
        assert mode == "0o700", done.stderr
        private = Path(session).parents[1]
        assert str(private.parent) == (str(folder) if expected == "usual" else expected)
        assert not private.exists()
