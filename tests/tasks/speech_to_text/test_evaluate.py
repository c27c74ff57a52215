"""Errors are counted as jiwer counts them, and what is written says what was heard in place of what."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from components.contracts import Batch, Prepared, Rejected
from components.datasets.ingest import file_names
from components.errors import PedigreeError
from components.sound.recordings.intake import speakers_of, texts_of
from components.tasks.speech_to_text import evaluate, train
from components.tasks.speech_to_text.model import build_model
from components.tasks.speech_to_text.prepare import TEXT, RecognitionFacts, load_split
from components.text import tokens
from tests.tasks.speech_to_text import tiny
from tests.tasks.speech_to_text.values import prepared, values


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Prepared:
    folder = tmp_path_factory.mktemp("data")
    (folder / "raw").mkdir()
    tiny.write(folder / "raw")
    return prepared(folder, speaker="", test_share=0.3)


def references(data: Prepared) -> list[str]:
    return texts_of(data.folder, "test", TEXT)


def heard(data: Prepared) -> list[str]:
    """Return texts with an error of each kind."""
    texts = references(data)
    return [texts[0] + " fa", "", *(text.replace("ri", "ho") for text in texts[2:])]


def predictions(data: Prepared, texts: list[str]) -> list[Batch]:
    """Return texts as `train.predict` does, in batches of five."""
    tokenizer = tokens.load(RecognitionFacts.model_validate(data.manifest.facts).tokenizer)
    batches = []
    for first in range(0, len(texts), 5):
        ids = [tokens.encode(tokenizer, text) for text in texts[first : first + 5]]
        batch = {
            **train._padded("text", ids),
            "confidence": torch.linspace(0.5, 1, len(ids)).double(),
            "loss": torch.ones(len(ids)).double(),
        }
        for level in train.LEVELS:
            batch |= train._padded(f"text_{level}db", ids if level > 0 else [[]] * len(ids))
        batches.append(batch)
    return batches


def test_the_score_and_the_character_error_rate_are_those_of_jiwer(data):
    jiwer = pytest.importorskip("jiwer", reason="jiwer is not installed: the extra [dev] has it")
    table = evaluate.outcomes(predictions(data, heard(data)), data, values())
    every = np.ones(len(table.samples))
    expected = jiwer.process_words(references(data), heard(data))
    assert evaluate.score(data.manifest).of(table.columns, every) == pytest.approx(expected.wer)
    cer, exact = evaluate.further_scores(data.manifest)
    assert cer.of(table.columns, every) == pytest.approx(jiwer.cer(references(data), heard(data)))
    same = [one == other for one, other in zip(references(data), heard(data), strict=True)]
    assert exact.of(table.columns, every) == pytest.approx(np.mean(same))


def test_outcomes_say_which_recordings_are_alike(data):
    table = evaluate.outcomes(predictions(data, references(data)), data, values())
    assert list(table.samples) == file_names(data.folder, "test")
    assert {*table.groups["length"]} == {"1-3 words"}
    assert list(table.clusters) == []
    assert table.columns["words"][:, :3].sum() == 0


def test_recordings_of_a_speaker_are_a_cluster_and_a_group(tmp_path):
    (tmp_path / "raw").mkdir()
    tiny.write(tmp_path / "raw")
    data = prepared(tmp_path)
    table = evaluate.outcomes(predictions(data, references(data)), data, values())
    assert list(table.clusters) == table.groups["speaker"] == speakers_of(data.folder, "test")


def test_a_served_version_that_rejects_a_recording_heard_nothing_in_it(data):
    answers = [{"text": text} for text in references(data)]
    rejected = [Rejected("it is no sound"), *answers[1:]]
    table = evaluate.outcomes_from(rejected, data)
    words = len(references(data)[0].split())
    assert table.columns["words"].sum(0)[:3].tolist() == [0, words, 0]
    with pytest.raises(PedigreeError, match="its answers have no column 'text' but word"):
        evaluate.outcomes_from([{"word": "fa"}], data)


@pytest.fixture(scope="module")
def written(data, tmp_path_factory) -> tuple[dict[str, float], Path]:
    out = tmp_path_factory.mktemp("out")
    for name in ("plots", "examples"):
        (out / name).mkdir()
    torch.manual_seed(0)
    model = build_model(values(), data.manifest).eval()
    return evaluate.evaluate(model, predictions(data, heard(data)), data, out, values()), out


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_metrics_divide_errors_by_kind_and_stand_beside_a_trivial_answer_and_noise(data, written):
    metrics, _ = written
    kinds = metrics["substitutions"] + metrics["deletions"] + metrics["insertions"]
    assert metrics["wer"] == pytest.approx(kinds)
    assert metrics["wer/1-3 words"] == metrics["wer"]
    assert metrics["wer_0db"] == 1
    assert metrics["wer_20db"] == metrics["wer"]
    assert 0 < metrics["wer_of_commonest"] <= 1
    count = float(load_split(data.folder, "test").ragged["target"].shapes.sum())
    assert metrics["loss"] == pytest.approx(len(references(data)) / count)


def test_all_transcripts_the_worst_ones_and_the_commonest_errors_are_written(data, written):
    _, out = written
    table = rows(out / "examples" / "transcripts.csv")
    assert [row["reference"] for row in table] == references(data)
    assert [row["text"] for row in table] == heard(data)
    errors = rows(out / "examples" / "word_errors.csv")
    count = sum(text.split().count("ri") for text in references(data)[2:])
    assert {"said": "ri", "heard": "ho", "times": str(count)} in errors
    assert [int(row["times"]) for row in errors] == sorted((int(row["times"]) for row in errors), reverse=True)
    worst = json.loads((out / "examples" / "worst.json").read_text())
    assert worst[0]["text"] == ""
    assert all(row["word_errors"] for row in worst)


def test_figures_are_written(written):
    _, out = written
    assert {file.name for file in (out / "plots").iterdir()} == {"timings.png", "by_length.png", "in_noise.png"}
