"""What every task in the list of tasks promises, and every stage relies on."""

import csv
import os
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from components.adapters import ray_train
from components.contracts import Event, Plan, Workers
from components.params import TaskParams
from components.stages import prepare
from components.training import inference, loop, saved
from tests.conftest import LOOPBACK, TASKS, Chain, listening, tiny

CPU = torch.device("cpu")


@pytest.fixture(params=TASKS)
def each(request, chain_of) -> Chain:
    """Every task's chain, one after the other."""
    return chain_of(request.param)


def test_preparing_twice_gives_the_same_arrays_and_says_so_by_their_hash(each, tmp_path):
    again = prepare.prepare(each.task, each.values, each.raw, tmp_path / "prepared")
    assert again.manifest == each.prepared.manifest
    assert set(again.manifest.splits) == {"train", "val", "test"}
    assert min(split.samples for split in again.manifest.splits.values()) > 0
    for file in each.prepared.folder.iterdir():
        assert (tmp_path / "prepared" / file.name).read_bytes() == file.read_bytes(), file.name


def test_one_batch_can_be_learnt_by_heart(each):
    torch.manual_seed(0)
    model = each.task.build_model(each.values, each.prepared.manifest).train()
    split = each.task.load_split(each.prepared.folder, "train")
    batch = {name: rows[:4] for name, rows in each.task.train_batches(split, each.values, Plan())[0].items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    values = _with(each, label_smoothing=0.0)
    losses = []
    while len(losses) < 200 and (not losses or losses[-1] > 0.2 * losses[0]):
        output = each.task.step(model, batch, values)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.sums["loss"].item() / output.count)
    assert losses[-1] <= 0.2 * losses[0]


def test_training_again_gives_bitwise_the_same_weights(each, tmp_path):
    loop.fit(each.task, each.values, each.prepared, tmp_path, Workers(CPU))
    assert (tmp_path / saved.WEIGHTS).read_bytes() == (each.trained.folder / saved.WEIGHTS).read_bytes()


def test_a_saved_network_predicts_to_the_last_bit_what_it_did_before(each, tmp_path):
    model = saved.rebuild(each.task, each.trained.folder)
    saved.save_weights(tmp_path / saved.WEIGHTS, model)
    again = each.task.build_model(each.values, each.prepared.manifest)
    saved.load_weights(again, tmp_path)
    split = each.task.load_split(each.prepared.folder, "test")
    first, second = (inference.predict(each.task, m, split, CPU, 8) for m in (model, again))
    assert first is not None
    assert second is not None
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_registered_model_answers_as_evaluation_did(each):
    case = tiny(each.task.name)
    rows, settings = case.requests(each.raw, each.evaluated.folder)
    assert rows
    model = mlflow.pyfunc.load_model(f"models:/{each.registered.name}/{each.registered.version}")
    answers = pd.DataFrame(model.predict(pd.DataFrame(rows), params=settings))
    case.check(answers.to_dict("records"), each.evaluated.folder)


def test_the_score_stands_inside_its_interval(each):
    metrics, score = each.evaluated.metrics, each.task.score
    assert metrics[f"{score}_low"] <= metrics[score] <= metrics[f"{score}_high"]


def test_the_outcomes_of_the_samples_make_up_the_score(each):
    split = each.task.load_split(each.prepared.folder, "test")
    predictions = inference.predict(each.task, saved.rebuild(each.task, each.trained.folder), split, CPU, 8)
    outcomes = each.task.outcomes(predictions, each.prepared)
    assert each.task.scale(outcomes.mean) == pytest.approx(each.evaluated.metrics[each.task.score], rel=1e-6)
    assert len({len(outcomes.names), len(outcomes.sums), len(outcomes.counts)}) == 1
    assert {len(outcomes.classes), len(outcomes.sources)} <= {0, len(outcomes.names)}
    assert len(set(outcomes.names)) == len(outcomes.names)
    with (each.evaluated.folder / "examples" / "outcomes.csv").open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [row["sample"] for row in written] == list(outcomes.names)
    assert sum(float(row["sum"]) for row in written) == pytest.approx(outcomes.sums.sum(), rel=1e-6)


def test_the_workers_shares_of_a_batch_make_up_the_batch_of_one(each):
    split = each.task.load_split(each.prepared.folder, "train")
    whole = each.task.train_batches(split, each.values, Plan())
    shares = [each.task.train_batches(split, each.values, Plan(rank=rank, world=2)) for rank in (0, 1)]
    assert len(whole) == len(shares[0]) == len(shares[1])
    for name, rows in whole[len(whole) - 1].items():
        parts = [share[len(whole) - 1][name] for share in shares]
        assert sorted(torch.cat(parts).tolist(), key=str) == sorted(rows.tolist(), key=str)


@pytest.fixture(scope="module")
def by_two(chain_of, tmp_path_factory) -> Path:
    """What two Ray workers make of every task, one folder each; and at which addresses they listened."""
    folder, addresses = tmp_path_factory.mktemp("two"), set()
    chains = [chain_of(name) for name in TASKS]

    def look(event: Event) -> None:
        if event["kind"] == "start":
            addresses.update(listening(os.getpid()))

    ray_train.run(_Everything(chains, folder), 2, folder, look, "two")
    (folder / "addresses").write_text("\n".join(addresses))
    return folder


class _Everything:
    """Trains and predicts each task, on as many workers as there are."""

    def __init__(self, chains: list[Chain], folder: Path) -> None:
        self.chains, self.folder = chains, folder

    def __call__(self, workers: Workers) -> None:
        for chain in self.chains:
            make(chain, self.folder / chain.task.name, workers)


def make(chain: Chain, out: Path, workers: Workers) -> None:
    out.mkdir(exist_ok=True)
    loop.fit(chain.task, _with(chain, epochs=1), chain.prepared, out, workers)
    inference.predict_to_file(chain.task, chain.trained.folder, chain.prepared, 3, out / "predictions", workers)


def _with(chain: Chain, **train: Any) -> TaskParams:
    return chain.values.model_copy(update={"train": chain.values.train.model_copy(update=train)})


def test_a_training_by_two_workers_listens_on_loopback_alone(by_two):
    addresses = set((by_two / "addresses").read_text().split())
    assert "::ffff:127.0.0.1" in addresses, "Ray's own servers"
    assert addresses <= LOOPBACK


def test_two_workers_predict_to_the_last_bit_what_one_does(each, by_two, tmp_path):
    make(each, tmp_path / "one", Workers(CPU))
    one, two = (load_file(folder / "predictions") for folder in (tmp_path / "one", by_two / each.task.name))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_two_workers_train_the_network_that_one_does(each, by_two, tmp_path):
    model = each.task.build_model(each.values, each.prepared.manifest)
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        pytest.skip("batch norm sees each worker's own share of a batch")
    make(each, tmp_path / "one", Workers(CPU))
    one, two = (load_file(folder / saved.WEIGHTS) for folder in (tmp_path / "one", by_two / each.task.name))
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights, rtol=1e-3, atol=1e-4)
