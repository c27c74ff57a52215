import csv
import json
import math

import numpy as np
import pytest
import torch
from mlflow.utils.validation import _validate_metric_name
from PIL import Image
from torch import nn

from components.contracts import Prepared
from components.errors import PedigreeError
from components.language import TASK, evaluate
from tests.language.values import prepared, tokenizer, values

TRAIN = "the cat sat on the mat.\n" * 30 + "\n\nA dog ran after it.\n\n" * 4
TEST = "the cat sat.\n\n\nA cat ran on a dog, $\\x.\nit sat\n"
KINDS = ("char", "word", "bpe")


def prepare(folder, kind, test=TEST, train=TRAIN) -> Prepared:
    files = {"train.txt": train, "valid.txt": TRAIN, "test.txt": test}
    return prepared(folder, files, prepare=tokenizer(kind))


def tokens_of(data: Prepared) -> list[int]:
    return TASK.load_split(data.folder, "test")["tokens"].numpy().tolist()


def network(data: Prepared) -> nn.Module:
    torch.manual_seed(0)
    params = values(train={"model": {"embedding": 8, "hidden": 8, "layers": 1}})
    return TASK.build_model(params, data.manifest).eval()


def run(folder, data: Prepared, losses, **options):
    """Evaluate with these losses of the tokens from the second on; return the metrics and the folder."""
    out = folder / "out"
    for name in ("plots", "examples"):
        (out / name).mkdir(parents=True)
    loss = losses if isinstance(losses, torch.Tensor) else torch.tensor([losses], dtype=torch.float32)
    params = values(evaluate={"bootstrap": 200, **options})
    return TASK.evaluate(network(data), {"loss": loss}, data, out, params), out


def lines(out) -> list[tuple[int, int, float]]:
    with (out / "examples/lines.csv").open(newline="", encoding="utf-8") as file:
        return [(int(row["line"]), int(row["tokens"]), float(row["loss"])) for row in csv.DictReader(file)]


def surprising(out) -> list[dict]:
    return json.loads((out / "examples/surprising.json").read_text())


def test_loss_perplexity_and_bits_are_those_of_every_token_but_the_first(tmp_path):
    metrics, _ = run(tmp_path, prepare(tmp_path, "char", test="acat\n"), [1.0, 2.0, 4.0, 1.0])
    assert metrics["tokens"] == 4
    assert metrics["loss"] == 2
    assert metrics["perplexity"] == pytest.approx(math.e**2)
    assert metrics["bits_per_character"] == pytest.approx(8 / math.log(2) / 4)
    assert metrics["unknown_share"] == 0


@pytest.mark.parametrize(("kind", "first"), [("char", 1), ("word", 3), ("bpe", 3)])
def test_bits_are_shared_among_the_characters_that_the_scored_tokens_stand_for(tmp_path, kind, first):
    data = prepare(tmp_path, kind)
    count = len(tokens_of(data)) - 1
    metrics, _ = run(tmp_path, data, [0.5] * count)
    assert metrics["tokens"] == count
    assert metrics["bits_per_character"] == pytest.approx(0.5 * count / math.log(2) / (len(TEST) - first))


def test_positions_that_are_not_scored_count_for_nothing(tmp_path):
    data, nan = prepare(tmp_path, "char", test="acatmat\n"), math.nan
    loss = torch.tensor([[1, 2, 3, nan, nan], [nan, nan, 4, 5, 6], [nan, 7, nan, nan, nan]])
    metrics, out = run(tmp_path, data, loss)
    assert metrics["loss"] == 4
    assert lines(out) == [(1, 7, 4.0)]


def test_the_measured_loss_is_that_of_training_s_validation(tmp_path):
    data, params = prepare(tmp_path, "bpe", test=TEST * 30), values()
    split, model = TASK.load_split(data.folder, "test"), network(data)
    batches = TASK.eval_batches(split, 2)
    with torch.inference_mode():
        outputs = [TASK.step(model, batch, params) for batch in batches]
        loss = torch.cat([TASK.predict(model, batch)["loss"] for batch in batches])
    sums = {"loss": sum(float(output.sums["loss"]) for output in outputs)}
    expected = TASK.metrics(sums, sum(output.count for output in outputs))
    metrics, _ = run(tmp_path, data, loss)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


def test_loss_is_told_by_how_often_training_has_the_token(tmp_path):
    data = prepare(tmp_path, "char", train="a" * 12 + "b" * 3 + "c" * 100, test="babz" + "ca")
    metrics, _ = run(tmp_path, data, [2.0, 3.0, 9.0, 1.0, 4.0])
    bands = {name: value for name, value in metrics.items() if "/" in name}
    assert bands == {"loss/seen 0": 9, "loss/seen 1-9": 3, "loss/seen 10-99": 3, "loss/seen 100-999": 1}
    assert metrics["unknown_share"] == 1 / 5
    for name in metrics:
        _validate_metric_name(f"test/{name}")


def test_an_unknown_first_token_is_no_part_of_the_share_of_unknown_ones(tmp_path):
    metrics, _ = run(tmp_path, prepare(tmp_path, "word", test="zebra the zebra sat on"), [1.0, 1.0, 1.0, 1.0])
    assert metrics["unknown_share"] == 1 / 4


def test_loss_is_told_by_the_place_in_the_line(tmp_path):
    data = prepare(tmp_path, "char", test="acats\nat\ncatsatonamat")
    losses = [2, 3, 4, 5, 6, *(1, 2, 3), *range(1, 13)]  # a token's place in its line
    text = evaluate.scored(np.array(tokens_of(data)), torch.tensor(losses).float(), list("?\n") + ["x"] * 99)
    # The vocabulary by frequency is not "<unk>", "\n", …, so say which number is the line's end.
    end = tokens_of(data)[5]
    pieces = ["\n" if number == end else "x" for number in range(100)]
    text = evaluate.scored(np.array(tokens_of(data)), torch.tensor(losses).float(), pieces)
    bands = evaluate.by_position(text)
    assert bands.names == ["1", "2", "3", "4", "5-6", "7-8", "9-12"]
    assert bands.count == [2, 3, 3, 2, 4, 2, 4]
    assert bands.loss == [1, 2, 3, 4, 5.5, 7.5, 10.5]


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_looked_at_in_small_pieces_gives_the_same_bytes(tmp_path, kind, monkeypatch):
    data = prepare(tmp_path, kind)
    losses = np.random.default_rng(0).exponential(2, len(tokens_of(data)) - 1).tolist()
    whole, first = run(tmp_path / "a", data, losses)
    monkeypatch.setattr(evaluate, "CHUNK", 3)
    pieces, second = run(tmp_path / "b", data, losses)
    assert pieces == pytest.approx(whole)
    files = sorted(path.relative_to(first) for path in first.rglob("*.*"))
    assert len(files) == 6
    assert [(first / file).read_bytes() for file in files] == [(second / file).read_bytes() for file in files]


def test_the_interval_holds_the_perplexity_and_is_a_point_when_all_losses_are_equal(tmp_path):
    data = prepare(tmp_path, "char", test="acat" * 1000)
    losses = np.random.default_rng(0).exponential(2, 3999)
    metrics, _ = run(tmp_path / "a", data, losses.tolist())
    assert metrics["perplexity_low"] < metrics["perplexity"] < metrics["perplexity_high"]
    equal, _ = run(tmp_path / "b", data, [0.5] * 3999)
    assert {equal[f"perplexity{end}"] for end in ("", "_low", "_high")} == {pytest.approx(math.e**0.5)}


def test_the_interval_is_wider_where_hard_tokens_stand_together(tmp_path):
    data = prepare(tmp_path, "char", test="acat" * 1000)
    losses = np.random.default_rng(0).exponential(2, 3999)
    together, _ = run(tmp_path / "a", data, np.sort(losses).tolist())
    mixed, _ = run(tmp_path / "b", data, losses.tolist())
    assert together["perplexity"] == pytest.approx(mixed["perplexity"])
    width = [metrics["perplexity_high"] - metrics["perplexity_low"] for metrics in (together, mixed)]
    assert width[0] > 3 * width[1]


@pytest.mark.parametrize("count", [1, 2, 19, 20, 21, 399])
def test_a_short_text_is_measured_too(tmp_path, count):
    data = prepare(tmp_path, "char", test="acat" * 100)
    text = evaluate.scored(np.array(tokens_of(data)[: count + 1]), torch.arange(count).float(), ["x"] * 99)
    metrics = evaluate.measure(text, count + 1, None, values().evaluate)
    assert metrics["loss"] == pytest.approx((count - 1) / 2)
    assert metrics["perplexity_low"] <= metrics["perplexity"] <= metrics["perplexity_high"]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_network_that_diverged_is_refused(tmp_path, broken):
    with pytest.raises(PedigreeError) as error:
        run(tmp_path, prepare(tmp_path, "char", test="acat\n"), [1.0, broken, broken, 1.0])
    assert str(error.value) == (
        "the network's losses for 2 of 4 test tokens are not finite numbers: the training diverged, "
        "so train again with a lower train.optimizer.lr"
    )


def test_a_perplexity_beyond_all_floats_is_a_number_still(tmp_path):
    metrics, _ = run(tmp_path, prepare(tmp_path, "char", test="acat\n"), [1e4] * 4)
    assert metrics["perplexity"] == metrics["perplexity_high"] == math.exp(700)


@pytest.mark.parametrize("kind", KINDS)
def test_each_line_has_its_number_in_the_file_and_its_mean_loss(tmp_path, kind):
    data = prepare(tmp_path, kind)
    losses = np.random.default_rng(0).exponential(2, len(tokens_of(data)) - 1)
    metrics, out = run(tmp_path, data, losses.tolist())
    found = lines(out)
    # "\n\n\n" is three words or characters, each with a line of its own, and one byte pair.
    assert [number for number, _, _ in found] == ([1, 4, 5] if kind == "bpe" else [1, 2, 3, 4, 5])
    assert sum(count for _, count, _ in found) == metrics["tokens"]
    assert sum(count * loss for _, count, loss in found) == pytest.approx(losses.sum(), rel=1e-5)
    first = found[0][1]
    assert found[0][2] == pytest.approx(losses[:first].mean(), abs=1e-5)
    assert found[1][2] == pytest.approx(losses[first:][: found[1][1]].mean(), abs=1e-5)


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_a_surprising_line_reads_as_in_the_file(tmp_path, kind):
    data = prepare(tmp_path, kind)
    _, out = run(tmp_path, data, np.random.default_rng(0).exponential(2, len(tokens_of(data)) - 1).tolist())
    found = surprising(out)
    in_file = TEST.split("\n")
    expected = [number for number, count, _ in lines(out) if count >= 5]
    assert sorted(row["line"] for row in found) == expected
    for row in found:
        # Characters that training lacks are the unknown one.
        shown = in_file[row["line"] - 1]
        assert row["text"] == (shown if kind == "bpe" else "".join(c if c in TRAIN else "<unk>" for c in shown))


def test_the_most_surprising_lines_come_first_with_their_most_surprising_token(tmp_path):
    data = prepare(tmp_path, "word", test="the cat sat on it\nthe dog ran after the cat\non it\nA cat sat on the dog\n")
    losses = [1.0, 2.0, 3.0, 4.0, 5.0, *[2.0] * 5, 9.0, 2.0, *[50.0] * 3, *[7.0] * 2, 8.0, *[7.0] * 4]
    _, out = run(tmp_path, data, losses)
    assert surprising(out) == [
        {
            "line": 4,
            "text": "A cat sat on the dog",
            "tokens": 7,
            "loss": 7.142857,
            "most_surprising": {"token": "sat", "loss": 8.0},
        },
        {
            "line": 1,
            "text": "the cat sat on it",
            "tokens": 5,
            "loss": 3.0,
            "most_surprising": {"token": "\n", "loss": 5.0},
        },
        {
            "line": 2,
            "text": "the dog ran after the cat",
            "tokens": 7,
            "loss": 3.0,
            "most_surprising": {"token": "cat", "loss": 9.0},
        },
    ]


def test_a_hundred_surprising_lines_are_listed_and_a_long_one_is_cut(tmp_path):
    data = prepare(tmp_path, "char", test="the mat\n" * 120 + "acat" * 500)
    count = len(tokens_of(data)) - 1
    _, out = run(tmp_path, data, torch.arange(count).float())
    found = surprising(out)
    assert [row["line"] for row in found] == list(range(121, 21, -1))
    assert found[0]["text"] == "acat" * 100 + "…"
    assert found[0]["tokens"] == 2000


@pytest.mark.parametrize("kind", KINDS)
def test_samples_go_on_from_the_text_s_first_words_at_three_temperatures(tmp_path, kind):
    data = prepare(tmp_path, kind)
    _, out = run(tmp_path, data, [1.0] * (len(tokens_of(data)) - 1))
    samples = (out / "examples/samples.md").read_text()
    assert [line for line in samples.split("\n") if line.startswith("#")] == [
        "# Samples",
        *(f"## Temperature {temperature}" for temperature in (0.5, 0.8, 1.0)),
    ]
    assert samples.count("\n    the cat sat.") == 4 if kind != "word" else samples.count("\n    the cat <unk>") == 4
    # What is written is set in by four blanks: no letter of it is taken as Markdown.
    body = [line for line in samples.split("\n")[3:] if line and not line.startswith("## ")]
    assert all(line.startswith("    ") for line in body)


def test_a_sample_s_prompt_is_cut_between_words():
    assert evaluate._prompt("\n \n one two\nthree") == "one two"
    assert evaluate._prompt("word " * 40) == ("word " * 12).rstrip()
    assert evaluate._prompt("x" * 100) == "x" * 60
    assert evaluate._prompt(" \n\n") == ""


def dark_red(picture) -> int:
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    return int((pixels == (128, 0, 38)).all(1).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_the_passage_is_darkest_where_the_network_is_most_surprised(tmp_path, kind):
    data = prepare(tmp_path, kind)
    count = len(tokens_of(data)) - 1
    _, calm = run(tmp_path / "a", data, [0.1] * count)
    _, surprised = run(tmp_path / "b", data, [99.0] * (count // 2) + [0.1] * (count - count // 2))
    pictures = [out / "plots/surprise.png" for out in (calm, surprised)]
    assert dark_red(pictures[1]) > 2 * dark_red(pictures[0])  # the scale itself has that colour


def test_a_long_text_without_line_ends_is_drawn_to_the_last_row(tmp_path):
    data = prepare(tmp_path, "word", test="the cat sat on the mat. " * 3000 + "x" * 200)
    _, out = run(tmp_path, data, [1.0] * (len(tokens_of(data)) - 1))
    with Image.open(out / "plots/surprise.png") as image:
        assert image.size == (1248, 580)


def test_the_data_s_note_is_drawn_above_every_figure(tmp_path):
    data = prepare(tmp_path, "char", test="acat\n")
    noted = Prepared(data.folder, data.manifest.model_copy(update={"note": "costs $1 and $2, \\alpha"}))
    _, plain = run(tmp_path / "a", data, [1.0] * 4)
    _, other = run(tmp_path / "b", noted, [1.0] * 4)
    names = sorted(path.name for path in (plain / "plots").iterdir())
    assert names == ["frequency.png", "position.png", "surprise.png"]
    for name in names:
        assert (plain / "plots" / name).read_bytes() != (other / "plots" / name).read_bytes()
