"""Loss, validation and predictions do not depend on padding, and augmentation changes what its parameters say."""

import pytest
import torch
import torch.nn.functional as F

from components.contracts import Batch, Manifest
from components.errors import PedigreeError
from components.sound import ctc
from components.tasks.speech_to_text import decoding, train
from components.tasks.speech_to_text.model import Recogniser, build_model
from components.text import ngrams, tokens
from components.text.params import TokenizerParams
from tests.tasks.speech_to_text.values import values

TOKENIZER = tokens.train(TokenizerParams(name="char", vocabulary=256, min_count=1), ["fa ho ri"])
FACTS = {
    "kind": "audio",
    "rate": 8000,
    "features": {"mels": 16, "window": 0.025, "hop": 0.01},
    "tokenizer": TOKENIZER.to_str(),
    "vocabulary": TOKENIZER.get_vocab_size(),
    "ngrams": ngrams.counted([["fa", "ho"], ["ri"]], 2).arpa(),
    "commonest": "fa ho",
    "speakers": {},
    "hours": {},
    "seen": 0.0,
}


def manifest(**facts) -> Manifest:
    return Manifest(task="speech_to_text", splits={}, rejected=[], facts=FACTS | facts)


def network(facts: Manifest | None = None, **model) -> Recogniser:
    torch.manual_seed(0)
    built = build_model(values(train={"model": model}), facts or manifest())
    assert isinstance(built, Recogniser)
    return built.eval()


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(0)
    sound = (3000 * torch.randn(2, 4000)).to(torch.int16)
    sound[1, 2500:] = 0
    target = torch.tensor([[1, 2, 3], [4, 5, 0]], dtype=torch.int32)
    lengths = {"sound_length": torch.tensor([4000, 2500]), "target_length": torch.tensor([3, 2])}
    return {"sound": sound, "target": target, **lengths}


def row(batch: Batch, index: int) -> Batch:
    """Return one recording alone, without padding."""
    own = {name: each[index : index + 1] for name, each in batch.items()}
    for name in ("sound", "target"):
        own[name] = own[name][:, : int(own[f"{name}_length"])]
    return own


@pytest.mark.parametrize("model", [
    {"layers": 2}, {"batch_norm": True}, {"network": "conformer", "heads": 2, "inner": 16},
])  # fmt: skip
def test_a_recording_is_understood_alike_alone_and_beside_longer_ones(batch, model):
    built = network(**model)
    with torch.no_grad():
        together, frames = built(batch["sound"], batch["sound_length"])
        for index in (0, 1):
            alone, (most,) = built(row(batch, index)["sound"], row(batch, index)["sound_length"])
            assert int(frames[index]) == int(most) == alone.shape[1]
            torch.testing.assert_close(together[index, :most], alone[0], atol=1e-5, rtol=1e-4)


def test_the_loss_is_that_of_torch_and_the_count_that_of_tokens(batch):
    built = network()
    output = train.step(built, batch, values())
    log_probs, frames = built(batch["sound"], batch["sound_length"])
    expected = F.ctc_loss(
        log_probs.transpose(0, 1), batch["target"].long(), frames, batch["target_length"], built.blank,
        reduction="sum",
    )  # fmt: skip
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert int(output.count) == 5
    expected = ctc.errors(log_probs, frames, batch["target"].long(), batch["target_length"], built.blank).sum()
    assert output.sums["token_error_rate"] == expected


def test_predictions_are_the_best_texts_of_the_search_and_those_in_noise(batch):
    built, params = network(), values(evaluate={"search": {"beam": 3}})
    found = train.predict(built, batch, params)
    log_probs, frames = built(batch["sound"], batch["sound_length"])
    best = decoding.best(built, log_probs, frames, params.evaluate.search)
    for index, ids in enumerate(best):
        assert found["text"][index, : int(found["text_length"][index])].tolist() == ids
        _, confidence = decoding.timed(built, log_probs[index, : int(frames[index])], ids, 0.01)
        assert found["confidence"][index].item() == pytest.approx(confidence)
    losses = [train.step(built, row(batch, index), params).loss.item() for index in (0, 1)]
    assert found["loss"].tolist() == pytest.approx(losses, rel=1e-4)
    alone = train.predict(built, row(batch, 1), params)
    for level in train.LEVELS:
        name, most = f"text_{level}db", int(alone[f"text_{level}db_length"])
        assert found[name][1, :most].tolist() == alone[name][0, :most].tolist()


def test_noise_has_the_level_that_its_name_says(batch):
    sound, length = train.in_noise(batch["sound"], batch["sound_length"], 10)
    clean = batch["sound"].float()
    assert not sound[1, 2500:].any()
    for index, most in enumerate(length.tolist()):
        noise = (sound - clean)[index, :most].square().mean()
        ratio = 10 * torch.log10(clean[index, :most].square().mean() / noise).item()
        assert ratio == pytest.approx(10, abs=3)  # its power varies over time, as pink noise does


def test_augmentation_changes_speed_and_adds_noise_before_the_padding(batch):
    torch.manual_seed(0)
    changed = train.augment(batch, values(train={"augment": {"speed": 0.2, "snr": 10}}))
    for index, before in enumerate((4000, 2500)):
        after = int(changed["sound_length"][index])
        assert before / 1.2 <= after <= before / 0.8
        assert not changed["sound"][index, after:].any()
        assert changed["sound"][index, : after - 10].any()
    same = train.augment(batch, values())
    assert torch.equal(same["sound"], batch["sound"].float())
    assert torch.equal(same["sound_length"], batch["sound_length"])


def test_of_cepstra_the_tempo_alone_changes():
    length = torch.tensor([40, 20])
    batch = {"sound": torch.ones(2, 40, 13), "sound_length": length}
    changed = train.augment(batch, values(train={"augment": {"speed": 0.2, "snr": 0}}))
    assert changed["sound"].shape[2] == 13
    assert (changed["sound_length"] - length).abs().max() > 0
    assert ((changed["sound"] - 1).abs().amin(2) < 1e-6)[:, :10].all()


def test_cepstra_are_understood_in_place_of_sound():
    built = network(manifest(kind="cepstra"))
    log_probs, frames = built(torch.randn(2, 41, 13), torch.tensor([41, 20]))
    assert log_probs.shape == (2, 11, built.blank + 1)
    assert frames.tolist() == [11, 5]


def test_words_have_times_and_confidences():
    built = network()
    ids = tokens.encode(TOKENIZER, "fa ho")
    path = [built.blank, ids[0], ids[1], ids[2], built.blank, ids[3], ids[4], ids[4]]
    log_probs = (8.0 * F.one_hot(torch.tensor(path), built.blank + 1)).log_softmax(1)
    words, confidence = decoding.timed(built, log_probs, ids, 0.01)
    assert [(word.word, word.start, word.end) for word in words] == [("fa", 0.04, 0.12), ("ho", 0.2, 0.32)]
    each = log_probs.max().exp().item()
    assert [word.confidence for word in words] == pytest.approx([each, each])
    assert confidence == pytest.approx(each)
    assert decoding.timed(built, log_probs[:1], [], 0.01)[0] == []


def test_the_n_grams_decide_between_texts_that_sound_alike():
    built = network()
    own, other = (tokens.encode(TOKENIZER, text) for text in ("fa ho", "fa hi"))
    path = [ids for pair in zip(own, other, strict=True) for ids in (pair, (built.blank,) * 2)]
    log_probs = torch.full((1, len(path), built.blank + 1), 1e-6)
    for frame, pair in enumerate(path):
        for token, share in zip(pair, (0.45, 0.55), strict=True):
            log_probs[0, frame, token] += share
    log_probs = (log_probs / log_probs.sum(2, keepdim=True)).log()
    texts = {}
    for weight in (0.0, 2.0):
        search = values(evaluate={"search": {"beam": 10, "weight": weight}}).evaluate.search
        (ids,) = decoding.best(built, log_probs, torch.tensor([len(path)]), search)
        texts[weight] = decoding.text_of(built, ids)
    assert texts == {0.0: "fa hi", 2.0: "fa ho"}


def test_heads_have_to_divide_the_size_of_a_conformer():
    with pytest.raises(PedigreeError, match="size 16 cannot be divided among 3 heads"):
        values(train={"model": {"network": "conformer", "heads": 3}})
