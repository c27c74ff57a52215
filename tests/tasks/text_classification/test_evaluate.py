"""The outcomes of each text make up the scores, and the written examples say what decided."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from components.contracts import Batch, Prepared, Rejected
from components.datasets.ingest import file_names
from components.errors import PedigreeError
from components.tasks.text_classification import evaluate, train
from components.tasks.text_classification.model import build_model
from components.tasks.text_classification.prepare import TextFacts, load_split, texts_of_test
from components.trust import intervals
from tests import documents
from tests.drawing import draw_only
from tests.tasks.text_classification import tiny
from tests.tasks.text_classification.values import prepared, values

FOREIGN = [(f"nothing number {number}", "oos") for number in range(12)]


def made(folder: Path, rows: list[tuple[str, str]], **options: object) -> Prepared:
    (folder / "raw").mkdir()
    tiny.write_csv(folder / "raw" / "train.csv", rows)
    return prepared(folder, **options)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Prepared:
    return made(tmp_path_factory.mktemp("data"), tiny.rows())


@pytest.fixture(scope="module")
def with_foreign(tmp_path_factory) -> Prepared:
    return made(tmp_path_factory.mktemp("foreign"), [*tiny.rows(), *FOREIGN], out_of_scope="oos")


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> Prepared:
    rows = [(text, f"{label}|red" if "red" in text else label) for text, label in tiny.rows()]
    return made(tmp_path_factory.mktemp("several"), rows, separator="|")


def facts_of(data: Prepared) -> TextFacts:
    return TextFacts.model_validate(data.manifest.facts)


def predictions(data: Prepared, wrong: int = 4) -> list[Batch]:
    """Return sure and right answers, but for every `wrong`th text of a class; texts of none get unsure ones."""
    label = load_split(data.folder, "test")["label"]
    logits = torch.zeros(len(label), len(facts_of(data).classes))
    if label.ndim == 2:
        logits = 4.0 * label - 2
        logits[::wrong] *= -1
        return [{"logits": logits, "label": label, "threshold": torch.full(logits.shape, 0.5).double()}]
    for index, own in enumerate(label.tolist()):
        if own >= 0:
            logits[index, own if index % wrong else (own + 1) % logits.shape[1]] = 2.0 + index / 100
    return [{"logits": part, "label": own} for part, own in zip(logits.split(7), label.split(7), strict=True)]


def evaluated(data: Prepared, out: Path) -> dict[str, float]:
    for name in ("plots", "examples"):
        (out / name).mkdir(parents=True)
    torch.manual_seed(0)
    model = build_model(values(), data.manifest).eval()
    return evaluate.evaluate(model, predictions(data), data, out, values())


def scores_of(data: Prepared) -> dict[str, float]:
    outcomes = evaluate.outcomes(predictions(data), data, values())
    named = [evaluate.score(data.manifest), *evaluate.further_scores(data.manifest)]
    return {each.name: intervals.value(outcomes, each) for each in named}


@pytest.mark.parametrize("name", ["data", "with_foreign", "several"])
def test_the_scores_of_the_outcomes_are_the_metrics(request, name, tmp_path):
    given = request.getfixturevalue(name)
    metrics = evaluated(given, tmp_path)
    for score, value in scores_of(given).items():
        assert metrics[score] == pytest.approx(value, rel=1e-6), score


def test_accuracy_is_the_share_of_right_texts_overall_and_by_length(data, tmp_path):
    metrics = evaluated(data, tmp_path)
    wrong = np.arange(len(texts_of_test(data.folder))) % 4 == 0
    assert metrics["accuracy"] == pytest.approx(1 - wrong.mean())
    short = np.array([len(text.split()) <= 4 for (text,) in texts_of_test(data.folder)])
    assert metrics["accuracy/1-4 words"] == pytest.approx(1 - wrong[short].mean())
    outcomes = evaluate.outcomes(predictions(data), data, values())
    assert {*outcomes.groups["length"]} == {"1-4 words", "5-8 words"}
    assert {*outcomes.groups["class"]} == {*tiny.THINGS}


def test_the_accuracy_of_always_naming_the_most_frequent_class_stands_beside(data, tmp_path):
    counts = facts_of(data).counts
    commonest = max(counts["train"], key=counts["train"].get)
    expected = counts["test"][commonest] / sum(counts["test"].values())
    assert evaluated(data, tmp_path)["accuracy_of_majority"] == pytest.approx(expected)


def test_texts_out_of_scope_count_for_their_detection_and_not_for_accuracy(with_foreign, tmp_path):
    metrics = evaluated(with_foreign, tmp_path)
    label = load_split(with_foreign.folder, "test")["label"]
    assert (label < 0).sum() == facts_of(with_foreign).foreign["test"] == 2
    wrong = np.arange(len(label))[(label >= 0).numpy()] % 4 == 0
    assert metrics["accuracy"] == pytest.approx(1 - wrong.mean())
    assert metrics["out_of_scope_auc"] == 1.0, "theirs are the smallest of the largest probabilities"
    outcomes = evaluate.outcomes(predictions(with_foreign), with_foreign, values())
    (score,) = evaluate.further_scores(with_foreign.manifest)
    flat = replace(outcomes, columns={**outcomes.columns, "confidence": np.full(len(label), 0.5)})
    assert intervals.value(flat, score) == 0.5
    assert outcomes.groups["class"].count("out of scope") == 2
    with (tmp_path / "examples" / "predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == (label >= 0).sum()
    assert (tmp_path / "plots" / "out_of_scope.png").stat().st_size > 5_000


def answers(data: Prepared) -> list[dict[str, object]]:
    classes = facts_of(data).classes
    found = []
    for batch in predictions(data):
        for row in batch["logits"].double():
            if "threshold" in batch:
                probability = dict(zip(classes, row.sigmoid().tolist(), strict=True))
                flagged = [name for name, each in probability.items() if each >= 0.5]
                found.append({"labels": flagged, "probabilities": probability})
            else:
                probability = row.softmax(0)
                found.append({"label": classes[int(row.argmax())], "probability": float(probability.max())})
    return found


@pytest.mark.parametrize("name", ["data", "with_foreign", "several"])
def test_the_answers_of_a_served_version_have_the_same_outcomes(request, name):
    given = request.getfixturevalue(name)
    expected = evaluate.outcomes(predictions(given), given, values())
    found = evaluate.outcomes_from(iter(answers(given)), given)
    assert (found.samples, found.clusters, found.groups) == (expected.samples, expected.clusters, expected.groups)
    for column, rows in expected.columns.items():
        np.testing.assert_allclose(found.columns[column], rows, atol=1e-12)


def test_a_rejected_text_counts_as_wrong_and_an_answer_without_a_label_is_an_error(with_foreign):
    given = answers(with_foreign)
    found = evaluate.outcomes_from([Rejected("no")] * len(given), with_foreign)
    assert evaluate.score(with_foreign.manifest).of(found.columns, np.ones(len(given))) == 0
    (score,) = evaluate.further_scores(with_foreign.manifest)
    assert score.of(found.columns, np.ones(len(given))) == 0
    with pytest.raises(PedigreeError, match="its answers have no column 'label' but word"):
        evaluate.outcomes_from([{"word": "x"}] * len(given), with_foreign)


def test_the_most_confident_mistakes_are_listed_with_their_texts(data, tmp_path):
    evaluated(data, tmp_path)
    rows = json.loads((tmp_path / "examples" / "mistakes.json").read_text())
    known = dict(tiny.rows())
    assert [row["probability"] for row in rows] == sorted((row["probability"] for row in rows), reverse=True)
    for row in rows:
        assert row["actual"] == known[row["text"]] != row["predicted"]
    assert not (tmp_path / "examples" / "mistakes.png").exists()


@pytest.mark.parametrize("name", ["data", "several"])
def test_the_words_that_decide_are_those_of_some_mistakes_and_of_some_right_answers(request, name, tmp_path):
    given = request.getfixturevalue(name)
    evaluated(given, tmp_path)
    rows = json.loads((tmp_path / "examples" / "words.json").read_text())
    texts = dict(zip(file_names(given.folder, "test"), texts_of_test(given.folder), strict=True))
    right = [row["predicted"] in row["actual"] for row in rows]
    assert right.count(False) == 4
    assert right.count(True) >= 2
    for row in rows:
        assert " ".join(word for word, _ in row["words"]) == texts[row["file"]][0]
    assert (tmp_path / "plots" / "words.png").stat().st_size > 10_000


def test_the_words_of_a_pair_are_those_of_both_texts(tmp_path):
    (tmp_path / "raw").mkdir()
    pairs = [(text, "on the table", label) for text, label in tiny.rows()]
    tiny.write_csv(tmp_path / "raw" / "train.csv", pairs, ("text", "other", "label"))
    evaluated(prepared(tmp_path, pair="other"), tmp_path / "out")
    for row in json.loads((tmp_path / "out" / "examples" / "words.json").read_text()):
        assert [word for word, _ in row["words"]][-4:] == ["|", "on", "the", "table"]


def test_what_a_network_that_diverged_says_is_an_error(data):
    (first, *rest) = predictions(data)
    with pytest.raises(PedigreeError, match="are not finite numbers: the training diverged"):
        evaluate.outcomes([{**first, "logits": first["logits"] * torch.nan}, *rest], data, values())


def test_each_metric_is_on_the_page_and_each_one_of_the_page_is_measured(
    data, with_foreign, several, tmp_path, monkeypatch
):
    draw_only(monkeypatch)
    found = set()
    for number, given in enumerate((data, with_foreign, several)):
        found |= {name.partition("/")[0] for name in evaluated(given, tmp_path / str(number))}
    assert documents.metrics(documents.page("text_classification")) == found


def test_predictions_are_the_logits_of_the_network(data):
    torch.manual_seed(0)
    model = build_model(values(), data.manifest).eval()
    batch = load_split(data.folder, "test").__getitems__(torch.arange(3))
    found = train.predict(model, batch, values())
    assert torch.equal(found["logits"], train.logits(model, batch))
    assert torch.equal(found["label"], batch["label"])
