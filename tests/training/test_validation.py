"""Validation inside an epoch: it changes no weight, and no kill beside it does either."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from components.contracts import StepOutput, Task
from components.datasets.batches import spread
from components.training import checkpoint
from components.training.loop import subset
from tests.training.test_checkpoint import OPTIMIZERS, SETTINGS, KilledError, killed_at, last, noisy, numbers, task
from tests.training.test_loop import fit, split, step, toy

EPOCHS = {**SETTINGS, "optimizer": OPTIMIZERS["sgd"]}
EVERY_2 = {**EPOCHS, "validation": {"every": 2, "samples": 0}}
"""Three updates an epoch, three epochs."""


def killed_in_validation(number: int) -> Task:
    """Return the toy task whose training is ended in its validation of that number, from 1."""
    batches = 0

    def killing_step(model: nn.Module, batch: dict, values: object) -> StepOutput:
        nonlocal batches
        batches += not model.training
        if batches == 3 * number - 1:  # of three batches the second
            raise KilledError
        return step(model, batch, values)

    return task(killing_step)


def killing_after(number: int):
    """Return a listener that ends a training when it reports its validation of that number, from 1."""
    reported = 0

    def listen(event: dict) -> None:
        nonlocal reported
        reported += event["kind"] == "validation"
        if reported == number:
            raise KilledError

    return listen


def test_validation_every_few_updates_leaves_the_weights_as_they_are_without(tmp_path):
    plain, epochs = fit(tmp_path / "plain", task(), **EPOCHS)
    often, updates = fit(tmp_path / "often", task(), **EVERY_2)
    for metrics in (epochs, updates):
        assert min(metrics, key=lambda row: row["val/loss"]) == metrics[-1], "the last weights are the best"
    assert all(torch.equal(plain[name], often[name]) for name in plain)
    assert updates[-1]["val/loss"] == epochs[-1]["val/loss"]


def test_validation_happens_every_few_updates_and_after_the_last(tmp_path):
    _, metrics = fit(tmp_path, task(), **EVERY_2)
    assert [row["update"] for row in metrics] == [2, 4, 6, 8, 9]
    assert [row["epoch"] for row in metrics] == pytest.approx([2 / 3, 4 / 3, 2, 8 / 3, 3])


def test_validation_at_the_last_update_of_each_epoch_is_validation_each_epoch(tmp_path):
    _, epochs = fit(tmp_path / "epochs", task(), **EPOCHS)
    _, updates = fit(tmp_path / "updates", task(), **{**EPOCHS, "validation": {"every": 3, "samples": 0}})
    assert numbers(updates) == numbers(epochs)


def test_each_update_counts_in_one_validations_training_loss(tmp_path):
    settings = {"optimizer": {"lr": 1e-30}, "epochs": 2}
    _, each = fit(tmp_path / "each", toy(noisy), validation={"every": 1, "samples": 0}, **settings)
    _, fours = fit(tmp_path / "fours", toy(noisy), validation={"every": 4, "samples": 0}, **settings)
    losses = [row["train/loss"] for row in each]
    assert len(losses) == 6
    assert [row["train/loss"] for row in fours] == pytest.approx([sum(losses[:4]) / 4, sum(losses[4:]) / 2])


@pytest.mark.parametrize("number", [1, 2, 3, 5])
@pytest.mark.parametrize("when", ["between an update and its validation", "after it was reported"])
def test_a_training_killed_beside_a_validation_ends_in_the_same_weights_and_metrics(tmp_path, number, when):
    whole, metrics = fit(tmp_path / "whole", task(), **EVERY_2)
    folder = tmp_path / "killed"
    between = when.startswith("between")
    ended = (killed_in_validation(number),) if between else (task(), killing_after(number))
    with pytest.raises(KilledError):
        fit(folder, *ended, **EVERY_2)
    state = last(folder)
    if between:
        assert (state.update, len(state.history)) == (metrics[number - 1]["update"], number - 1)
    again, rest = fit(folder, task(), **EVERY_2)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert numbers(rest) == numbers(metrics)[-len(rest) :] if rest else number == len(metrics)
    assert numbers(last(folder).history) == numbers(metrics)


def test_the_weights_that_are_saved_may_be_those_of_the_middle_of_an_epoch(tmp_path):
    settings = {**EVERY_2, "average": {"name": "none"}}
    worse = replace(task(), better={"loss": "more"})  # the first weights have the highest loss
    weights, metrics = fit(tmp_path / "all", worse, **settings)
    assert max(metrics, key=lambda row: row["val/loss"])["update"] == 2
    for name, each in after_two_updates(tmp_path / "two").items():
        assert torch.equal(weights[name], each)


def after_two_updates(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a training that was killed in its third update."""
    with pytest.raises(KilledError):
        fit(folder, killed_at(3), **{**EPOCHS, "average": {"name": "none"}})
    _, tensors = checkpoint.load(folder, checkpoint.latest(folder))
    return {name.removeprefix("model."): each for name, each in tensors.items() if name.startswith("model.")}


def test_patience_counts_validations_and_may_end_a_training_inside_an_epoch(tmp_path):
    worse = replace(task(), better={"loss": "more"})
    settings = {**EVERY_2, "average": {"name": "none"}, "epochs": 9, "patience": 1}
    weights, metrics = fit(tmp_path, worse, **settings)
    assert [row["update"] for row in metrics] == [2, 4]
    again, rest = fit(tmp_path, worse, **settings)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert numbers(last(tmp_path).history + rest)[-1] == numbers(metrics)[-1]


@pytest.mark.parametrize("most", [1, 5, 47, 48, 100])
def test_validation_on_a_part_of_the_split_uses_evenly_spread_samples(tmp_path, most):
    weights, metrics = fit(tmp_path, epochs=1, optimizer={"lr": 1e-30}, validation={"every": 0, "samples": most})
    model = nn.Linear(4, 1)
    model.load_state_dict({name.removeprefix("1."): value for name, value in weights.items()})
    some = split("val").take(torch.arange(min(most, 48)) * 48 // min(most, 48))
    assert len(some) == min(most, 48)
    assert metrics[0]["val/loss"] == pytest.approx(F.mse_loss(model(some["x"]), some["y"]).item(), rel=1e-5)


def test_a_task_may_choose_the_samples_of_validation_itself():
    first = replace(toy(), subset=lambda split, most: split.take(torch.arange(most)))
    assert torch.equal(subset(first, split("val"), 3)["x"], split("val")["x"][:3])
    assert torch.equal(subset(toy(), split("val"), 3)["x"], split("val")["x"][spread(48, 3)])


def test_what_is_drawn_in_validation_is_the_same_however_often_there_is_one(tmp_path):
    """A task may sample its answers."""

    def sampling(model: nn.Module, batch: dict, values: object) -> StepOutput:
        output = step(model, batch, values)
        return output if model.training else replace(output, sums={"drawn": torch.rand((), dtype=torch.float64)})

    def seen(folder: str, every: int) -> dict[int, float]:
        settings = {**EPOCHS, "validation": {"every": every, "samples": 0}}
        _, metrics = fit(tmp_path / folder, task(sampling), **settings)
        return {row["update"]: row["val/drawn"] for row in metrics}

    rare, often = seen("rare", 3), seen("often", 1)
    assert rare == {update: often[update] for update in rare}
