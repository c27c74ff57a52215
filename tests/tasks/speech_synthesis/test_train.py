"""The loss does not depend on padding, and what is predicted is what is answered."""

import pytest
import torch

from components.tasks.speech_synthesis import synthesis, train
from components.tasks.speech_synthesis.model import places
from tests.tasks.speech_synthesis.values import batch, network, row, values


@pytest.mark.parametrize("vocoder", ["magnitudes", "istft"])
def test_the_loss_of_a_batch_is_the_sum_of_those_of_its_recordings(vocoder):
    built, own = network(vocoder), batch()
    with torch.no_grad():
        together = train.step(built, own, values())
        alone = [train.step(built, row(own, index), values()) for index in (0, 1)]
    assert int(together.count) == sum(int(each.count) for each in alone) == 32 + 20
    errors = sum(float(each.sums["mel_error"]) for each in alone)
    assert float(together.sums["mel_error"]) == pytest.approx(errors, rel=1e-4)
    if vocoder == "magnitudes":  # the sounds that istft compares reach into the padding
        assert float(together.loss) == pytest.approx(sum(float(each.loss) for each in alone), rel=1e-4)


@pytest.mark.parametrize("vocoder", ["magnitudes", "istft"])
def test_a_step_reaches_every_weight(vocoder):
    built = network(vocoder).train()
    train.step(built, batch(), values()).loss.backward()
    without = [name for name, each in built.named_parameters() if each.grad is None or not each.grad.any()]
    assert without == []


def test_recordings_are_aligned_with_all_their_characters():
    own = train.aligned(network(), batch())
    counts = own.how.duration.exp().round()
    assert counts[0].sum() == 32
    assert counts[1, :3].sum() == 20
    assert counts[0].min() >= 1
    assert own.how.pitch[own.how.pitch != 0].shape[0] > 0


def test_the_pitch_of_a_character_is_that_of_its_voiced_frames():
    built, own = network(), batch()
    own["pitch"][:] = 0
    assert not train.aligned(built, own).how.pitch.any()
    own["pitch"][:] = torch.tensor(built.pitch_scale[0]).exp() * torch.tensor(built.pitch_scale[1]).exp()
    found = train.aligned(built, own).how.pitch
    torch.testing.assert_close(found[0], torch.ones(5))


def test_places_count_the_frames_of_a_character_from_both_ends():
    found = places(torch.tensor([[0, 0, 0, 1, 2, 2, 2]]), torch.tensor([6]))[0, :6]
    before, after = found[:, 0].exp(), found[:, 1].exp()
    assert before.tolist() == pytest.approx([1, 2, 3, 1, 1, 2])
    assert after.tolist() == pytest.approx([3, 2, 1, 1, 2, 1])
    assert found[:, 2].tolist() == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1 / 2, 1 / 3, 2 / 3])


@pytest.mark.parametrize("vocoder", ["magnitudes", "istft"])
def test_predictions_are_what_each_text_alone_is_answered_with(vocoder):
    built, own = network(vocoder), batch()
    with torch.inference_mode():
        found = train.predict(built, own, values())
        for index in (0, 1):
            speech = synthesis.synthesised(built, row(own, index)["target"])
            length = int(found["speech_length"][index])
            assert torch.equal(found["speech"][index, :length], speech.sound)
            letters = len(speech.duration)
            assert torch.equal(found["duration"][index, :letters], speech.duration)
            assert length == (int(speech.duration.sum()) - 1) * built.spectra.hop
            assert found["spoken"][index, :letters].round().sum() == (32, 20)[index]


def test_errors_of_rounding_durations_do_not_add_up():
    built = network()
    with torch.inference_mode():
        plan = synthesis.planned(built, batch()["target"][:1])
    exact = plan.how.duration.exp().cumsum(1)
    assert (plan.ends - exact).abs()[:, :-1].max() <= 0.5
