import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from components.classification.report import judge
from components.sound.augment import coloured, equalised, warped, with_noise
from components.tasks.spoken_words.model import build_model
from components.tasks.spoken_words.train import LEVELS, augment, fixed_noise, predict, step
from tests.tasks.spoken_words import tiny
from tests.tasks.spoken_words.test_model import clips, manifest
from tests.tasks.spoken_words.values import parameters

CPU = torch.device("cpu")

OFF = ("train.augment.shift=0", "train.augment.speed=0", "train.augment.snr=null", "train.augment.equaliser=0")
EACH = [
    ("train.augment.shift=0.2", "train.augment.speed=0", "train.augment.snr=null", "train.augment.equaliser=0"),
    ("train.augment.shift=0", "train.augment.speed=0.2", "train.augment.snr=null", "train.augment.equaliser=0"),
    ("train.augment.shift=0", "train.augment.speed=0", "train.augment.snr=0", "train.augment.equaliser=0"),
    ("train.augment.shift=0", "train.augment.speed=0", "train.augment.snr=null", "train.augment.equaliser=10"),
    ("train.augment.shift=0.2", "train.augment.speed=0.2", "train.augment.snr=0", "train.augment.equaliser=10"),
]


def labelled(count, samples=16000):
    return {"clip": clips(count, samples), "label": torch.arange(count) % 3}


def column(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None]


def sine(frequency, samples=8000, rate=8000):
    return torch.sin(2 * math.pi * frequency * torch.arange(samples) / rate)[None]


def network(*settings):
    torch.manual_seed(0)
    return build_model(parameters("train.model.hidden=16", "train.features.mels=16", *settings), manifest())


def test_at_its_own_speed_and_place_a_clip_stays_as_it_is():
    clip = clips(3).float()
    assert torch.equal(warped(clip, column(1, 1, 1), column(0, 0, 0)), clip)


@pytest.mark.parametrize("shift", [1, 250, 8000, 20_000])
def test_a_clip_is_moved_by_whole_samples_exactly_with_zeros_coming_in(shift):
    clip = clips(2, 8000).float()
    moved = warped(clip, column(1, 1), column(shift, -shift))
    assert torch.equal(moved[0], F.pad(clip[0], (shift, 0))[:8000])
    assert torch.equal(moved[1], F.pad(clip[1], (0, shift))[shift:])


@pytest.mark.parametrize("speed", [0.8, 0.97, 1.21, 2.0])
def test_another_speed_changes_pitch_and_length_as_much(speed):
    whole = int(8000 / speed)
    faster = warped(sine(300), column(speed), column(0))[0]
    expected = sine(300 * speed)[0]
    end = min(whole, 8000) - 10
    assert (faster - expected)[10:end].abs().max() < 0.01
    assert not faster[min(whole + 2, 8000) :].any()


def test_each_clip_has_a_speed_and_a_shift_of_its_own():
    batch = {"clip": clips(1).expand(50, -1), "label": torch.zeros(50).long()}
    heard = augment(batch, parameters(*EACH[0]))["clip"]
    assert len({clip.numpy().tobytes() for clip in heard}) == 50
    begins = (heard != 0).float().argmax(1)
    assert 2000 < begins.max() <= 0.2 * 16000 + 1


@pytest.mark.parametrize("slope", [0, 1, 2])
def test_the_power_of_noise_falls_by_three_decibels_an_octave_for_each_unit_of_slope(slope):
    noise = coloured(
        torch.randn(200, 8192, generator=torch.Generator().manual_seed(0)), torch.full((200, 1), slope)
    )
    power = torch.fft.rfft(noise).abs().square().mean(0)
    octaves = torch.stack([power[2**k : 2 ** (k + 1)].mean() for k in range(4, 12)]).log2()
    assert_close(octaves.diff(), torch.full((7,), -float(slope)), atol=0.15, rtol=0)


@pytest.mark.parametrize("level", [-5, 0, 10, 40])
def test_noise_is_added_at_the_signal_to_noise_ratio_asked_for(level):
    clip = clips(3).float()
    noise = with_noise(clip, torch.randn(3, 16000) * 17, torch.full((3, 1), float(level))) - clip
    ratio = 10 * torch.log10(clip.square().mean(1) / noise.square().mean(1))
    assert_close(ratio, torch.full((3,), float(level)), atol=0.05, rtol=0)


@pytest.mark.parametrize(("frequency", "gain"), [(2, -12.0), (7998, 12.0)])
def test_an_equaliser_gives_the_lowest_and_the_highest_frequency_what_stands_first_and_last(frequency, gain):
    tone = torch.cos(2 * math.pi * frequency * torch.arange(16000) / 16000)[None]
    curve = torch.tensor([[-12.0, 3, 3, 3, 3, 12]])
    assert_close(
        equalised(tone, curve).square().mean() / tone.square().mean(),
        torch.tensor(10 ** (gain / 10)),
        rtol=0.05,
        atol=0,
    )


def test_an_equaliser_with_one_gain_everywhere_is_louder_alone_and_silence_stays_silence():
    clip = F.pad(clips(2, 8000).float(), (0, 4000))
    louder = equalised(clip, torch.full((2, 6), 20.0))
    assert_close(louder, 10 * clip, rtol=1e-3, atol=1)
    assert not louder[:, 8000:].any()


def test_an_equaliser_changes_a_zero_in_the_midst_of_sound_and_wraps_nothing_round():
    curve = torch.tensor([[-12.0, 12, -12, 12, -12, 12]])
    tone = sine(1000)  # every eighth of its samples lies on zero, but for rounding
    tone[tone.abs() < 1e-3] = 0
    assert equalised(tone, curve)[0, 1:7999][tone[0, 1:7999] == 0].abs().gt(1e-4).any()
    click = torch.zeros(1, 8000)
    click[0, 0], click[0, -1] = 1e-3, 1
    assert equalised(click, curve)[0, :4000].abs().max() < 0.01


def test_zeros_at_the_ends_are_no_part_of_the_signal():
    clip, noise = clips(1, 8000).float(), torch.randn(1, 8000)
    alone = with_noise(clip, noise, column(10)) - clip
    padded = F.pad(clip, (4000, 4000))
    together = with_noise(padded, F.pad(noise, (4000, 4000), mode="circular"), column(10)) - padded
    assert_close(together.square().mean(), alone.square().mean(), rtol=1e-2, atol=0)


def test_the_noise_of_training_lies_between_the_given_level_and_forty_decibels():
    batch = labelled(300)
    chosen = parameters(*OFF, "train.augment.snr=5")
    noise = augment(batch, chosen)["clip"] - batch["clip"]
    ratio = 10 * torch.log10(batch["clip"].float().square().mean(1) / noise.square().mean(1))
    assert 4.9 < ratio.min() < 7
    assert 38 < ratio.max() < 40.1


def test_a_silent_clip_stays_finite():
    batch = {"clip": torch.zeros(2, 16000, dtype=torch.int16), "label": torch.zeros(2).long()}
    assert not augment(batch, parameters(*EACH[-1]))["clip"].any()


def test_with_everything_off_the_clips_stay_as_they_are():
    batch = labelled(8)
    assert torch.equal(augment(batch, parameters(*OFF))["clip"], batch["clip"].float())


@pytest.mark.parametrize("chosen", EACH)
def test_augmentation_leaves_the_given_tensors_and_the_labels_alone(chosen):
    batch = labelled(16)
    before = {name: tensor.clone() for name, tensor in batch.items()}
    result = augment(batch, parameters(*chosen))
    assert result["clip"].shape == (16, 16000)
    assert result["clip"].dtype == torch.float32
    assert torch.equal(result["label"], before["label"])
    assert all(torch.equal(batch[name], before[name]) for name in batch)


@pytest.mark.parametrize("chosen", EACH)
def test_the_seed_decides_the_augmentation(chosen):
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(augment(labelled(8), parameters(*chosen))["clip"])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


class Fixed(nn.Module):
    """Answers with the logits that it was given, whatever the clips."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, clip):
        return self.logits


def test_labels_are_smoothed_in_training_and_not_in_evaluation():
    model, batch = Fixed(torch.randn(8, 3)), labelled(8)
    params = parameters("train.label_smoothing=0.2")
    smooth = F.cross_entropy(model.logits, batch["label"], label_smoothing=0.2, reduction="sum")
    assert_close(step(model.train(), batch, params).loss, smooth)
    plain = F.cross_entropy(model.logits, batch["label"], reduction="sum")
    assert_close(step(model.eval(), batch, params).loss, plain)


def test_predictions_are_logits_of_the_clean_clips_and_of_the_same_clips_in_noise():
    model, batch = network().eval(), labelled(5)
    with torch.inference_mode():
        found = predict(model, batch, parameters())
        assert torch.equal(found["logits"], model(batch["clip"]))
    assert torch.equal(found["label"], batch["label"])
    names = ["logits", *(f"logits_{level}db" for level in LEVELS)]
    assert sorted(found) == sorted([*names, "label"])
    for name in names:
        assert found[name].shape == (5, 3)
        assert found[name].dtype == torch.float32
    far = [float((found[name] - found["logits"]).abs().mean()) for name in names]
    assert far == sorted(far), "the louder the noise, the farther the answer"


def test_the_answers_in_noise_do_not_depend_on_the_batch_or_on_a_generator():
    model, batch = network().eval(), labelled(7)
    with torch.inference_mode():
        whole = predict(model, batch, parameters())
        torch.manual_seed(99)
        pairs = [{k: v[i : i + 2] for k, v in batch.items()} for i in range(0, 7, 2)]
        parts = [predict(model, pair, parameters()) for pair in pairs]
    for name, together in whole.items():
        assert_close(torch.cat([part[name] for part in parts]), together, rtol=1e-4, atol=1e-5)
    assert torch.equal(fixed_noise(1000, CPU), fixed_noise.__wrapped__(1000, CPU))


def test_words_are_learnt_through_every_augmentation():
    params = parameters("prepare.rate=8000", "train.features.mels=24", "train.model.hidden=16", *EACH[-1])
    torch.manual_seed(0)
    model = build_model(params, manifest(8000, 0.25))
    sounds = [tiny.tone(word, 0.8 + 0.02 * i, seed=i) for i in range(20) for word in tiny.WORDS]
    batch = {
        "clip": torch.from_numpy(np.stack(sounds) * 32768).to(torch.int16),
        "label": torch.arange(60) % 3,
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        step(model.train(), augment(batch, params), params).loss.backward()
        optimizer.step()
    with torch.inference_mode():
        found = predict(model.eval(), batch, params)
    assert judge(found["logits"], batch["label"]).correct.float().mean() > 0.95
