import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow.utils.validation import _validate_metric_name
from PIL import Image
from torch import Tensor, nn

from components import figures
from components.contracts import Prepared, Rejected
from components.errors import PedigreeError
from components.tasks.language_model import TASK, evaluate, pictures
from components.tasks.language_model.prepare import LanguageFacts
from components.text import alignment, tokens
from components.trust.intervals import interval, value
from tests.tasks.language_model.values import prepared, tokenizer, values

TRAIN = "the cat sat on the mat.\n" * 30 + "\n\nA dog ran after it.\n\n" * 4
TEST = "the cat sat.\n\n\nA cat ran on a dog, $\\x.\nit sat\n"
KINDS = ("char", "word", "bpe")
PARAMS = values(train={"model": {"embedding": 8, "hidden": 8, "layers": 1}})


def prepare(folder: Path, kind: str, test: str = TEST, train: str = TRAIN) -> Prepared:
    files = {"train.txt": train, "valid.txt": TRAIN[::-1], "test.txt": test}
    return prepared(folder, files, prepare=tokenizer(kind))


def ids_of(data: Prepared) -> np.ndarray:
    return TASK.load_split(data.folder, "test")["tokens"].numpy()


def some_losses(data: Prepared) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).exponential(2, len(ids_of(data)) - 1)).float()


def network(data: Prepared) -> nn.Module:
    torch.manual_seed(0)
    return TASK.build_model(PARAMS, data.manifest).eval()


def run(out: Path, data: Prepared, losses: Tensor) -> dict[str, float]:
    for name in ("plots", "examples"):
        (out / name).mkdir(parents=True)
    return TASK.evaluate(network(data), [{"loss": losses}], data, out, PARAMS)


def text_of(data: Prepared, losses: Tensor | Sequence[float]) -> evaluate.Scored:
    facts = LanguageFacts.model_validate(data.manifest.facts)
    pieces = tokens.pieces(tokens.load(facts.tokenizer), range(facts.vocabulary))
    return evaluate.scored(ids_of(data), [{"loss": torch.as_tensor(losses, dtype=torch.float32)}], pieces)


def measured(data: Prepared, losses: Tensor | Sequence[float]) -> dict[str, float]:
    """Return the metrics of the text as a whole; draw and write nothing."""
    facts = LanguageFacts.model_validate(data.manifest.facts)
    unknown = tokens.unknown_id(tokens.load(facts.tokenizer))
    return evaluate.measure(text_of(data, losses), facts.characters["test"], unknown)


def lines(folder: Path) -> list[tuple[int, int, float]]:
    with (folder / "lines.csv").open(newline="", encoding="utf-8") as file:
        return [(int(row["line"]), int(row["tokens"]), float(row["loss"])) for row in csv.DictReader(file)]


def most_surprising(folder: Path, data: Prepared, losses: Tensor | Sequence[float]) -> list[dict]:
    facts = LanguageFacts.model_validate(data.manifest.facts)
    evaluate.write_lines(text_of(data, losses), tokens.load(facts.tokenizer), folder)
    return json.loads((folder / "surprising.json").read_text())


@dataclass(frozen=True)
class Evaluation:
    kind: str
    data: Prepared
    losses: Tensor
    metrics: dict[str, float]
    out: Path


@pytest.fixture(scope="module", params=KINDS)
def evaluation(request, tmp_path_factory) -> Evaluation:
    folder = tmp_path_factory.mktemp(request.param)
    data = prepare(folder, request.param)
    losses = some_losses(data)
    return Evaluation(request.param, data, losses, run(folder / "out", data, losses), folder / "out")


def test_loss_perplexity_and_bits_are_those_of_every_token_but_the_first(tmp_path):
    metrics = measured(prepare(tmp_path, "char", test="acat\n"), [1.0, 2.0, 4.0, 1.0])
    assert metrics["tokens"] == 4
    assert metrics["loss"] == 2
    assert metrics["perplexity"] == pytest.approx(math.e**2)
    assert metrics["bits_per_character"] == pytest.approx(8 / math.log(2) / 4)
    assert metrics["unknown_share"] == 0


def test_bits_are_shared_among_the_characters_that_the_scored_tokens_stand_for(evaluation):
    first = 1 if evaluation.kind == "char" else len("the")
    bits = float(evaluation.losses.double().sum()) / math.log(2)
    assert evaluation.metrics["tokens"] == len(evaluation.losses)
    assert evaluation.metrics["bits_per_character"] == pytest.approx(bits / (len(TEST) - first))


def test_positions_that_are_not_scored_count_for_nothing(tmp_path):
    data, nan = prepare(tmp_path, "char", test="acatmat\n"), math.nan
    losses = torch.tensor([[1, 2, 3, nan, nan], [nan, nan, 4, 5, 6], [nan, 7, nan, nan, nan]])
    assert measured(data, losses)["loss"] == 4
    assert text_of(data, losses).loss.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_the_measured_loss_is_that_of_training_s_validation(tmp_path):
    data = prepare(tmp_path, "bpe", test=TEST * 30)
    split, model = TASK.load_split(data.folder, "test"), network(data)
    batches = TASK.eval_batches(split, 2)
    with torch.inference_mode():
        outputs = [TASK.step(model, batches[index], PARAMS) for index in range(len(batches))]
        losses = [TASK.predict(model, batches[index], PARAMS)["loss"] for index in range(len(batches))]
    sums = {"loss": sum(output.loss for output in outputs)}
    expected = TASK.metrics(sums, int(sum(output.count for output in outputs)))
    assert expected.keys() == TASK.better.keys()
    metrics = measured(data, torch.cat(losses))
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


def test_loss_is_reported_by_how_often_training_has_the_token(tmp_path):
    data = prepare(tmp_path, "char", train="a" * 12 + "b" * 3 + "c" * 100, test="babzca")
    counts = np.load(data.folder / "counts.npy")
    bands = evaluate.by_frequency(text_of(data, [2.0, 3.0, 9.0, 1.0, 4.0]), counts)
    assert bands == pictures.Bands(["0", "1-9", "10-99", "100-999"], [1, 1, 2, 1], [9, 3, 3, 1])
    assert measured(data, [1.0] * 5)["unknown_share"] == 1 / 5


def test_the_metrics_have_names_that_mlflow_takes_and_the_score_its_interval(evaluation):
    assert any(name.startswith("loss/seen ") for name in evaluation.metrics)
    assert TASK.score(evaluation.data.manifest).name in evaluation.metrics
    for name, measure in evaluation.metrics.items():
        _validate_metric_name(f"test/{name}")
        assert math.isfinite(measure)


def test_a_token_that_training_has_more_than_a_million_times_has_a_band(tmp_path):
    data = prepare(tmp_path, "char", test="acat")
    counts = np.full(100, 5_000_000)
    assert evaluate.by_frequency(text_of(data, [1.0] * 3), counts).names == ["1000000 or more"]


def test_an_unknown_first_token_is_no_part_of_the_share_of_unknown_ones(tmp_path):
    data = prepare(tmp_path, "word", test="zebra the zebra sat on")
    assert measured(data, [1.0] * 4)["unknown_share"] == 1 / 4


def test_loss_is_reported_by_the_place_in_the_line(tmp_path):
    data = prepare(tmp_path, "char", test="acats\nat\ncatsatonamat")
    losses = [2, 3, 4, 5, 6, *(1, 2, 3), *range(1, 13)]  # of each token, its place in its line
    bands = evaluate.by_position(text_of(data, losses))
    assert bands.names == ["1", "2", "3", "4", "5-6", "7-8", "9-12"]
    assert bands.count == [2, 3, 3, 2, 4, 2, 4]
    assert bands.loss == [1, 2, 3, 4, 5.5, 7.5, 10.5]


@pytest.mark.parametrize("evaluation", ["bpe"], indirect=True)  # the kind whose tokens end several lines
def test_a_text_looked_at_in_small_pieces_gives_the_same_bytes(evaluation, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "CHUNK", 3)
    assert run(tmp_path, evaluation.data, evaluation.losses) == pytest.approx(evaluation.metrics)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert [str(file) for file in files] == [
        *(f"examples/{name}" for name in ("lines.csv", "samples.md", "surprising.json")),
        *(f"plots/{name}.png" for name in ("frequency", "position", "surprise")),
    ]
    for file in files:
        assert (tmp_path / file).read_bytes() == (evaluation.out / file).read_bytes()


def outcomes(data, losses):
    return evaluate.outcomes([{"loss": torch.as_tensor(losses, dtype=torch.float32)}], data, PARAMS)


def bounds(data, losses):
    """Return the perplexity and the ends of its interval."""
    found, score = outcomes(data, losses), TASK.score(data.manifest)
    return (value(found, score), *interval(found, score))


def test_the_interval_holds_the_perplexity_and_is_a_point_when_all_losses_are_equal(tmp_path):
    data = prepare(tmp_path, "char", test="acat" * 1000)
    perplexity, low, high = bounds(data, some_losses(data))
    assert low < perplexity < high
    assert bounds(data, [0.5] * 3999) == (math.exp(0.5),) * 3


def test_the_interval_is_wider_where_hard_tokens_stand_together(tmp_path):
    data = prepare(tmp_path, "char", test="acat" * 1000)
    mixed, together = bounds(data, some_losses(data)), bounds(data, some_losses(data).sort().values)
    assert together[0] == pytest.approx(mixed[0])
    assert math.log(together[2] / together[1]) > 3 * math.log(mixed[2] / mixed[1])


def test_outcomes_are_the_nats_of_blocks_that_together_are_the_text(tmp_path):
    data = prepare(tmp_path, "char", test="acat" * 1000)
    found, losses = outcomes(data, some_losses(data)), some_losses(data).double().numpy()
    assert found.columns["tokens"].sum() == 3999
    assert found.samples[:1] + found.samples[-1:] == ["tokens 2-200", "tokens 3801-4000"]
    assert found.columns["nats"][[0, -1]] == pytest.approx([losses[:199].sum(), losses[-200:].sum()])
    assert value(found, TASK.score(data.manifest)) == pytest.approx(measured(data, losses)["perplexity"])


def test_predictions_in_many_batches_are_those_of_one(tmp_path):
    data = prepare(tmp_path, "char", test="acat" * 1000)
    losses = some_losses(data)
    found = evaluate.outcomes(({"loss": part} for part in losses.split(77)), data, PARAMS)
    expected = outcomes(data, losses)
    assert found.samples == expected.samples
    for name, column in expected.columns.items():
        assert found.columns[name].tolist() == column.tolist()


@pytest.mark.parametrize("count", [1, 2, 19, 20, 21, 399])
def test_a_short_text_is_measured_too(tmp_path, count):
    metrics = measured(prepare(tmp_path, "char", test=("acat" * 101)[: count + 1]), range(count))
    assert metrics["loss"] == pytest.approx((count - 1) / 2)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_network_that_diverged_is_rejected(tmp_path, broken):
    with pytest.raises(PedigreeError) as error:
        measured(prepare(tmp_path, "char", test="acat\n"), [1.0, broken, broken, 1.0])
    assert str(error.value) == (
        "the network's losses for 2 of 4 test tokens are not finite numbers: the training diverged, "
        "so train again with a lower train.optimizer.lr"
    )


def test_a_perplexity_beyond_all_floats_is_a_number_still(tmp_path):
    metrics = measured(prepare(tmp_path, "char", test="acat\n"), [1e4] * 4)
    assert metrics["perplexity"] == math.exp(700)


def test_each_line_has_its_number_in_the_file_and_its_mean_loss(evaluation):
    found, losses = lines(evaluation.out / "examples"), evaluation.losses
    # Of byte pairs, one ends the first line and the second, and so no token begins in the second.
    assert [number for number, _, _ in found] == ([1, 3, 4, 5] if evaluation.kind == "bpe" else [1, 2, 3, 4, 5])
    counts = [count for _, count, _ in found]
    assert sum(counts) == len(losses)
    for (_, _, loss), part in zip(found, losses.split(counts), strict=True):
        assert loss == pytest.approx(float(part.mean()), abs=1e-5)


def test_a_surprising_line_reads_as_in_the_file(evaluation):
    found = json.loads((evaluation.out / "examples/surprising.json").read_text())
    assert sorted(row["line"] for row in found) == [
        number for number, count, _ in lines(evaluation.out / "examples") if count >= 5
    ]
    shown = {row["line"]: row["text"] for row in found}
    assert (
        shown[4]
        == {
            "char": "A cat ran on a dog<unk> <unk><unk><unk>.",
            "word": "A cat ran on <unk> dog <unk> <unk> <unk> <unk>.",
            "bpe": TEST.split("\n")[3],
        }[evaluation.kind]
    )


def test_the_most_surprising_lines_come_first_with_their_most_surprising_token(tmp_path):
    data = prepare(
        tmp_path, "word", test="the cat sat on the\nA dog ran after the cat\non the\nA cat sat on the mat.\n"
    )
    losses = [1, 2, 3, 4, 5, *[2] * 5, 9, 2, *[50] * 3, 7, 7, 8, 7, 7, 7, 7, 7]
    assert most_surprising(tmp_path, data, losses) == [
        {
            "line": 4,
            "text": "A cat sat on the mat.",
            "tokens": 8,
            "loss": 7.125,
            "most_surprising": {"token": "sat", "loss": 8.0},
        },
        {
            "line": 1,
            "text": "the cat sat on the",
            "tokens": 5,
            "loss": 3.0,
            "most_surprising": {"token": "\n", "loss": 5.0},
        },
        {
            "line": 2,
            "text": "A dog ran after the cat",
            "tokens": 7,
            "loss": 3.0,
            "most_surprising": {"token": "cat", "loss": 9.0},
        },
    ]


def test_a_hundred_surprising_lines_are_listed_and_a_long_one_is_cut(tmp_path):
    data = prepare(tmp_path, "char", test="the mat\n" * 120 + "acat" * 500)
    found = most_surprising(tmp_path, data, range(len(ids_of(data)) - 1))
    assert [row["line"] for row in found] == list(range(121, 21, -1))
    assert (found[0]["text"], found[0]["tokens"]) == ("acat" * 100 + "…", 2000)


def test_samples_go_on_from_the_text_s_first_words_at_three_temperatures(evaluation):
    samples = (evaluation.out / "examples/samples.md").read_text()
    headings, indented, others = [], [], []
    for line in filter(None, samples.split("\n")):
        (headings if line[0] == "#" else indented if line.startswith("    ") else others).append(line)
    assert headings == ["# Samples", *(f"## Temperature {value}" for value in (0.5, 0.8, 1.0))]
    # What is written is set in by four blanks: no letter of it is taken as Markdown.
    assert others == ["The network's continuations of the test text's beginning, with seed 0:"]
    assert sum(line.startswith(f"    {indented[0].strip()}") for line in indented) == 4
    assert indented[0] == "    the cat sat."


def test_a_sample_s_prompt_is_cut_between_words():
    assert evaluate._prompt("\n \n one two\nthree") == "one two"
    assert evaluate._prompt("word " * 40) == ("word " * 12).rstrip()
    assert evaluate._prompt("x" * 100) == "x" * 60
    assert evaluate._prompt(" \n\n") == ""


def drawn(path: Path, pieces: Sequence[str], losses: Sequence[float]) -> np.ndarray:
    figures.save(pictures.passage(zip(pieces, losses, strict=True), chance=4.0), path)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_the_passage_is_darkest_where_the_network_is_most_surprised(tmp_path):
    losses = [math.nan, *[0.0] * 20, *[4.0] * 20]
    pixels = drawn(tmp_path / "a.png", ["word"] * 41, losses)  # 20 words fill a row
    height = len(pixels)
    shares = [
        (pixels == colour).all(2)[:, : pixels.shape[1] * 9 // 10] for colour in ((255, 255, 204), (128, 0, 38))
    ]
    centres = [np.flatnonzero(share.any(1)).mean() / height for share in shares]
    assert centres[0] < centres[1]  # pale rows above, dark rows below
    assert [share.mean() > 0.1 for share in shares] == [True, True]


def test_the_end_of_the_scale_is_pure_chance_however_small_the_losses_are(tmp_path):
    pixels = drawn(tmp_path / "a.png", ["word"] * 40, [math.nan, *[2.0] * 39])
    assert not (pixels == (128, 0, 38)).all(2)[:, : pixels.shape[1] * 9 // 10].any()


def test_the_passage_reads_as_the_text_and_its_first_token_has_no_loss(evaluation):
    tokenizer = tokens.load(evaluation.data.manifest.facts["tokenizer"])
    shown = list(evaluate._shown(text_of(evaluation.data, evaluation.losses), tokenizer))
    assert math.isnan(shown[0][1])
    assert [loss for _, loss in shown[1:]] == evaluation.losses.tolist()
    assert "".join(piece for piece, _ in shown).startswith(
        {"char": "the cat sat.\n\n\nA", "word": "the cat sat.\n\n\nA cat", "bpe": TEST}[evaluation.kind]
    )


def test_the_passage_ends_with_its_last_row_whatever_the_text_holds(tmp_path):
    odd = ["$", "\\frac", "\x00", "\t", "\u4e2d", "\ufffd", "x" * 300, "\n", " " * 200]
    assert drawn(tmp_path / "a.png", odd * 100, [1.0] * 900).shape == (580, 1248, 3)
    assert drawn(tmp_path / "b.png", ["\n"] * 100, [1.0] * 100).shape == (580, 1248, 3)


@pytest.mark.parametrize("evaluation", ["char"], indirect=True)
def test_the_data_s_note_is_drawn_above_every_figure_as_it_is_written(evaluation, tmp_path):
    noted = evaluation.data.manifest.model_copy(update={"note": "costs $1 and \\frac$2"})
    run(tmp_path, Prepared(evaluation.data.folder, noted), evaluation.losses)
    drawn = [*(tmp_path / "plots").iterdir()]
    assert drawn
    for file in drawn:
        with Image.open(file) as image, Image.open(evaluation.out / "plots" / file.name) as plain:
            assert image.size == plain.size
            assert image.tobytes() != plain.tobytes()


def answered(text: Sequence[str], nats: Sequence[float]) -> dict:
    return {"continuation": "", "tokens": list(text), "log_probabilities": [-each for each in nats]}


def test_a_served_version_is_evaluated_as_its_own_network_was(tmp_path):
    data = prepare(tmp_path, "bpe", TEST * 400)
    model = network(data)
    batches = TASK.eval_batches(TASK.load_split(data.folder, "test"), 2)
    with torch.inference_mode():
        own = TASK.outcomes([TASK.predict(model, batch, PARAMS) for batch in batches], data, PARAMS)
    rows = list(TASK.rows(data, Path))
    assert len(rows) > 2, "the text has several passages, with a warm-up each"
    answers = TASK.load_predict(model, data.manifest, PARAMS)(rows, TASK.row_params)
    found = TASK.outcomes_from(answers, data)
    assert (list(found.samples), found.columns["tokens"].tolist()) == (own.samples, own.columns["tokens"].tolist())
    assert np.allclose(found.columns["nats"], own.columns["nats"], rtol=0.02)
    score = TASK.score(data.manifest)
    assert value(found, score) == pytest.approx(value(own, score), rel=1e-3)


@pytest.mark.parametrize("scripts", ["a\u4e2d", "\u4e2da", "a\u0436", "\u4e2d\u4e2d"])
def test_the_nats_of_another_tokenizer_count_where_its_tokens_end(tmp_path, scripts):
    text = "".join(f"{script * 3} {script * 5}\n" * 300 for script in scripts)  # two passages
    data = prepare(tmp_path, "char", text, f"{text}a")
    rows = list(TASK.rows(data, Path))
    assert len(rows) == 2
    answers = []
    for row in rows:  # as of a tokenizer whose tokens are bytes, with one nat each
        pieces = [
            piece for c in row["text"] for piece in ([c] if c.isascii() else [alignment.LOST] * len(c.encode()))
        ]
        answers.append(answered(pieces[1:], [1] * (len(pieces) - 1)))
    found = TASK.outcomes_from(answers, data).columns
    edges = np.append(0, np.cumsum(found["tokens"])).astype(int) + 1
    expected = [len(text[first:last].encode()) for first, last in pairwise(edges.tolist())]
    assert found["nats"] == pytest.approx(expected, abs=6), "a character's bytes may be on both sides of an edge"


def test_words_are_where_they_are_in_a_text_of_characters(tmp_path):
    text = "ab cd ab cd\n" * 30
    data = prepare(tmp_path, "char", text, f"{text}a")
    (row,) = TASK.rows(data, Path)
    words = row["text"][1:].replace(" ", "|").replace("\n", "|\n|").strip("|").split("|")
    found = TASK.outcomes_from([answered(words, range(len(words)))], data)
    assert found.columns["nats"].sum() == sum(range(len(words)))
    assert np.all(np.diff(found.columns["nats"][::2]) > 0), "later words have more"


def test_tokens_of_another_text_are_a_sentence(tmp_path):
    data = prepare(tmp_path, "bpe")
    with pytest.raises(PedigreeError, match="not those of the test text: 'x' is not where it should be"):
        TASK.outcomes_from([answered(["x"], [1])], data)


@pytest.mark.parametrize("kind", ["char", "word"])
def test_perplexities_are_not_compared_where_unknown_tokens_hide_other_characters(tmp_path, kind):
    data = prepare(tmp_path, kind, "the cat sat on the żółw.\n" * 3)
    (row,) = TASK.rows(data, Path)
    (same,) = TASK.load_predict(network(data), data.manifest, PARAMS)([row], TASK.row_params)
    assert tokens.UNKNOWN in same["tokens"]
    assert sum(TASK.outcomes_from([same], data).columns["tokens"]) == len(ids_of(data)) - 1
    with pytest.raises(PedigreeError, match="<unk> among them hides characters"):
        TASK.outcomes_from([answered(["he", "cat"], [1, 1])], data)


@pytest.mark.parametrize(
    ("answer", "said"),
    [(Rejected("too long"), "rejects the test text: too long"), ({"text": ""}, "have no log-probabilities")],
)
def test_an_answer_without_log_probabilities_is_a_sentence(tmp_path, answer, said):
    with pytest.raises(PedigreeError, match=said):
        TASK.outcomes_from([answer], prepare(tmp_path, "bpe"))
