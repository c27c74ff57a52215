"""What every task in the list of tasks promises, and every stage relies on."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from components.adapters import ray_train
from components.contracts import Batch, Event, Outcomes, Rejected, Shard, Worker
from components.datasets.batches import in_order, shuffled
from components.errors import PedigreeError
from components.params import INIT, TaskParams
from components.stages import evaluate, prepare
from components.training import inference, loop, model_files
from components.training.receiver import Receiver
from components.trust import intervals, lineage
from tests.conftest import LOOPBACK, MODELS, Chain, listening, tiny

CPU = torch.device("cpu")
TOGETHER = ("docstrings", "words")
"""Of Ray's run by two workers, which takes seconds a task: two that have no batch norm, so that two are as one."""


@pytest.fixture(params=MODELS)
def each(request, chain_of) -> Chain:
    """Every task's chain, one after the other."""
    return chain_of(request.param)


@pytest.fixture(params=TOGETHER)
def shared(request, chain_of) -> Chain:
    """Those that two workers train together."""
    return chain_of(request.param)


def with_train(chain: Chain, **changes: Any) -> TaskParams:
    return chain.values.model_copy(update={"train": chain.values.train.model_copy(update=changes)})


def with_batches_of(chain: Chain, size: int) -> TaskParams:
    evaluation = chain.values.evaluate.model_copy(update={"batch_size": size})
    return chain.values.model_copy(update={"evaluate": evaluation})


def split_of(chain: Chain, name: str) -> Any:
    return chain.task.load_split(chain.prepared.folder, name)


def rebuilt(chain: Chain) -> nn.Module:
    return model_files.rebuild(chain.task, chain.trained.folder)


def predicted(chain: Chain, folder: Path, size: int = 8, model: nn.Module | None = None) -> inference.Predictions:
    folder.mkdir()
    network = model or rebuilt(chain)
    return inference.predict(
        chain.task, with_batches_of(chain, size), network, split_of(chain, "test"), CPU, folder
    )


def outcomes_of(chain: Chain, predictions: inference.Predictions) -> Outcomes:
    outcomes: Outcomes = chain.task.outcomes(predictions, chain.prepared, chain.values)
    return outcomes


def expect_equal(first: inference.Predictions, second: inference.Predictions) -> None:
    """Expect the same batches, to the last bit."""
    for one, two in zip(first, second, strict=True):
        assert one.keys() == two.keys()
        assert all(same_bits(one[name], two[name]) for name in one)


def same_bits(one: Tensor, two: Tensor) -> bool:
    return (one.dtype, one.shape, one.numpy().tobytes()) == (two.dtype, two.shape, two.numpy().tobytes())


def test_the_lineage_names_model_and_data(each):
    found = lineage.read(each.trained.folder)
    assert (found.model, found.task, found.data.name) == (each.model.name, each.task.name, each.model.name)


def test_what_is_prepared_passes_the_survey_and_an_empty_folder_does_not(each, tmp_path):
    each.task.survey(each.raw, each.values.prepare)
    with pytest.raises(PedigreeError):
        each.task.survey(tmp_path, each.values.prepare)


def test_preparing_twice_gives_the_same_arrays_and_says_so_by_their_hash(each, tmp_path):
    again = prepare.prepare(each.model, each.raw, tmp_path / "prepared")
    assert again.manifest == each.prepared.manifest
    assert set(again.manifest.splits) == {"train", "val", "test"}
    assert min(split.samples for split in again.manifest.splits.values()) > 0
    for file in each.prepared.folder.iterdir():
        assert (tmp_path / "prepared" / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_file_whose_name_cannot_be_pinned_is_rejected_and_changes_nothing_that_is_prepared(each, tmp_path):
    raw, before = tmp_path / "raw", each.prepared
    shutil.copytree(each.raw, raw)
    file = next(path for path in sorted(raw.rglob("*")) if path.suffix in (".png", ".txt", ".wav"))
    shutil.copyfile(file, file.with_name(os.fsdecode(b"\xe9") + file.name))
    after = prepare.prepare(each.model, raw, tmp_path / "prepared")
    assert after.manifest.splits == before.manifest.splits
    (rejected,) = (file for file in after.manifest.rejected if file not in before.manifest.rejected)
    assert rejected.reason == "its name is not UTF-8: rename it"


def test_data_that_are_split_anew_are_tested_on_other_samples_and_the_stage_says_so(each, tmp_path, caplog):
    splits = []
    for number in (1, 2):
        section = each.values.prepare.model_copy(update={"resplit": number})
        model = each.having(each.values.model_copy(update={"prepare": section}))
        with caplog.at_level(logging.INFO, "pedigree.prepare"):
            anew = prepare.prepare(model, each.raw, tmp_path / f"{number}").manifest
        assert f"prepare {model.name}: resplit is {number}: drew {anew.drawn} for testing" in caplog.messages
        assert f"tested on draw {number} from all samples" in anew.note
        splits.append(anew.splits["test"].sha256)
    assert len({*splits, each.prepared.manifest.splits["test"].sha256}) == 3


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_a_split_has_the_samples_of_the_manifest_and_gathers_any_of_them(each, name):
    split = split_of(each, name)
    assert len(split) == each.prepared.manifest.splits[name].samples
    batch = split.__getitems__(torch.tensor([len(split) - 1, 0, 0]))
    assert batch
    assert {len(tensor) for tensor in batch.values()} == {3}
    assert all(torch.equal(tensor[1], tensor[2]) for tensor in batch.values())
    assert split.lengths is None or len(split.lengths) == len(split)


def test_validation_on_some_samples_takes_at_most_so_many(each):
    split = split_of(each, "train")
    assert len(loop.subset(each.task, split, 5)) == 5
    assert len(loop.subset(each.task, split, len(split) + 1)) == len(split)


def test_one_batch_can_be_learnt_by_heart(each):
    torch.manual_seed(0)
    model = each.task.build_model(each.values, each.prepared.manifest).train()
    batches = (each.task.train_batches or shuffled)(split_of(each, "train"), each.values, Shard())
    batch: Batch = {name: rows[:4] for name, rows in batches[0].items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    values = with_train(each, label_smoothing=0.0)
    losses: list[float] = []
    while len(losses) < 200 and (not losses or losses[-1] > 0.2 * losses[0]):
        output = each.task.step(model, batch, values)
        optimizer.zero_grad()
        (output.loss / output.count).backward()
        optimizer.step()
        losses.append(output.loss.item() / float(output.count))
    assert losses[-1] <= 0.2 * losses[0]


def test_training_again_gives_bitwise_the_same_weights(each, tmp_path):
    loop.fit(each.task, each.values, each.prepared, tmp_path, Worker(CPU))
    assert (tmp_path / model_files.WEIGHTS).read_bytes() == (each.trained.folder / model_files.WEIGHTS).read_bytes()


def test_a_network_starts_from_the_weights_of_another_of_its_kind(each):
    torch.manual_seed(1)
    model = each.task.build_model(each.values, each.prepared.manifest)
    sources = {INIT: each.trained.folder}
    names = loop.initialise(each.task, each.values, model, split_of(each, "train"), sources)
    assert names == {name for name, _ in model.named_parameters()}
    for name, tensor in rebuilt(each).state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_every_metric_that_may_choose_the_best_weights_is_measured_in_validation(each):
    measured = inference.evaluate(each.task, each.values, rebuilt(each), split_of(each, "val"), CPU, 8)
    assert each.task.better.keys() <= measured.keys()
    assert measured.keys() >= {name.removeprefix("val/") for name in history(each)[-1] if name.startswith("val/")}


def history(chain: Chain) -> list[dict[str, float]]:
    return model_files.read_history(chain.trained.folder)


def test_a_saved_network_predicts_to_the_last_bit_what_it_did_before(each, tmp_path):
    model = rebuilt(each)
    model_files.save_weights(tmp_path / model_files.WEIGHTS, model)
    again = each.task.build_model(each.values, each.prepared.manifest)
    model_files.load_weights(again, tmp_path)
    first, second = (predicted(each, tmp_path / name, model=m) for name, m in (("first", model), ("second", again)))
    expect_equal(first, second)
    assert sum(1 for _ in first) == len((each.task.eval_batches or in_order)(split_of(each, "test"), 8))


def test_a_batch_is_predicted_to_the_last_bit_the_same_whoever_computes_it(each, tmp_path, monkeypatch):
    alone = predicted(each, tmp_path / "alone", size=3)
    folder = tmp_path / "shared"
    folder.mkdir()
    for rank in (1, 0):
        monkeypatch.setattr(inference, "_rank_and_world", lambda rank=rank: (rank, 2))
        torch.manual_seed(rank)  # whatever this worker drew before
        values, split = with_batches_of(each, 3), split_of(each, "test")
        together = inference.predict(each.task, values, rebuilt(each), split, CPU, folder)
    expect_equal(alone, together)


def test_the_size_of_a_batch_changes_no_outcome(each, tmp_path):
    one, two = (outcomes_of(each, predicted(each, tmp_path / str(size), size)) for size in (1, 256))
    assert list(one.samples) == list(two.samples)
    assert one.columns.keys() == two.columns.keys()
    for name, column in one.columns.items():
        np.testing.assert_allclose(two.columns[name], column, rtol=1e-5, atol=1e-5)


def test_the_registered_model_answers_as_evaluation_did(each):
    case = tiny(each.model.name)
    rows, settings = case.requests(each.raw, each.evaluated.folder)
    assert rows
    model = mlflow.pyfunc.load_model(f"models:/{each.registered.name}/{each.registered.version}")
    answers = pd.DataFrame(model.predict(pd.DataFrame(rows), params=settings))
    case.check(answers.to_dict("records"), each.evaluated.folder)


def test_a_request_has_one_answer_or_one_rejection_a_row(each):
    served = each.task.served(each.prepared.manifest, each.values)
    assert set(served.example) <= set(served.inputs)
    assert served.optional <= set(served.inputs)
    assert served.file is None or served.inputs[served.file] in ("binary", "string")
    assert set(served.media) <= {name for name, kind in served.outputs.items() if kind in ("binary", "binaries")}
    predict = model_files.load_predict(each.task, each.trained.folder)
    (answer,) = predict([served.example], {})
    assert set(answer) == set(served.outputs) if not served.params else set(answer) <= set(served.outputs)
    assert predict([], {}) == []
    unusable = dict.fromkeys(served.inputs, object())
    settings = {name: None if isinstance(value, type) else value for name, value in served.params.items()}
    first, rejected, last = predict([served.example, unusable, served.example], settings)
    assert first == last
    assert first.keys() == answer.keys(), "in a batch of another size the last bits may differ"
    assert isinstance(rejected, Rejected)
    assert rejected.reason
    assert "\n" not in rejected.reason


def test_the_score_is_a_metric_that_stands_inside_its_interval(each):
    metrics, score = each.evaluated.metrics, each.task.score(each.prepared.manifest).name
    assert metrics[f"{score}_low"] <= metrics[score] <= metrics[f"{score}_high"]
    assert evaluate.score_name(metrics) == score


def test_the_outcomes_of_the_samples_make_up_the_score(each, tmp_path):
    score = each.task.score(each.prepared.manifest)
    network = inference.placed(rebuilt(each), CPU)  # as evaluation did: other kernels may round otherwise
    outcomes = outcomes_of(each, predicted(each, tmp_path / "predictions", model=network))
    assert intervals.value(outcomes, score) == pytest.approx(each.evaluated.metrics[score.name], rel=1e-5)
    samples, rows = len(outcomes.samples), len(outcomes.row_samples)
    assert len(set(outcomes.samples)) == samples
    assert len(outcomes.clusters) in (0, samples)
    assert {len(column) for column in outcomes.columns.values()} == {rows}
    assert {len(groups) for groups in outcomes.groups.values()} <= {rows}
    assert outcomes.row_samples.min() >= 0
    assert outcomes.row_samples.max() < samples
    written = evaluate.read_outcomes(each.evaluated.folder)
    assert list(written.samples) == list(outcomes.samples)
    assert list(written.clusters) == list(outcomes.clusters)
    assert written.groups == {kind: list(groups) for kind, groups in outcomes.groups.items()}
    assert written.columns.keys() == outcomes.columns.keys()
    for name, column in outcomes.columns.items():
        np.testing.assert_allclose(written.columns[name], column, rtol=1e-5, atol=1e-5)


def test_a_row_of_weight_two_counts_as_two_and_one_of_weight_zero_not_at_all(each):
    columns, score = evaluate.read_outcomes(each.evaluated.folder).columns, each.task.score(each.prepared.manifest)
    rows = len(next(iter(columns.values())))
    weights = np.arange(rows) % 3
    chosen = {name: np.repeat(column, weights, axis=0) for name, column in columns.items()}
    assert score.of(columns, weights.astype(float)) == pytest.approx(score.of(chosen, np.ones(weights.sum())))


def test_the_workers_shares_of_a_batch_make_up_the_batch_of_one(each):
    split, batches = split_of(each, "train"), each.task.train_batches or shuffled
    whole = batches(split, each.values, Shard())
    shares = [batches(split, each.values, Shard(rank=rank, world=2)) for rank in (0, 1)]
    assert len(whole) == len(shares[0]) == len(shares[1])
    for name, rows in whole[len(whole) - 1].items():
        parts = [share[len(whole) - 1][name] for share in shares]
        assert len(parts[0]) == len(parts[1])
        together = torch.cat([padded(part, rows.shape[1:]) for part in parts])
        assert sorted(map(str, together.tolist())) == sorted(map(str, rows.tolist()))  # NaN equals nothing


def padded(rows: Tensor, shape: torch.Size) -> Tensor:
    """Pad rows with zeros to the shape that they have in a larger batch."""
    missing = [(0, wanted - size) for wanted, size in zip(shape, rows.shape[1:], strict=True)]
    return F.pad(rows, [side for pair in reversed(missing) for side in pair])


@pytest.fixture(scope="module")
def by_two(chain_of, tmp_path_factory) -> Path:
    """What two Ray workers make of some tasks, one folder each; and at which addresses they listened."""
    folder, addresses = tmp_path_factory.mktemp("two"), set()
    chains = [chain_of(name) for name in TOGETHER]

    def look(event: Event) -> None:
        if event["kind"] == "start":
            addresses.update(listening(os.getpid()))

    ray_train.run(_Several(chains, folder), 2, folder, Receiver(look), "two")
    (folder / "addresses").write_text("\n".join(addresses))
    return folder


class _Several:
    """Trains and predicts each task, on as many workers as there are."""

    def __init__(self, chains: list[Chain], folder: Path) -> None:
        self.chains, self.folder = chains, folder

    def __call__(self, worker: Worker) -> None:
        for chain in self.chains:
            make(chain, self.folder / chain.model.name, worker)


PREDICTIONS = "predictions"


def make(chain: Chain, out: Path, worker: Worker) -> None:
    """Train for an epoch, and predict with the chain's network."""
    (out / PREDICTIONS).mkdir(parents=True, exist_ok=True)
    loop.fit(chain.task, with_train(chain, epochs=1), chain.prepared, out, worker)
    inference.predict_to_folder(
        chain.task, with_batches_of(chain, 3), chain.trained.folder, chain.prepared, out / PREDICTIONS, worker
    )


@pytest.mark.long
def test_a_training_by_two_workers_listens_on_loopback_alone(by_two):
    addresses = set((by_two / "addresses").read_text().split())
    assert "::ffff:127.0.0.1" in addresses, "Ray's own servers"
    assert addresses <= LOOPBACK


@pytest.mark.long
def test_two_workers_predict_to_the_last_bit_what_one_does(shared, by_two, tmp_path):
    make(shared, tmp_path, Worker(CPU))
    expect_equal(
        inference.Predictions(tmp_path / PREDICTIONS),
        inference.Predictions(by_two / shared.model.name / PREDICTIONS),
    )


@pytest.mark.long
def test_two_workers_train_the_network_that_one_does(shared, by_two, tmp_path):
    loop.fit(shared.task, with_train(shared, epochs=1), shared.prepared, tmp_path, Worker(CPU))
    one, two = (load_file(folder / model_files.WEIGHTS) for folder in (tmp_path, by_two / shared.model.name))
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights, rtol=1e-3, atol=1e-4)
