"""The loss counts each token of the target once, and predictions hold the search's best translation."""

import pytest
import torch
import torch.nn.functional as F

from components.contracts import Batch, Manifest
from components.errors import PedigreeError
from components.tasks.translation import train
from components.tasks.translation.model import Translator, build_model
from components.tasks.translation.params import SearchParams
from tests.tasks.translation.values import values

START, END = 0, 1
FACTS = {
    "source": "en",
    "target": "xx",
    "tokenizer": "",
    "vocabulary": 12,
    "start": START,
    "end": END,
    "longest": 60,
    "bleu": {"case": "mixed", "tokenizer": "13a"},
    "identical": 0,
    "characters": {},
}
MANIFEST = Manifest(task="translation", splits={}, rejected=[], facts=FACTS)


@pytest.fixture(scope="module", params=["transformer", "gru"])
def model(request) -> Translator:
    torch.manual_seed(0)
    built = build_model(values(train={"model": {"network": request.param, "size": 16, "dropout": 0.2}}), MANIFEST)
    assert isinstance(built, Translator)
    return built.eval()


@pytest.fixture
def batch() -> Batch:
    return {
        "source": torch.tensor([[5, 6, 7, END], [8, END, 0, 0]], dtype=torch.int32),
        "source_length": torch.tensor([4, 2]),
        "target": torch.tensor([[9, END, 0], [10, 11, END]], dtype=torch.int32),
        "target_length": torch.tensor([2, 3]),
    }


def test_each_token_of_the_target_is_predicted_from_those_before_it(model, batch):
    output = train.step(model, batch, values())
    expected, right = 0.0, 0
    for source, target in (([5, 6, 7, END], [9, END]), ([8, END], [10, 11, END])):
        before = torch.tensor([[START, *target[:-1]]])
        logits = model.network(torch.tensor([source]), torch.tensor([len(source)]), before)[0]
        expected += F.cross_entropy(logits, torch.tensor(target), reduction="sum").item()
        right += int((logits.argmax(1) == torch.tensor(target)).sum())
    assert output.loss.item() == pytest.approx(expected, rel=1e-5)
    assert int(output.count) == 5
    assert output.sums["token_accuracy"].item() == right


def test_targets_are_smoothed_in_training_and_not_in_validation(model, batch):
    smooth, plain = (values(train={"label_smoothing": share}) for share in (0.3, 0.0))
    assert train.step(model, batch, smooth).loss == train.step(model, batch, plain).loss
    model.train()
    losses = []
    for params in (smooth, plain):
        torch.manual_seed(0)
        losses.append(train.step(model, batch, params).loss.item())
    model.eval()
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_what_stands_in_the_padding_changes_nothing(model, batch):
    changed = {name: tensor.clone() for name, tensor in batch.items()}
    changed["source"][1, 2:] = 7
    changed["target"][0, 2] = 7
    before, after = (train.step(model, each, values()) for each in (batch, changed))
    assert before.loss.item() == pytest.approx(after.loss.item(), rel=1e-6)


def test_the_logits_of_a_large_batch_are_computed_in_parts(model, batch, monkeypatch):
    whole = train.step(model, batch, values())
    monkeypatch.setattr(train, "LOGITS", 1)
    parts = train.step(model, batch, values())
    assert parts.loss.item() == pytest.approx(whole.loss.item(), rel=1e-6)
    assert parts.sums == whole.sums


def test_metrics_are_means_over_tokens():
    found = train.metrics({"loss": torch.tensor(4.0), "token_accuracy": torch.tensor(1.0)}, 2)
    assert found == {"loss": 2.0, "token_accuracy": 0.5, "perplexity": pytest.approx(7.389056)}
    assert train.metrics({"loss": torch.tensor(0.0)}, 1) == {"loss": 0.0, "perplexity": 1.0}


def test_a_prediction_is_the_best_translation_of_the_search_and_the_loss_of_the_reference(model, batch):
    params = values(evaluate={"search": {"beam": 3, "length_penalty": 0.5}})
    found = train.predict(model, batch, params)
    searched = model.translate(batch["source"].long(), batch["source_length"], params.evaluate.search)
    for row, hypotheses in enumerate(searched):
        length = int(found["translation_length"][row])
        assert found["translation"][row, :length].tolist() == hypotheses[0].tokens
        assert found["score"][row] == pytest.approx(hypotheses[0].score)
    losses = [
        train.step(model, {name: each[row : row + 1] for name, each in batch.items()}, params) for row in (0, 1)
    ]
    assert found["loss"].tolist() == pytest.approx([each.loss.item() for each in losses], rel=1e-5)


def test_a_translation_has_at_most_half_as_many_tokens_more_than_its_source_and_ten(model, batch):
    with torch.no_grad():
        saved = model.network.output.weight[END].clone()
        model.network.output.weight[END] = 0
    found = model.translate(batch["source"].long(), batch["source_length"], SearchParams(beam=1, length_penalty=0))
    with torch.no_grad():
        model.network.output.weight[END] = saved
    assert max(len(each.tokens) for each in found[0]) <= 16
    assert max(len(each.tokens) for each in found[1]) <= 13


def test_heads_have_to_divide_the_size():
    with pytest.raises(PedigreeError, match="size 16 cannot be divided among 3 heads"):
        values(train={"model": {"size": 16, "heads": 3}})
