"""The pages that tell what benchmarks found."""

import hashlib
import json
import math
import shutil
import sys
from functools import partial

import numpy as np
import pytest
from PIL import Image

from benchmarks import gate, gpu, layouts, omniglot, report, results, transfer
from components.training import device
from components.trust.gate import POWER
from tests.conftest import ROOT


def test_the_page_of_figures_says_what_was_measured_and_nothing_else(tmp_path, monkeypatch):
    shutil.copy(report.RECORDS, tmp_path)
    (tmp_path / "images").mkdir()
    monkeypatch.setattr(report, "DOCS", tmp_path)
    report.write()
    assert (tmp_path / "performance.md").read_text() == (ROOT / "docs" / "performance.md").read_text()
    assert (tmp_path / "images" / "throughput.png").stat().st_size > 10_000


def test_the_page_of_results_says_what_was_measured_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "DOCS", tmp_path)
    results.write()
    assert (tmp_path / "results.md").read_text() == (ROOT / "docs" / "results.md").read_text()


def test_the_result_of_one_seed_has_its_interval_over_test_samples_and_that_of_several_their_spread():
    first, second = ({"accuracy": value, "accuracy_low": 0.8, "accuracy_high": 0.95} for value in (0.9, 0.92))
    assert results._result("accuracy", [first]) == "accuracy 0.9000 [0.8000, 0.9500]"
    assert results._result("accuracy", [first, second]) == "accuracy 0.9100 ± 0.0141"
    one = {"iou/foreground": 0.8, "iou_low/foreground": 0.7, "iou_high/foreground": 0.85}
    assert results._result("iou/foreground", [one]) == "iou/foreground 0.8000 [0.7000, 0.8500]"
    assert results._target(results.Aim("loss", "less", (1.44, 1.42))) == "loss ≤ 1.44 (≤ 1.42)"


def test_the_folders_of_nuclei_are_divided_by_the_hashes_of_their_names(tmp_path):
    for number in range(160):
        (tmp_path / f"nuclei/{number}").mkdir(parents=True)
    layouts.nuclei(tmp_path, tmp_path / "raw")
    found = {
        split: {path.name for path in (tmp_path / "raw" / split).iterdir()} for split in ("train", "val", "test")
    }
    assert {split: len(names) for split, names in found.items()} == {"train": 96, "val": 24, "test": 40}
    first = min(map(str, range(160)), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert first in found["train"]


def test_the_words_of_answers_to_qamr_become_pieces_of_its_sentences(tmp_path):
    (tmp_path / "qamr" / "filtered").mkdir(parents=True)
    sentence = "Wiki1k:wikipedia:7:90:8"
    (tmp_path / "qamr" / "wiki-sentences.tsv").write_text(f"{sentence}\tA fox -LRB- red -RRB- ran `` home '' .\n")
    row = f"{sentence}\t1 5\t76\t0\t1\tWhat ran ?\t1 3\t261:0 1\t60:7\n"
    for split in ("dev", "test"):
        (tmp_path / "qamr" / "filtered" / f"{split}.tsv").write_text(row)
    layouts.qamr(tmp_path, tmp_path / "raw")
    (article,) = json.loads((tmp_path / "raw" / "train.json").read_text())["data"]
    (paragraph,) = article["paragraphs"]
    assert article["title"] == "Wiki1k:wikipedia:7"
    assert paragraph["context"] == 'A fox ( red ) ran " home " .'
    (qa,) = paragraph["qas"]
    assert [answer["text"] for answer in qa["answers"]] == ["fox ( red", "A fox", "home"]
    assert all(paragraph["context"].startswith(each["text"], each["answer_start"]) for each in qa["answers"])


def test_without_a_gpu_what_needs_one_ends_with_a_sentence(monkeypatch):
    monkeypatch.setattr(device, "gpus", tuple)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit, match=r"^torch finds no GPU here: run this on a machine with a GPU$"):
        gpu.main()


def test_what_fails_on_a_gpu_is_on_the_page_with_its_error_and_what_could_not_be_checked_with_the_reason(capsys):
    def fail():
        raise AssertionError("words: loss 3.1 | 2.9\nthey differ")

    found = {"machine": "16 cores", "date": "2026-11-30", "gpus": 1, "device": "NVIDIA H200, bf16"}
    found["checks"] = {
        "one": gpu.attempt(lambda: {"passed": True, "said": "fine"}),
        "two": gpu.attempt(fail),
        "three": gpu.attempt(lambda: {"passed": None, "said": "there is one GPU"}),
    }
    found["speeds"] = {"cifar10": {"passed": True, "said": "9 | 10", "seconds": 1.0}}
    text, _ = report._gpu(found)
    assert "(16 cores, 2026-11-30) on 1 x NVIDIA H200, bf16." in text
    assert [line.rsplit("|", 2)[0] for line in text.splitlines()[-4:]] == [
        "| one | passed: fine ",
        "| two | **failed**: AssertionError: words: loss 3.1 / 2.9 ",
        "| three | not made: there is one GPU ",
        "| cifar10 | passed: 9 / 10 ",
    ]
    assert "they differ" in capsys.readouterr().err, "the whole error is printed"
    assert "Nothing on this page was measured on a GPU" in report._gpu(None)[0]


TRIALS = 250


def at_most(share):
    """Return the largest share of trials that chance leaves at a true share."""
    return share + 3 * math.sqrt(share * (1 - share) / TRIALS)


@pytest.mark.parametrize(
    "cell",
    [
        gate.Cell("accuracy", 100),
        gate.Cell("per-speaker accuracy", 200, 6, unequal=True),
        gate.Cell("perplexity", 20),
        gate.Cell("average precision", 50, positives=10),
    ],
    ids=lambda cell: cell.score,
)
def test_a_version_that_is_no_better_is_promoted_as_rarely_as_stated_and_a_better_one_as_often(cell):
    assert gate.rate(partial(gate._promotes, cell, 0), TRIALS, 1) <= at_most(0.025)
    gain, _ = gate.detectable(cell, TRIALS, 3)
    assert 1 - gate.rate(partial(gate._promotes, cell, gain), TRIALS, 4) <= at_most(1 - POWER)


def test_the_page_of_the_gate_names_the_test_splits_in_which_fewer_are_promoted_than_stated():
    text = (ROOT / "docs" / "gate.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.count("|") == 8]
    short = gate.fewer_than_stated(rows)
    assert short in text
    assert [each[0] for each in rows if f"({each[-1]})" in short] == ["perplexity"]


def test_a_version_from_few_sources_is_never_promoted():
    assert gate.rate(partial(gate._promotes, gate.Cell("per-speaker accuracy", 200, 4), 4.0), 50, 1) == 0


@pytest.mark.parametrize(("groups", "each"), [(4, 20), (10, 100)])
def test_a_version_that_is_better_in_every_class_is_not_rejected_for_one(groups, each):
    assert gate.rate(partial(gate._rejects, groups, each, 0.0), TRIALS // 5, 6) <= at_most(0.05)


def test_of_twenty_equal_challengers_in_a_row_as_few_are_promoted_as_stated():
    promoted, at_five_percent = gate.challengers(TRIALS // 10)
    assert promoted <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / (TRIALS // 10))
    assert at_five_percent > 0.3


def test_the_gain_of_pairs_has_an_interval_by_students_t():
    found = transfer.gain([0.9, 0.8, 0.85], [0.8, 0.75, 0.7])
    assert found["accuracy_gain"] == pytest.approx(0.1)
    half = found["accuracy_gain_high"] - found["accuracy_gain"]
    assert half == pytest.approx(4.302653 * 0.05 / 3**0.5)  # the 97.5 % quantile of t with two degrees of freedom


def test_each_characters_drawings_of_omniglot_are_laid_out_by_alphabet(tmp_path, monkeypatch):
    source, images = tmp_path / "source", np.zeros((3, 20, 105, 105), bool)
    source.mkdir()
    images[2, 7] = True
    for part in ("background", "evaluation"):
        np.savez(source / f"images_{part}.npz", images=images)
    monkeypatch.setattr(omniglot, "BACKGROUND", {"Greek": 1, "Latin": 2})
    monkeypatch.setattr(omniglot, "EVALUATION", {"Tengwar": 3})
    layouts.lay_out("omniglot", source, tmp_path / "few")
    assert np.asarray(Image.open(tmp_path / "few" / "train" / "Latin" / "01" / "07.png")).all()
    assert len([*(tmp_path / "few" / "test" / "Tengwar").rglob("*.png")]) == 60
    layouts.lay_out("omniglot-characters", source, tmp_path / "characters")
    assert not np.asarray(Image.open(tmp_path / "characters" / "train" / "Latin-01" / "07.png")).any()
    assert len([*(tmp_path / "characters" / "test").rglob("*.png")]) == 12
