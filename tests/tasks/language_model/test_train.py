"""Windows of streams, the loss at every position, and an evaluation that no batch or window changes."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from components.contracts import Shard, Worker
from components.datasets.splits import Columns
from components.errors import PedigreeError
from components.tasks import load
from components.tasks.language_model import train
from components.tasks.language_model.model import build_model
from components.tasks.language_model.prepare import load_split
from components.training import inference, loop, model_files
from tests.tasks.language_model.tiny import text
from tests.tasks.language_model.values import ROOT, prepared, tokenizer, values

CPU = torch.device("cpu")
TASK = load("language_model")
DATASETS = ROOT.parent / "shared" / "datasets"
SMALL = {"embedding": 24, "hidden": 24, "layers": 2, "tie": False}


def split(length: int) -> Columns:
    return Columns({"tokens": torch.from_numpy(np.arange(length).astype(np.uint16))})


def params(**section):
    return values(train={"batch_size": 4, "window": 10, "model": SMALL, "dropout": {"output": 0}, **section})


def joined(batches, name: str) -> torch.Tensor:
    return torch.cat([batches[i][name] for i in range(len(batches))], 1)


@given(st.integers(8, 100), st.integers(1, 4), st.integers(1, 50), st.booleans(), st.integers(0, 3))
@settings(max_examples=40)
def test_windows_hold_each_stream_in_order_with_a_target_at_every_position(length, size, window, drawn, epoch):
    chosen = params(batch_size=size, window=window, random_window=drawn)
    batches = train.windows(split(length), chosen, Shard(epoch))
    each = length // size
    whole = torch.arange(size * each).view(size, each)
    assert torch.equal(joined(batches, "input"), whole[:, :-1])
    assert torch.equal(joined(batches, "target"), whole[:, 1:])


def test_workers_have_streams_of_their_own_and_windows_of_one_length():
    chosen = params(random_window=True)
    parts = [train.windows(split(400), chosen, Shard(2, rank, 2)) for rank in (0, 1)]
    first, second = (joined(part, "input") for part in parts)
    assert not set(first.flatten().tolist()) & set(second.flatten().tolist())
    assert [part[i]["input"].shape for part in parts for i in range(len(part))] == [
        part[i]["input"].shape for part in reversed(parts) for i in range(len(part))
    ]


def test_drawn_windows_differ_by_epoch_and_lie_round_the_window():
    chosen = params(window=50, random_window=True)
    lengths = [np.diff(train.windows(split(40_000), chosen, Shard(epoch)).cuts[:-1]) for epoch in (0, 1)]
    assert lengths[0].tolist() != lengths[1].tolist()
    every = np.concatenate(lengths)
    assert every.min() >= 5
    assert every.mean() == pytest.approx(0.95 * 50 + 0.05 * 25, abs=1.5)
    assert len(set(every.tolist())) > 10


def test_a_text_too_short_for_the_streams_says_what_to_lower():
    with pytest.raises(PedigreeError, match=r"lower train\.batch_size to at most 3"):
        train.windows(split(7), params(), Shard())


@pytest.fixture(scope="module")
def prepared_text(tmp_path_factory):
    section = tokenizer("char", val_share=0.1, test_share=0.1)
    return prepared(tmp_path_factory.mktemp("text"), text(24_000), prepare=section)


@pytest.fixture(scope="module")
def trained(prepared_text, tmp_path_factory):
    """A network that has learnt a little, and what each epoch measured."""
    out = tmp_path_factory.mktemp("model")
    events = []
    chosen = params(batch_size=16, window=32, epochs=2, precision="fp32", random_window=True)
    loop.fit(TASK, chosen, prepared_text, out, Worker(CPU, emit=events.append))
    model = build_model(chosen, prepared_text.manifest)
    model_files.load_weights(model, out)
    return model.eval(), [event["metrics"] for event in events if event["kind"] == "validation"]


def test_the_state_goes_on_from_window_to_window(prepared_text):
    """The loss of the second window is that after the first one, not that of a network with an empty state."""
    model = build_model(params(), prepared_text.manifest).train()
    batches = train.windows(load_split(prepared_text.folder, "train"), params(), Shard())
    first = train.step(model, batches[0], params())
    second = train.step(model, batches[1] | first.carry, params())
    both = torch.cat([batches[0]["input"], batches[1]["input"]], 1)
    logits, _ = model(both)
    expected = F.cross_entropy(logits[:, 10:].flatten(0, 1), batches[1]["target"].flatten(), reduction="sum")
    assert_close(second.loss, expected)
    assert second.count == 4 * 10
    assert not any(part.requires_grad for part in first.carry.values())


def test_a_window_of_half_the_length_is_learnt_from_at_half_the_rate(prepared_text, tmp_path):
    """As in AWD-LSTM the rate is scaled, not the loss: what clips or normalises gradients cannot undo it."""
    moved = {}
    for length in (10, 5):

        def one_window(split, values, shard, length=length):
            return train.Windows(split["tokens"][: 4 * (length + 1)].view(4, -1), [0, length])

        sgd = {"name": "sgd", "lr": 1.0, "momentum": 0, "weight_decay": 0}
        flat = {"optimizer": sgd, "schedule": {"name": "constant", "warmup": 0}, "average": {"name": "none"}}
        chosen = params(epochs=1, precision="fp32", clip_norm=0.01, **flat)
        out = tmp_path / str(length)
        out.mkdir()
        loop.fit(replace(TASK, train_batches=one_window), chosen, prepared_text, out, Worker(CPU))
        torch.manual_seed(0)
        before, after = build_model(chosen, prepared_text.manifest), build_model(chosen, prepared_text.manifest)
        model_files.load_weights(after, out)
        pairs = zip(before.parameters(), after.parameters(), strict=True)
        moved[length] = torch.cat([(a - b).flatten() for a, b in pairs]).norm().item()
    assert moved[10] == pytest.approx(0.01, rel=1e-3)
    assert moved[5] == pytest.approx(0.005, rel=1e-3)


def test_training_learns_what_comes_next(trained):
    _, metrics = trained
    assert metrics[-1]["val/loss"] < 0.5 * np.log(27)
    assert metrics[-1]["val/perplexity"] == pytest.approx(np.exp(metrics[-1]["val/loss"]))


def measured(model, prepared_text, size: int, window: int, split: str = "test") -> float:
    """Return the mean loss of evaluation, made to compute `window` positions at once."""
    chosen = values(evaluate={"batch_size": size})
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(train, "POSITIONS", window)
        found = inference.evaluate(TASK, chosen, model, load_split(prepared_text.folder, split), CPU, size)
        predicted = inference.predict(
            TASK, chosen, model, load_split(prepared_text.folder, split), CPU, Path(folder)
        )
        losses = torch.cat([each["loss"].flatten() for each in predicted])
    assert losses[~losses.isnan()].double().mean().item() == pytest.approx(found["loss"], rel=1e-6)
    return found["loss"]


def test_no_batch_or_window_changes_the_perplexity(trained, prepared_text):
    model, _ = trained
    found = [measured(model, prepared_text, size, window) for size in (1, 20) for window in (35, 70)]
    assert found == pytest.approx([found[0]] * 4, rel=1e-6)


def test_segments_side_by_side_measure_what_one_pass_over_the_text_does(trained, prepared_text):
    model, _ = trained
    tokens = load_split(prepared_text.folder, "train")["tokens"].to(torch.int64)
    assert len(tokens) > 3 * train.SEGMENT
    with torch.inference_mode():
        logits, _ = model(tokens[None, :-1])
    expected = F.cross_entropy(logits[0].double(), tokens[1:]).item()
    assert measured(model, prepared_text, 2, 64, "train") == pytest.approx(expected, rel=1e-6)


def test_a_loss_that_is_no_number_is_not_passed_over(prepared_text):
    model = build_model(params(), prepared_text.manifest).eval()
    model.output.bias.data[0] = torch.nan
    found = inference.evaluate(TASK, values(), model, load_split(prepared_text.folder, "test"), CPU, 2)
    assert np.isnan(found["loss"])


def test_every_token_but_the_first_is_scored_once(prepared_text):
    tokens = load_split(prepared_text.folder, "train")["tokens"].to(torch.int64)
    batches = train.segments(load_split(prepared_text.folder, "train"), 3)
    targets = torch.cat([batches[i]["target"].flatten() for i in range(len(batches))])
    assert torch.equal(targets[targets != train.IGNORED], tokens[1:])


def test_validation_on_part_of_a_text_takes_its_beginning(prepared_text):
    whole = load_split(prepared_text.folder, "val")
    assert torch.equal(train.beginning(whole, 100)["tokens"], whole["tokens"][:100])
    assert len(train.beginning(whole, 10**9)) == len(whole)
    model = build_model(params(), prepared_text.manifest).eval()
    least = train.beginning(whole, 1)  # of one token none is scored
    assert np.isfinite(inference.evaluate(TASK, values(), model, least, CPU, 2)["loss"])


@pytest.mark.long
def test_wikitexts_perplexity_is_the_same_at_batch_1_and_20_and_window_35_and_70(tmp_path):
    valid, test = (DATASETS / "wikitext-2" / f"wiki.{name}.tokens" for name in ("valid", "test"))
    if not valid.exists():
        pytest.skip(f"{DATASETS} is not here")
    files = {name: file.read_text() for name, file in (("train.txt", valid), ("test.txt", test))}
    files = {"train.txt": files["train.txt"], "valid.txt": "a b\n", "test.txt": files["test.txt"][:120_000]}
    prepared_text = prepared(tmp_path / "text", files, prepare=tokenizer("word", vocabulary=2000))
    chosen = params(batch_size=64, window=35, epochs=1, model={**SMALL, "tie": True})
    out = tmp_path / "model"
    out.mkdir()
    loop.fit(TASK, chosen, prepared_text, out, Worker(CPU))
    model = build_model(chosen, prepared_text.manifest)
    model_files.load_weights(model, out)
    found = [np.exp(measured(model.eval(), prepared_text, size, window)) for size in (1, 20) for window in (35, 70)]
    assert found == pytest.approx([found[0]] * 4, rel=1e-6)
    assert found[0] < 700  # two thousand words at random
