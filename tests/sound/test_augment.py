"""Masks lie inside recordings, and a change of tempo keeps features."""

import torch

from components.sound import augment


def test_masks_cover_bands_and_at_most_half_of_each_recording_and_no_padding():
    torch.manual_seed(0)
    frames, length = torch.ones(64, 40, 16), torch.tensor([40, 8] * 32)
    found = augment.masked(frames, length, bands=4, steps=10, masks=1)
    in_time = (found == 0).all(2)  # (N, T)
    assert in_time.sum(1).max() <= 10
    assert not in_time[1::2, 8:].any()
    assert in_time[1::2].sum(1).max() <= 4
    assert ((found == 0).all(1).sum(1) <= 4).all()
    assert (found == 0).any()
    assert ((found == 0) | (found == 1)).all()


def test_masks_of_no_width_change_nothing():
    frames = torch.randn(3, 20, 16)
    assert torch.equal(augment.masked(frames, torch.tensor([20, 10, 5]), bands=0, steps=0), frames)


def test_features_at_twice_the_tempo_are_every_second_one():
    features = torch.randn(2, 12, 3)
    found = augment.stretched(features, torch.tensor([[2.0], [1.0]]))
    torch.testing.assert_close(found[0, :6], features[0, ::2])
    assert not found[0, 6:].any()
    torch.testing.assert_close(found[1], features[1])
