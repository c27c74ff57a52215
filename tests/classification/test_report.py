import csv
import json

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from mlflow.utils.validation import _validate_metric_name
from PIL import Image
from torchmetrics.functional.classification import multiclass_calibration_error

from components import figures
from components.classification.report import Samples, evaluate, judge, measure, metric_names, outcomes_from
from components.contracts import Rejected
from components.errors import PedigreeError
from tests.drawing import draw_only, keep_titles

PNGS = [
    "plots/confusion.png",
    "plots/reliability.png",
    "plots/per_class.png",
    "examples/mistakes.png",
]
COLOURS = np.array([(10, 200, 30), (200, 30, 90), (20, 40, 220)], np.uint8)


def sure_of(predicted, classes, logit=4.0):
    """Logits (N, C) that predict these classes."""
    return logit * torch.nn.functional.one_hot(torch.tensor(predicted), classes).float()


def black(index):
    return np.zeros((28, 28), np.uint8)


def run(tmp_path, logits, labels, classes, files=None, picture=black, noun="image", note=""):
    for folder in ("plots", "examples"):
        (tmp_path / "out" / folder).mkdir(parents=True)
    files = files or [f"test/{classes[label]}/{i:05d}.png" for i, label in enumerate(labels)]
    samples = Samples(classes, files, picture, noun, note)
    predictions = {"logits": logits, "label": torch.tensor(labels)}
    return evaluate(predictions, samples, tmp_path / "out"), tmp_path / "out"


def measured(logits, labels, classes):
    """The metrics alone: figures take most of an evaluation's time."""
    return measure(judge(logits, torch.tensor(labels)), classes)


def rows(file):
    with file.open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def test_perfect_predictions_score_one(tmp_path, monkeypatch):
    draw_only(monkeypatch)
    labels = [0, 1, 2, 0, 1, 2]
    metrics, out = run(tmp_path, sure_of(labels, 3, 50.0), labels, ["a", "b", "c"])
    ones = ["accuracy", "top5_accuracy", "macro_f1", "precision/a", "recall/c"]
    assert [metrics[name] for name in ones] == [1.0] * len(ones)
    assert metrics["ece"] == pytest.approx(0, abs=1e-6)
    assert metrics["loss"] == pytest.approx(0, abs=1e-6)
    assert json.loads((out / "examples/mistakes.json").read_text()) == []


def test_predictions_that_are_all_wrong_score_zero():
    metrics = measured(sure_of([1, 0, 1], 2), [0, 1, 0], ["a", "b"])
    assert [metrics[name] for name in ("accuracy", "macro_f1")] == [0.0] * 2


def test_precision_recall_and_f1_are_those_computed_by_hand():
    #         a a a a  b b b  c c
    labels = [0, 0, 0, 0, 1, 1, 1, 2, 2]
    answer = [0, 0, 0, 1, 1, 1, 0, 2, 0]
    metrics = measured(sure_of(answer, 3), labels, ["a", "b", "c"])
    expected = {
        "accuracy": 6 / 9,
        "precision/a": 3 / 5,
        "precision/b": 2 / 3,
        "precision/c": 1.0,
        "recall/a": 3 / 4,
        "recall/b": 2 / 3,
        "recall/c": 1 / 2,
        "f1/a": 2 / 3,
        "f1/b": 2 / 3,
        "f1/c": 2 / 3,
        "macro_precision": (3 / 5 + 2 / 3 + 1) / 3,
        "macro_recall": (3 / 4 + 2 / 3 + 1 / 2) / 3,
        "macro_f1": 2 / 3,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


def test_the_calibration_error_is_the_gap_between_confidence_and_accuracy():
    # Ten answers with probability 0.8 of which six are right, ten with 0.9 of which all are right.
    logits = torch.tensor([[0.8, 0.2]] * 10 + [[0.9, 0.1]] * 10).log()
    labels = [0] * 6 + [1] * 4 + [0] * 10
    metrics = measured(logits, labels, ["a", "b"])
    assert metrics["ece"] == pytest.approx(0.5 * 0.2 + 0.5 * 0.1, abs=1e-6)


def test_the_calibration_error_is_torchmetrics_own_for_any_number_of_classes():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(500, 7, generator=generator)
    labels = torch.randint(7, (500,), generator=generator)
    metrics = measured(logits, labels.tolist(), list("abcdefg"))
    expected = multiclass_calibration_error(logits.softmax(1), labels, 7, n_bins=15, norm="l1")
    assert metrics["ece"] == pytest.approx(float(expected), abs=1e-5)
    assert metrics["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), abs=1e-5)


def test_logits_between_zero_and_one_are_not_taken_for_probabilities():
    metrics = measured(sure_of([0, 1, 0, 1], 2, 1.0), [0, 1, 0, 1], ["a", "b"])
    confidence = 1 / (1 + np.exp(-1))
    assert metrics["ece"] == pytest.approx(1 - confidence, abs=1e-6)


def test_a_label_among_the_five_highest_logits_counts_for_top5():
    logits = torch.arange(10, 0, -1).float().repeat(4, 1)  # the five highest are classes 0 to 4
    metrics = measured(logits, [0, 4, 5, 9], list("abcdefghij"))
    assert (metrics["accuracy"], metrics["top5_accuracy"]) == (0.25, 0.5)


def test_a_class_that_is_never_predicted_has_precision_zero():
    metrics = measured(sure_of([0, 0, 0, 0], 2), [0, 0, 1, 1], ["a", "b"])
    assert (metrics["precision/b"], metrics["recall/b"], metrics["f1/b"]) == (0, 0, 0)
    assert (metrics["precision/a"], metrics["recall/a"]) == (0.5, 1)
    assert metrics["macro_recall"] == 0.5


def test_a_class_without_test_samples_has_no_metrics_of_its_own(tmp_path, monkeypatch):
    draw_only(monkeypatch)
    metrics, _ = run(tmp_path, sure_of([0, 1, 1], 3), [0, 0, 1], ["a", "b", "absent"])
    assert not [name for name in metrics if name.endswith("/absent")]
    assert metrics["macro_recall"] == pytest.approx((0.5 + 1) / 2)


def test_metrics_do_not_depend_on_the_order_of_the_samples():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 5, generator=generator)
    labels = torch.randint(5, (200,), generator=generator)
    order = torch.randperm(200, generator=generator)
    first = measured(logits, labels.tolist(), list("abcde"))
    second = measured(logits[order], labels[order].tolist(), list("abcde"))
    assert second == pytest.approx(first, rel=1e-6)


ODD = ["猫", "crème brûlée", "a/b", "a*b", "a_b", "50 %", "$x_1$", "_", "x" * 255, 'comma, quote"', "e\u0301té"]


def test_odd_class_names_become_metric_names_that_mlflow_takes(tmp_path):
    labels = list(range(len(ODD)))
    files = [f"test/{i}.png" for i in labels]
    metrics, out = run(tmp_path, sure_of(labels[::-1], len(ODD)), labels, ODD, files=files)
    for name in metrics:
        _validate_metric_name(f"test/{name}")
        assert len(f"test/{name}") <= 250
    assert len([name for name in metrics if name.startswith("f1/")]) == len(ODD)
    assert [row["actual"] for row in rows(out / "examples/confusion.csv")] == ODD


def test_a_class_with_a_legal_name_keeps_it_and_the_others_stay_apart():
    assert metric_names(["a*b", "a?b", "a_b", "a_b_2"]) == ["a_b_3", "a_b_4", "a_b", "a_b_2"]


def test_the_tables_hold_each_test_sample_once_in_order(tmp_path, monkeypatch):
    draw_only(monkeypatch)
    logits = torch.tensor([[0.75, 0.25], [0.4, 0.6], [0.1, 0.9]]).log()
    _, out = run(tmp_path, logits, [0, 0, 1], ["cat", "dog"], files=["x, y.png", "naïve.png", "z.png"])
    assert rows(out / "examples/confusion.csv") == [
        {"actual": "cat", "predicted": "cat"},
        {"actual": "cat", "predicted": "dog"},
        {"actual": "dog", "predicted": "dog"},
    ]
    assert rows(out / "examples/predictions.csv") == [
        {"file": "x, y.png", "actual": "cat", "predicted": "cat", "probability": "0.75"},
        {"file": "naïve.png", "actual": "cat", "predicted": "dog", "probability": "0.6"},
        {"file": "z.png", "actual": "dog", "predicted": "dog", "probability": "0.9"},
    ]


def test_mistakes_come_the_most_confident_first_and_equal_ones_by_file_name(tmp_path, monkeypatch):
    draw_only(monkeypatch)
    logits = torch.tensor([[0.3, 0.7], [0.1, 0.9], [0.3, 0.7], [0.8, 0.2]]).log()
    _, out = run(tmp_path, logits, [0, 0, 0, 0], ["cat", "dog"], files=["b.png", "c.png", "a.png", "d.png"])
    mistakes = json.loads((out / "examples/mistakes.json").read_text())
    assert [mistake["file"] for mistake in mistakes] == ["c.png", "a.png", "b.png"]
    assert mistakes[0] == {"file": "c.png", "actual": "cat", "predicted": "dog", "probability": 0.9}


def test_no_more_than_a_hundred_mistakes_are_listed(tmp_path, monkeypatch):
    draw_only(monkeypatch)
    _, out = run(tmp_path, sure_of([1] * 130, 2), [0] * 130, ["a", "b"])
    assert len(json.loads((out / "examples/mistakes.json").read_text())) == 100
    assert len(rows(out / "examples/predictions.csv")) == 130


def test_the_gallery_shows_the_picture_of_the_mistake(tmp_path, monkeypatch):
    draw_only(monkeypatch, "mistakes")

    def picture(index):
        return np.broadcast_to(COLOURS[index], (32, 32, 3))

    _, out = run(tmp_path, sure_of([0, 0, 0], 2), [0, 1, 0], ["a", "b"], picture=picture)
    with Image.open(out / "examples/mistakes.png") as shown:
        drawn = np.asarray(shown.convert("RGB")).reshape(-1, 3)
    assert [int((drawn == colour).all(1).sum()) > 10_000 for colour in COLOURS] == [False, True, False]


def test_a_picture_of_any_floating_point_range_is_drawn(tmp_path, monkeypatch):
    draw_only(monkeypatch, "mistakes")

    def spectrogram(index):
        return np.linspace(-90, -20, 40 * 101, dtype=np.float32).reshape(40, 101)

    _, out = run(tmp_path, sure_of([1], 2), [0], ["a", "b"], picture=spectrogram)
    with Image.open(out / "examples/mistakes.png") as shown:
        assert len(np.unique(np.asarray(shown.convert("L")))) > 100


def test_plots_holds_pictures_only_and_every_table_is_an_example(tmp_path):
    _, out = run(tmp_path, sure_of([0, 1], 2), [0, 0], ["a", "b"])
    assert sorted(str(file.relative_to(out)) for file in out.rglob("*.*")) == sorted(
        [*PNGS, "examples/confusion.csv", "examples/mistakes.json", "examples/predictions.csv"]
    )
    for png in PNGS:
        Image.open(out / png).verify()


@pytest.mark.parametrize("answer", [[0, 1], [0, 0]])
def test_a_note_stands_above_every_figure(tmp_path, monkeypatch, answer):
    titles = keep_titles(monkeypatch)
    run(tmp_path, sure_of(answer, 2), [0, 1], ["a", "b"], note="Synthetic speech")
    assert list(titles) == ["confusion", "reliability", "per_class", "mistakes"]
    assert all(title.startswith("Synthetic speech") for title, *_ in titles.values())


@pytest.mark.parametrize("noun", ["image", "clip"])
def test_the_gallery_calls_the_samples_by_their_name(tmp_path, monkeypatch, noun):
    draw_only(monkeypatch)
    titles = []
    monkeypatch.setattr(figures, "gallery", lambda tiles, title, empty: titles.extend([title, empty]) or Figure())
    run(tmp_path, sure_of([0, 1, 1], 2), [0, 0, 0], ["a", "b"], noun=noun)
    assert titles[0].startswith(f"2 of 3 test {noun}s predicted wrong\n")
    assert titles[1] == f"All 3 test {noun}s are predicted right."


def test_outputs_that_are_not_numbers_are_rejected_with_what_to_do(tmp_path):
    logits = sure_of([0, 1, 0], 2)
    logits[1, 0] = float("nan")
    with pytest.raises(PedigreeError, match=r"1 of 3 test samples.*lower train\.optimizer\.lr"):
        run(tmp_path, logits, [0, 1, 0], ["a", "b"])


def test_of_equal_logits_the_first_class_is_predicted():
    assert judge(torch.zeros(2, 9), torch.tensor([0, 3])).predicted.tolist() == [0, 0]


def test_a_figure_is_saved_as_the_same_bytes_each_time(tmp_path):
    for name in ("one.png", "two.png"):
        figures.save(figures.confusion_matrix(np.array([[5, 1], [0, 7]]), ["a", "b"]), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as picture:
        assert "Software" not in picture.info


def test_a_long_note_above_a_figure_ends_within_it(tmp_path):
    note = "groups that file names tell are too uneven to draw whole: a group may be in two splits; " * 2
    drawn = {
        "matrix": figures.confusion_matrix(np.eye(3, dtype=np.int64), "abc"),
        "none": figures.gallery([], "", "none"),
    }
    for name, figure in drawn.items():
        figures.save(figure, tmp_path / f"{name}.png", note)
        headline = figure._suptitle.get_window_extent()
        assert headline.x0 > 0
        assert headline.x1 < figure.bbox.width
    assert not headline.overlaps(figure.texts[0].get_window_extent()), "of the figure without a picture"


@pytest.mark.parametrize("count", [2, 10, 200])
def test_figures_stay_of_a_readable_size_with_any_number_of_classes(tmp_path, count):
    counts, scores = np.eye(count, dtype=np.int64), {"F1": np.linspace(0, 1, count)}
    confusion = figures.confusion_matrix(counts, [f"class {i}" for i in range(count)])
    per_class = figures.per_class(scores, [f"class {i}" for i in range(count)])
    for name, figure in {"confusion": confusion, "per_class": per_class}.items():
        figures.save(figure, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert max(picture.size) < 1600
    names = [label.get_text() for label in confusion.axes[0].get_xticklabels()]
    assert ("class 1" in names) == (count <= figures.READABLE)
    assert len(confusion.axes[0].texts) == (count**2 if count <= figures.READABLE else 0)


def test_the_lowest_of_many_classes_are_shown_by_name():
    figure = figures.per_class({"F1": np.linspace(1, 0, 200)}, [f"class {i}" for i in range(200)])
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert (names[0], len(names)) == ("class 199", figures.READABLE)


def test_the_reliability_bars_are_as_high_as_the_accuracy_of_their_bin():
    confidence = np.array([0.95] * 10 + [0.5] * 4)
    correct = np.array([True] * 7 + [False] * 3 + [True] + [False] * 3)
    bars = figures.reliability(confidence, correct).axes[0].containers[0]
    assert [bar.get_height() for bar in bars] == pytest.approx([1 / 4, 7 / 10])


def test_learning_curves_draw_losses_and_the_other_validation_metrics_apart():
    history = [
        {"epoch": 1, "train/loss": 2.0, "val/loss": 2.1, "val/accuracy": 0.5, "lr": 0.1},
        {"epoch": 2, "train/loss": 1.0, "val/loss": 1.1, "lr": 0.1},
    ]
    panels = figures.learning_curves(history).axes
    drawn = [{line.get_label(): list(line.get_ydata()) for line in panel.lines} for panel in panels]
    assert drawn[0] == {"train/loss": [2.0, 1.0], "val/loss": [2.1, 1.1]}
    assert list(drawn[1]) == ["val/accuracy"]
    assert drawn[1]["val/accuracy"][0] == 0.5
    assert np.isnan(drawn[1]["val/accuracy"][1])


def test_a_sample_that_a_served_version_rejects_counts_as_wrong():
    answers = [{"label": "cat"}, Rejected("too large"), {"label": "dog"}, {"label": "cat"}]
    found = outcomes_from(answers, "label", torch.tensor([0, 0, 1, 1]), ["cat", "dog"], ["a", "b", "c", "d"])
    assert found.columns["correct"].tolist() == [1, 0, 1, 0]
    assert found.groups == {"class": ["cat", "cat", "dog", "dog"]}


def test_answers_of_another_form_are_not_taken_for_wrong_ones():
    with pytest.raises(PedigreeError, match="no column 'label' but class, probability"):
        outcomes_from([{"class": "cat", "probability": 1.0}], "label", torch.tensor([0]), ["cat"], ["a"])
