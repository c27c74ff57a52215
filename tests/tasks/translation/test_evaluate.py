"""The outcomes of each text make up the scores, and the written examples say what was translated how."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from components.contracts import Batch, Prepared, Rejected
from components.datasets.ingest import file_names
from components.errors import PedigreeError
from components.tasks.translation import evaluate, serve
from components.tasks.translation.model import build_model
from components.tasks.translation.prepare import SOURCE, TARGET, TranslationFacts, texts
from components.text import tokens
from components.text.measures import bleu, chrf
from components.trust import intervals
from tests import documents
from tests.tasks.translation import tiny
from tests.tasks.translation.values import prepared, values


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Prepared:
    folder = tmp_path_factory.mktemp("data")
    (folder / "raw").mkdir()
    tiny.write(folder / "raw")
    return prepared(folder)


def facts_of(data: Prepared) -> TranslationFacts:
    return TranslationFacts.model_validate(data.manifest.facts)


def references(data: Prepared) -> list[str]:
    return texts(data.folder, "test", TARGET, facts_of(data))


def sources(data: Prepared) -> list[str]:
    return texts(data.folder, "test", SOURCE, facts_of(data))


def predictions(data: Prepared, translated: list[str]) -> list[Batch]:
    """Return translations as `train.predict` does, in batches of five."""
    tokenizer = tokens.load(facts_of(data).tokenizer)
    batches = []
    for first in range(0, len(translated), 5):
        ids = [torch.tensor(tokens.encode(tokenizer, text)) for text in translated[first : first + 5]]
        batches.append(
            {
                "translation": torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).long(),
                "translation_length": torch.tensor([len(each) for each in ids]),
                "score": torch.full((len(ids),), -0.5, dtype=torch.float64),
                "loss": torch.full((len(ids),), 2.0, dtype=torch.float64),
            }
        )
    return batches


def half_right(data: Prepared) -> list[str]:
    """Return the references of every other text, and for the others their sources."""
    both = zip(references(data), sources(data), strict=True)
    return [reference if number % 2 else source for number, (reference, source) in enumerate(both)]


@pytest.fixture(scope="module")
def evaluated(data, tmp_path_factory) -> tuple[dict[str, float], Path]:
    """The metrics of translations that are half right, and the folder of plots and examples."""
    out = tmp_path_factory.mktemp("out")
    for name in ("plots", "examples"):
        (out / name).mkdir()
    torch.manual_seed(0)
    model = build_model(values(), data.manifest).eval()
    return evaluate.evaluate(model, predictions(data, half_right(data)), data, out, values()), out


def test_bleu_and_chrf_of_the_outcomes_are_those_of_the_corpus(data):
    metrics = pytest.importorskip("sacrebleu.metrics", reason="sacrebleu is in the extra dev")
    translated = half_right(data)
    outcomes = evaluate.outcomes(predictions(data, translated), data, values())
    corpus = translated, [references(data)]
    by_name = {each.name: each for each in (evaluate.score(data.manifest), *evaluate.further_scores(data.manifest))}
    assert intervals.value(outcomes, by_name["bleu"]) == pytest.approx(metrics.BLEU().corpus_score(*corpus).score)
    expected = metrics.CHRF(word_order=2).corpus_score(*corpus).score
    assert intervals.value(outcomes, by_name["chrf"]) == pytest.approx(expected)


def test_the_metrics_of_evaluation_are_those_of_the_outcomes(data, evaluated):
    metrics, _ = evaluated
    outcomes = evaluate.outcomes(predictions(data, half_right(data)), data, values())
    for each in (evaluate.score(data.manifest), *evaluate.further_scores(data.manifest)):
        assert metrics[each.name] == pytest.approx(intervals.value(outcomes, each))
    assert metrics["exact_match"] == pytest.approx(
        np.mean([one == other for one, other in zip(half_right(data), references(data), strict=True)])
    )
    assert 0 < metrics["exact_match"] < 1


def test_the_baseline_copies_the_source(data, evaluated):
    metrics, _ = evaluated
    convention = facts_of(data).convention
    pairs = list(zip(sources(data), references(data), strict=True))
    assert metrics["bleu_of_copy"] == pytest.approx(bleu.score(sum(bleu.statistics(*p, convention) for p in pairs)))
    assert metrics["chrf_of_copy"] == pytest.approx(chrf.score(sum(chrf.statistics(*pair) for pair in pairs)))
    assert metrics["bleu_gain"] == pytest.approx(metrics["bleu"] - metrics["bleu_of_copy"])


def test_the_loss_is_a_mean_over_the_tokens_of_the_references(data, evaluated):
    metrics, _ = evaluated
    tokenizer = tokens.load(facts_of(data).tokenizer)
    count = sum(len(tokens.encode(tokenizer, text)) + 1 for text in references(data))
    assert metrics["loss"] == pytest.approx(2 * len(references(data)) / count)
    bits = 2 * len(references(data)) / np.log(2) / sum(map(len, references(data)))
    assert metrics["bits_per_character"] == pytest.approx(bits)


def test_results_are_given_by_the_number_of_words_of_the_source(data, evaluated):
    metrics, _ = evaluated
    outcomes = evaluate.outcomes(predictions(data, half_right(data)), data, values())
    assert {*outcomes.groups["length"]} == {"1-4 words", "5-8 words"}
    by_group = intervals.group_values(outcomes, evaluate.score(data.manifest), "length")
    assert by_group == {name.removeprefix("bleu/"): value for name, value in metrics.items() if "bleu/" in name}


def test_all_translations_are_written_and_the_worst_ones_first_in_a_list_of_their_own(data, evaluated):
    _, out = evaluated
    rows = tiny.table(out)
    assert [row["at"] for row in rows] == file_names(data.folder, "test")
    assert [row["translation"] for row in rows] == half_right(data)
    assert [row["reference"] for row in rows] == references(data)
    worst = json.loads((out / "examples" / "worst.json").read_text())
    assert [row["chrf"] for row in worst] == sorted(float(row["chrf"]) for row in rows)
    assert worst[0]["translation"] != worst[0]["reference"]
    assert {row["chrf"] for row in worst if row["translation"] == row["reference"]} == {100.0}


def test_lengths_and_attention_are_drawn(evaluated):
    _, out = evaluated
    assert {file.name for file in (out / "plots").iterdir()} == {"by_length.png", "attention.png"}
    assert min(file.stat().st_size for file in (out / "plots").iterdir()) > 10_000


def test_the_answers_of_a_version_give_the_outcomes_of_evaluation(data):
    translated = half_right(data)
    own = evaluate.outcomes(predictions(data, translated), data, values())
    asked = list(serve.rows(data, lambda: data.folder))
    assert [row["text"] for row in asked] == sources(data)
    answered = evaluate.outcomes_from([{"translation": text} for text in translated], data)
    assert answered.samples == own.samples
    assert answered.groups == own.groups
    assert answered.clusters == own.clusters
    for name, column in own.columns.items():
        assert np.array_equal(answered.columns[name], column), name


def test_a_rejected_text_counts_as_not_translated_and_an_answer_without_translation_is_an_error(data):
    count = len(references(data))
    outcomes = evaluate.outcomes_from([Rejected("too long")] * count, data)
    assert intervals.value(outcomes, evaluate.score(data.manifest)) == 0
    with pytest.raises(PedigreeError, match=r"^its answers have no column 'translation' but continuation$"):
        evaluate.outcomes_from([{"continuation": "x"}] * count, data)


def test_each_metric_is_on_the_page_and_each_one_of_the_page_is_measured(evaluated):
    found, _ = evaluated
    assert documents.metrics(documents.page("translation")) == {name for name in found if "/" not in name}
    assert {name.partition("/")[0] for name in found if "/" in name} == {"bleu", "chrf"}


def test_the_version_says_by_which_conventions_it_was_scored(data):
    assert evaluate.tags(data) == {
        "bleu.signature": "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp",
        "chrf.signature": "nrefs:1|case:mixed|eff:yes|nc:6|nw:2|space:no",
    }
