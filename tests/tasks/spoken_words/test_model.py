import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_model, save_model
from torch import nn
from torch.testing import assert_close

from components.contracts import Manifest
from components.datasets.splits import Columns
from components.errors import PedigreeError
from components.sound.augment import Stretch
from components.sound.log_mel import LogMel
from components.sound.params import FeatureParams
from components.tasks.spoken_words import TASK
from components.tasks.spoken_words.model import Attention, LastState, build_model
from components.training.loop import initialise
from tests.tasks.spoken_words.values import parameters

WORDS = ["down", "up", "yes"]


def manifest(rate=16000, seconds=1.0):
    facts = {
        "classes": WORDS,
        "rate": rate,
        "seconds": seconds,
        "speaker": "(?P<speaker>.*)",
        "counts": {},
        "speakers": {},
    }
    return Manifest(task="spoken_words", splits={}, rejected=[], facts=facts)


def network(*settings, rate=16000):
    torch.manual_seed(0)
    return build_model(parameters(*settings), manifest(rate))


def clips(count=2, samples=16000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (3000 * torch.randn(count, samples, generator=generator)).to(torch.int16)


EVERY = [
    (f"train.model.pool={pool}", f"train.model.batch_norm={norm}", f"train.model.layers={layers}")
    for pool in ("last", "attention")
    for norm in ("true", "false")
    for layers in (1, 2)
]


@pytest.mark.parametrize("settings", EVERY)
def test_a_clip_of_any_length_gets_a_logit_for_each_word(settings):
    model = network(*settings).eval()
    with torch.inference_mode():
        for samples in (1, 160, 161, 4000, 16000, 50_001):
            logits = model(clips(2, samples))
            assert logits.shape == (2, 3)
            assert logits.isfinite().all()


def test_the_convolutions_are_1_to_32_and_32_to_64_with_3x3_filters_and_a_pool_after_each():
    kinds = [type(module) for module in network("train.model.batch_norm=false").convolutions]
    assert kinds == [nn.Conv2d, nn.MaxPool2d, nn.ReLU] * 2
    first, second = (m for m in network().convolutions if isinstance(m, nn.Conv2d))
    assert (first.weight.shape, second.weight.shape) == ((32, 1, 3, 3), (64, 32, 3, 3))
    with_norm = [type(module) for module in network().convolutions]
    assert with_norm == [nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.ReLU] * 2


@pytest.mark.parametrize("mels", [16, 40, 63])
def test_the_lstm_reads_frame_after_frame_with_frequencies_and_channels_together(mels):
    model, seen = network(f"train.features.mels={mels}", "train.augment.frequency_mask=0").eval(), []
    model.lstm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.convolutions.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.inference_mode():
        model(clips(5))
    maps, sequence = seen
    frames, bands = math.ceil(101 / 4), math.ceil(mels / 4)
    assert maps.shape == (5, 64, frames, bands)
    assert sequence.shape == (5, frames, 64 * bands)
    assert torch.equal(sequence[3, 7], maps[3, :, 7, :].T.flatten())
    assert model.lstm.bidirectional


def test_a_clips_logits_do_not_depend_on_the_rest_of_its_batch():
    model, batch = network().eval(), clips(6)
    with torch.inference_mode():
        alone = torch.cat([model(batch[i : i + 1]) for i in range(6)])
        assert_close(model(batch), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pool", ["last", "attention"])
def test_the_order_of_sounds_is_heard(pool):
    model, batch = network(f"train.model.pool={pool}").eval(), clips(1)
    batch[:, :8000] = batch[:, :8000] // 8
    with torch.inference_mode():
        assert not torch.allclose(model(batch), model(batch.flip(1)), atol=1e-3)


def test_loudness_and_scale_change_nothing():
    model, batch = network().eval(), clips()
    with torch.inference_mode():
        logits = model(batch)
        for same in (batch.float(), batch.float() / 32768 * 0.01, batch.float() * 7):
            assert_close(model(same), logits, rtol=1e-3, atol=1e-4)


def test_a_clip_of_zeros_gets_finite_logits():
    with torch.inference_mode():
        assert network().eval()(torch.zeros(1, 16000, dtype=torch.int16)).isfinite().all()


def test_the_channels_last_format_changes_no_logit():
    model, batch = network().eval(), clips()
    with torch.inference_mode():
        logits = model(batch)
        assert_close(model.to(memory_format=torch.channels_last)(batch), logits, rtol=1e-4, atol=1e-5)


def test_under_autocast_the_features_stay_in_float32_and_gradients_flow_to_every_weight():
    model, seen = network().train(), []
    model.log_mel.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(clips(4))
    logits.float().square().sum().backward()
    assert seen == [torch.float32]
    assert all(weights.grad is not None and weights.grad.any() for weights in model.parameters())


def masked(model, batch):
    """What the convolutions are given."""
    seen = []
    hook = model.convolutions.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    model(batch)
    hook.remove()
    return seen[0][:, 0]  # (N, frames, mels)


def test_specaugment_hides_bands_and_frames_in_training_alone():
    batch = clips(64)
    model = network(
        "train.augment.stretch=0", "train.augment.frequency_mask=10", "train.augment.time_mask=30"
    ).train()
    whole = model.log_mel(batch)
    hidden = masked(model, batch) == 0
    bands, frames = hidden.all(1), hidden.all(2)  # (N, mels) and (N, frames)
    assert bands.any(1).float().mean() > 0.8
    assert frames.any(1).float().mean() > 0.8
    assert bands.sum(1).max() <= 20
    assert frames.sum(1).max() <= 60
    assert len({tuple(row.tolist()) for row in frames}) > 50, "each clip has masks of its own"
    assert torch.equal(masked(model.eval(), batch), whole)


def test_a_stretched_clip_is_said_at_another_tempo_with_its_pitch():
    torch.manual_seed(0)
    bands = torch.linspace(0.5, 1, 16)[:, None]
    spoken = (bands * (torch.arange(60) < 20)).expand(200, 1, 16, 60)  # 20 frames of sound, then silence
    stretched = Stretch(0.5)(spoken)
    assert stretched.shape == spoken.shape
    lengths = (stretched[:, 0, 0] > 0).sum(1)
    assert 13 <= lengths.min() <= 15
    assert 36 <= lengths.max() <= 40
    assert_close(stretched[:, 0, :, 5], bands[:, 0].expand(200, 16))
    assert torch.equal(Stretch(0.0)(spoken), spoken)


def test_where_a_stretched_clip_ends_too_soon_there_is_silence():
    torch.manual_seed(0)
    ends = Stretch(0.5)(torch.ones(100, 1, 4, 30))[:, 0, 0, -1]
    assert 0.3 < (ends == 0).float().mean() < 0.7
    assert 0.3 < (ends == 1).float().mean() < 0.7


def test_without_masks_training_hears_everything():
    model = network(
        "train.augment.stretch=0", "train.augment.frequency_mask=0", "train.augment.time_mask=0"
    ).train()
    assert torch.equal(masked(model, clips()), model.log_mel(clips()))


def test_masks_that_could_hide_every_band_are_a_wrong_parameter():
    with pytest.raises(PedigreeError, match=r"augment\.frequency_mask must be less than features\.mels, 40"):
        parameters("train.augment.frequency_mask=40")


def log_mel(rate=16000, mels=40, window=0.025, hop=0.01):
    return LogMel(rate, FeatureParams(mels=mels, window=window, hop=hop))


@settings(max_examples=60)
@given(
    rate=st.integers(4000, 48_000),
    mels=st.integers(16, 128),
    window=st.floats(0.005, 0.1),
    hop=st.floats(0.002, 0.1),
)
def test_no_mel_band_is_empty_and_white_noise_is_as_loud_in_all(rate, mels, window, hop):
    features = log_mel(rate, mels, window, hop)
    weights = features.mel.mel_scale.fb  # (frequencies, mels)
    assert (weights.sum(0) > 0).all()
    noise = torch.randn(4, rate, generator=torch.Generator().manual_seed(0))
    power = features.power(noise).mean((0, 2))  # (mels,)
    assert power.max() < 4 * power.min()


@pytest.mark.parametrize("frequency", [300, 1000, 3000, 6000])
def test_a_tone_shows_in_the_band_round_its_frequency(frequency):
    features = log_mel()
    time = torch.arange(16000) / 16000
    band = int(features(torch.sin(2 * math.pi * frequency * time)[None])[0, 10:40].mean(0).argmax())
    mel = 2595 * math.log10(1 + frequency / 700) / (2595 * math.log10(1 + 8000 / 700)) * 41 - 1
    assert abs(band - mel) <= 1


def test_a_spectrogram_has_a_frame_for_each_hop_and_silence_is_zero():
    spectrogram = log_mel()(clips(3).float())
    assert spectrogram.shape == (3, 101, 40)
    assert spectrogram.min() > 0
    assert 1 < spectrogram.mean() < 3
    assert torch.equal(log_mel()(torch.zeros(1, 1600)), torch.zeros(1, 11, 40))


def test_the_last_state_is_what_each_direction_ends_with():
    lstm, x = nn.LSTM(5, 7, batch_first=True, bidirectional=True), torch.randn(3, 11, 5)
    output, (state, _) = lstm(x)
    assert torch.equal(LastState()(output), torch.cat([state[0], state[1]], 1))


def test_attention_is_a_mean_over_time_that_leaves_what_is_constant():
    torch.manual_seed(0)
    pool = Attention(6)
    constant = torch.randn(2, 1, 6)
    assert_close(pool(constant.expand(-1, 9, -1)), constant[:, 0])
    x = torch.randn(2, 9, 6)
    assert (pool(x) <= x.amax(1)).all()
    assert (pool(x) >= x.amin(1)).all()
    nn.init.zeros_(pool.score.weight)
    assert_close(pool(x), x.mean(1))


def test_a_network_is_the_same_after_its_weights_were_saved_and_loaded(tmp_path):
    model, other = network().eval(), network("train.seed=1").eval()
    for weights in other.parameters():
        nn.init.zeros_(weights)
    save_model(model, str(tmp_path / "weights.safetensors"))
    load_model(other, tmp_path / "weights.safetensors")
    with torch.inference_mode():
        assert torch.equal(other(clips()), model(clips()))


def test_a_random_start_leaves_a_network_as_it_was_drawn():
    model = network()
    before = [weights.clone() for weights in model.parameters()]
    assert initialise(TASK, parameters(), model, Columns({"clip": clips()}), {}) == frozenset()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("padding", [160 * 7, 160 * 80])
def test_silence_after_a_word_changes_nothing_of_how_it_is_seen(padding):
    features, word = log_mel(), clips(3, 8000).float()
    padded = torch.nn.functional.pad(word, (0, padding))
    assert_close(features(padded)[:, :48], features(word)[:, :48])
