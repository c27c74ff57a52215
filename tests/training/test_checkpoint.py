"""A training that was interrupted ends in bitwise the weights of one that was not."""

import errno
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from components.contracts import Task
from components.errors import DamagedError
from components.runtime import files
from components.training import checkpoint, model_files
from tests.training.test_loop import fit, step, toy

EVERY_UPDATE = 1e-9


class KilledError(Exception):
    """Ends a training as a kill does, but for a checkpoint that is being written."""


def noisy(batch: dict, values: object) -> dict:
    return {**batch, "x": batch["x"] + torch.randn_like(batch["x"])}


def killed_at(update: int) -> Task:
    """Return the toy task whose training is ended in the update of that number, from 1."""
    count = 0

    def killing_step(model: nn.Module, batch: dict, values: object) -> object:
        nonlocal count
        if model.training and len(batch["x"]) == 16:
            count += 1
            if count == update:
                raise KilledError
        return step(model, batch, values)

    return task(killing_step)


def task(its_step: object = step) -> Task:
    """Return the toy task with a matrix inside, which is what muon takes."""

    def build(values: object, manifest: object) -> nn.Module:
        return nn.Sequential(nn.Dropout(0.3), nn.Linear(4, 4), nn.Linear(4, 1))

    return replace(toy(noisy), build_model=build, step=its_step)


OPTIMIZERS = {
    "sgd": {"name": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.1},
    "adamw": {"name": "adamw", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.1},
    "muon": {"name": "muon", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.1},
}
SETTINGS = {
    "checkpoint_seconds": EVERY_UPDATE,
    "average": {"name": "ema", "decay": 0.9},
    "schedule": {"name": "one_cycle", "warmup": 0.3},
}


def numbers(metrics: list[dict]) -> list[dict]:
    """Return what of the metrics does not depend on the clock."""
    return [{k: v for k, v in row.items() if not k.startswith("speed/")} for row in metrics]


def last(folder: Path) -> checkpoint.TrainingState | None:
    name = checkpoint.latest(folder)
    return checkpoint.load(folder, name)[0] if name else None


@pytest.mark.parametrize(("update", "optimizer"), [(1, "sgd"), (4, "adamw"), (5, "muon"), (9, "sgd")])
def test_a_training_killed_at_any_update_ends_in_the_same_weights_and_metrics(tmp_path, update, optimizer):
    settings = {**SETTINGS, "optimizer": OPTIMIZERS[optimizer]}
    whole, reported = fit(tmp_path / "whole", task(), **settings)
    with pytest.raises(KilledError):
        fit(tmp_path / "killed", killed_at(update), **settings)
    again, rest = fit(tmp_path / "killed", task(), **settings)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert numbers(rest) == numbers(reported)[-len(rest) :]
    state = last(tmp_path / "killed")
    assert numbers(state.history) == numbers(reported)


@pytest.mark.parametrize("update", [2, 5])
def test_a_training_killed_while_weights_are_frozen_or_afterwards_ends_in_the_same_weights(tmp_path, update):
    frozen = {"1.weight", "1.bias"}
    settings = {**SETTINGS, "init": {"from": "elsewhere", "freeze": 1}}

    def starting(each: Task) -> Task:
        return replace(each, initialise=lambda *_: frozen)

    whole, reported = fit(tmp_path / "whole", starting(task()), **settings)
    with pytest.raises(KilledError):
        fit(tmp_path / "killed", starting(killed_at(update)), **settings)
    again, rest = fit(tmp_path / "killed", starting(task()), **settings)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert numbers(rest) == numbers(reported)[-len(rest) :]


def test_a_training_that_was_over_is_not_made_again(tmp_path):
    weights, _ = fit(tmp_path, task(), **SETTINGS)
    again, reported = fit(tmp_path, killed_at(1), **SETTINGS)
    assert reported == []
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_the_last_two_checkpoints_are_kept_and_the_best_weights_that_they_name(tmp_path):
    fit(tmp_path, task(), **SETTINGS)
    assert len(list((tmp_path / checkpoint.FOLDER).iterdir())) == 2
    state = last(tmp_path)
    assert state.best.file in [file.name for file in tmp_path.glob("best-*")]
    assert len(list(tmp_path.glob("best-*"))) <= 2


STARTED = checkpoint.TrainingState(
    update=1,
    epoch=0,
    batch=1,
    world=1,
    score=None,
    validations_without_improvement=0,
    best=None,
    seconds=0,
    trained=0,
    history=[],
)


def test_training_goes_on_while_a_checkpoint_of_what_it_was_is_written(tmp_path, monkeypatch):
    disk, save_file, weights = threading.Event(), checkpoint.save_file, torch.zeros(3)
    monkeypatch.setattr(checkpoint, "save_file", lambda *what: disk.wait(30) and save_file(*what))
    with checkpoint.CheckpointWriter(tmp_path) as writer:
        writer.save(STARTED, {"weights": weights})
        weights += 1
        assert not checkpoint.latest(tmp_path)
        disk.set()
    state, tensors = checkpoint.load(tmp_path, checkpoint.latest(tmp_path))
    assert state == STARTED
    assert torch.equal(tensors["weights"], torch.zeros(3))


def test_training_goes_on_while_the_best_weights_of_what_it_was_are_written(tmp_path, monkeypatch):
    disk, save_weights, model = threading.Event(), model_files.save_weights, nn.Linear(2, 1)
    before = model.weight.detach().clone()
    monkeypatch.setattr(model_files, "save_weights", lambda *what: disk.wait(30) and save_weights(*what))
    with checkpoint.CheckpointWriter(tmp_path) as writer:
        writer.save_best(7, model)
        nn.init.zeros_(model.weight)
        disk.set()
        writer.wait()
    assert writer.best == checkpoint.Best(file=writer.best.file, sha256=files.sha256(tmp_path / writer.best.file))
    assert torch.equal(load_file(tmp_path / writer.best.file)["weight"], before)


def test_best_weights_that_could_not_be_written_end_the_training_in_which_they_are_the_last(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(model_files, "save_weights", full)
    with pytest.raises(OSError, match="No space left"):
        fit(tmp_path, task(), validation={"every": 2, "samples": 0}, patience=1, optimizer={"lr": 1e-30})


def test_a_checkpoint_that_could_not_be_written_ends_the_training_at_the_next_one(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = checkpoint.CheckpointWriter(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        writer.save(STARTED, {"weights": torch.zeros(3)})
        with pytest.raises(OSError, match="No space left"):
            writer.save(STARTED, {"weights": torch.zeros(3)})
    writer.save(STARTED, {"weights": torch.zeros(3)})
    writer.wait()
    assert checkpoint.latest(tmp_path)


def test_an_epoch_is_reported_when_its_checkpoint_and_its_best_weights_are_on_the_disk(tmp_path, monkeypatch):
    save_file, found = checkpoint.save_file, []
    monkeypatch.setattr(checkpoint, "save_file", lambda *what: time.sleep(0.1) or save_file(*what))

    def look(event: dict) -> None:
        if event["kind"] == "validation":
            state = last(tmp_path)
            found.append((state.epoch, (tmp_path / state.best.file).is_file()))

    _, reported = fit(tmp_path, task(), tell=look, **SETTINGS)
    assert found == [(epoch + 1, True) for epoch in range(len(reported))]


@pytest.mark.parametrize("number", [1, 3, 6])
def test_a_training_killed_while_it_writes_a_checkpoint_ends_in_the_same_weights(tmp_path, monkeypatch, number):
    whole, _ = fit(tmp_path / "whole", task(), **SETTINGS)
    save_file, calls = checkpoint.save_file, []

    def interrupt(own: dict, new: Path, state: dict) -> None:
        calls.append(new)
        if len(calls) == number:
            new.write_bytes(b"half of it")
            raise KilledError
        save_file(own, new, state)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", interrupt)
        with pytest.raises(KilledError):
            fit(tmp_path / "killed", task(), **SETTINGS)
    again, _ = fit(tmp_path / "killed", task(), **SETTINGS)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def damage(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 1
    file.write_bytes(data[: len(data) // 2] if how == "torn" else data)


@pytest.mark.parametrize("how", ["torn", "flipped"])
@pytest.mark.parametrize("what", ["checkpoints/*", "best-*"])
def test_damage_costs_the_last_stretch_and_never_a_bit_of_the_weights(tmp_path, what, how):
    whole, _ = fit(tmp_path / "whole", task(), **SETTINGS)
    with pytest.raises(KilledError):
        fit(tmp_path / "killed", killed_at(8), **SETTINGS)
    before = last(tmp_path / "killed")
    damage(max((tmp_path / "killed").glob(what)), how)
    found = last(tmp_path / "killed")
    assert found is None or (found.update, found.epoch) < (before.update, before.epoch)
    again, _ = fit(tmp_path / "killed", task(), **SETTINGS)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.parametrize("what", ["checkpoints/*", "best-*"])
def test_a_training_that_went_back_behind_damage_can_be_killed_once_more(tmp_path, what):
    whole, _ = fit(tmp_path / "whole", task(), **SETTINGS)
    folder = tmp_path / "killed"
    with pytest.raises(KilledError):
        fit(folder, killed_at(9), **SETTINGS)
    for file in folder.glob(what):
        damage(file, "torn")
    with pytest.raises(KilledError):
        fit(folder, killed_at(4), **SETTINGS)
    assert last(folder).update == 3
    assert all(checkpoint.load(folder, file.name) for file in (folder / checkpoint.FOLDER).iterdir())
    again, _ = fit(folder, task(), **SETTINGS)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_checkpoint_that_the_disk_does_not_give_is_passed_over(tmp_path):
    fit(tmp_path, task(), **SETTINGS)
    newest = tmp_path / checkpoint.FOLDER / checkpoint.latest(tmp_path)
    newest.unlink()
    newest.symlink_to(newest.name)  # as a bad sector does, it gives an OSError
    assert checkpoint.latest(tmp_path) not in ("", newest.name)


@pytest.mark.parametrize("how", ["torn", "flipped", "not there yet"])
def test_a_worker_that_does_not_see_the_checkpoint_that_rank_0_found_trains_on_no_other(tmp_path, how):
    fit(tmp_path, task(), **SETTINGS)
    name = checkpoint.latest(tmp_path)
    file = tmp_path / checkpoint.FOLDER / name
    file.unlink() if how == "not there yet" else damage(file, how)
    with pytest.raises(DamagedError, match=f"{name} is missing or damaged"):
        checkpoint.load(tmp_path, name)


@given(samples=st.integers(1, 40), before=st.integers(1, 5), after=st.integers(1, 5))
def test_state_is_distributed_among_another_number_of_workers_as_samples_are(samples, before, after):
    whole = torch.arange(samples * 2).view(samples, 2)
    parts = [{"state": whole[rank::before]} for rank in range(before)]
    unpacked = checkpoint.unpack_shards(checkpoint.pack_shards(parts), before)
    for rank in range(after):
        assert torch.equal(checkpoint.resharded(unpacked, rank, after)["state"], whole[rank::after])


def test_an_optimizers_state_keeps_the_memory_format_of_its_parameter():
    weight = nn.Parameter(torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last))
    first = torch.optim.AdamW([weight], fused=True)
    weight.grad = torch.randn_like(weight)
    first.step()
    second = torch.optim.AdamW([weight], fused=True)
    tensors = {k: v.contiguous().clone() for k, v in checkpoint.optimizer_tensors(first).items()}
    checkpoint.restore_optimizer(second, tensors)
    moment = second.state[weight]["exp_avg"]
    assert moment.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moment, first.state[weight]["exp_avg"])
