"""A training has GPUs of its own, or the CPU to itself. No test here needs a GPU: only their names are made up."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from components.contracts import Worker
from components.errors import PedigreeError
from components.jobs import gpus, launch
from components.registry import reproduce
from components.runtime import locks
from components.stages import evaluate
from components.training import device


@pytest.fixture
def two(monkeypatch):
    """Two GPUs, of which one is a part of a card."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(device, "gpus", lambda: ("0", "MIG-GPU-5/1/0"))


def model(root, workers=1, evaluated_by=0):
    """Return a model of which only what is looked at is there."""
    params = SimpleNamespace(
        train=SimpleNamespace(workers=workers, epochs=1), evaluate=SimpleNamespace(workers=evaluated_by)
    )
    return SimpleNamespace(name="digits", root=root, params=params)


def test_a_training_and_an_evaluation_have_a_gpu_each(two, tmp_path):
    one = model(tmp_path)
    with gpus.of_training(one) as first:
        second: list[str] = []

        def hold() -> None:  # in another thread, as one that holds a lock has it again
            with gpus.of_evaluation(one) as held:
                second.extend(held)

        thread = threading.Thread(target=hold)
        thread.start()
        thread.join(20)
        assert (list(first), second) == (["0"], ["MIG-GPU-5/1/0"])


@pytest.mark.parametrize("hold", [gpus.of_training, gpus.of_evaluation])
def test_more_workers_than_gpus_are_an_error_with_both_numbers_and_no_training_on_the_cpu(hold, two, tmp_path):
    said = "^3 workers need a GPU each, and this process has 2: use fewer workers, or set CUDA_VISIBLE_DEVICES to"
    with pytest.raises(PedigreeError, match=said), hold(model(tmp_path, 3, 3)):
        pass


@pytest.mark.parametrize("workers", [0, 1, 8])
def test_without_a_gpu_one_training_runs_at_a_time_on_any_number_of_workers_and_evaluations_beside_it(
    workers, tmp_path, monkeypatch
):
    monkeypatch.setattr(device, "gpus", tuple)
    digits = model(tmp_path, workers, workers)
    with gpus.of_training(digits) as held:
        assert not held
        assert locks.held(tmp_path / gpus.ACCELERATOR)
        with gpus.of_evaluation(digits) as beside:
            assert not beside


def test_on_a_cluster_ray_divides_the_gpus(two, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with gpus.of_training(model(tmp_path, 8)) as held:
        assert not held
    assert not list(tmp_path.rglob("*.lock"))


def test_an_evaluation_holds_the_gpu_that_it_computes_on(two, tmp_path, monkeypatch):
    seen = []

    def run(work, workers, folder, on_event, name, held) -> None:
        seen.append((workers, list(held), locks.held(tmp_path / "build" / ".gpu-0.lock")))

    monkeypatch.setattr(launch, "run", run)
    evaluate._predictions(model(tmp_path), None, SimpleNamespace(folder=tmp_path, run_id="run"), tmp_path)
    assert seen == [(0, ["0"], True)]
    assert not locks.held(tmp_path / "build" / ".gpu-0.lock")


def test_what_runs_in_this_process_gives_its_gpus_memory_back_even_if_it_is_interrupted(two, tmp_path, monkeypatch):
    done = []
    for name in ("settle", "release"):
        monkeypatch.setattr(device, name, lambda of, name=name: done.append(f"{name} {of}"))

    def compute(worker: Worker) -> None:
        done.append(str(worker.device))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch.run(compute, 0, tmp_path, print, "here", ["MIG-GPU-5/1/0"])
    assert done == ["settle cuda:1", "cuda:1", "release cuda:1"]


def out_of_memory(text: str, worker: Worker) -> None:
    with device.explaining_memory("lower train.batch_size (now 64)"):
        raise torch.OutOfMemoryError(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which "
            "10.50 GiB is free. Including non-PyTorch memory, this process has 68.64 GiB memory in use. Of the "
            "allocated memory 60.00 GiB is allocated by PyTorch, and 5.00 GiB is reserved by PyTorch.",
            "the GPU has too little memory: 20.00 GiB were asked for, and of 79.15 GiB there are 10.50 GiB free",
        ),
        (
            "CUDA out of memory. Tried to allocate more than 1EB memory.\nC++ CapturedTraceback:",
            "the GPU has too little memory (CUDA out of memory. Tried to allocate more than 1EB memory.)",
        ),
        ("", "the GPU has too little memory (torch gives no figures)"),
    ],
)
def test_a_lack_of_memory_is_one_sentence_with_torchs_figures_and_the_remedy(text, said, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # else the GPU is named
    with pytest.raises(PedigreeError) as raised:
        launch.run(partial(out_of_memory, text), 0, tmp_path, print, "here", ())
    assert str(raised.value) == f"{said}: lower train.batch_size (now 64)"


def test_a_stage_of_a_reproduction_holds_gpus_of_the_checkout(two, tmp_path):
    with reproduce._gpus(tmp_path, "the reproduction of digits", {"workers": 1}) as names:
        assert list(names) == ["0"]
        assert locks.held(tmp_path / "build" / ".gpu-0.lock")
    with reproduce._gpus(tmp_path, "the reproduction of digits", {"val_share": 0.1}) as names:
        assert list(names) == []


def test_a_training_on_the_cpu_does_not_keep_others_from_the_gpus(two, tmp_path):
    def take() -> list[str]:
        with gpus.some(tmp_path, 1, "another") as names:
            return list(names)

    with ThreadPoolExecutor() as another, locks.alone(tmp_path / gpus.ACCELERATOR, "a training on the CPU"):
        assert another.submit(take).result(20) == ["0"]
