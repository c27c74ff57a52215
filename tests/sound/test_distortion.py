"""Distortion is a difference of spectra in dB along the best alignment, loudness and silence at the ends apart."""

import itertools

import numpy as np
import pytest

from components.sound import distortion


def bands(frames: int = 12, count: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((frames, count))


def test_the_distortion_of_a_ripple_is_its_root_mean_square_in_decibels():
    flat, place = np.zeros((1, 80)), (np.arange(80) + 0.5) / 80
    ripple = 0.3 * np.cos(np.pi * 3 * place)[None]  # nepers of amplitude
    found = distortion.distances(distortion.cepstra(flat), distortion.cepstra(ripple))
    decibels = 20 / np.log(10) * ripple
    assert found.item() == pytest.approx(np.sqrt(np.square(decibels).mean()))


def test_loudness_does_not_count():
    own = bands()
    assert distortion.cepstra(own + 2) == pytest.approx(distortion.cepstra(own), abs=1e-12)


def test_an_utterance_that_is_stretched_has_no_distortion():
    own = distortion.cepstra(bands())
    slow = np.repeat(own, [1, 3, 1, 2, 1, 1, 4, 1, 1, 2, 1, 1], axis=0)
    cost = distortion.distances(own, slow)
    rows, columns = distortion.warped(cost)
    assert cost[rows, columns].max() < 1e-5
    assert {*rows.tolist()} == {*range(12)}
    assert {*columns.tolist()} == {*range(19)}


def total(cost: np.ndarray) -> float:
    """Return the cost of the cheapest path, by looking at all of them."""
    rows, columns = cost.shape
    best = np.inf
    for length in range(max(rows, columns), rows + columns):
        for steps in itertools.product(((1, 0), (0, 1), (1, 1)), repeat=length - 1):
            path = np.cumsum([(0, 0), *steps], axis=0)
            if tuple(path[-1]) == (rows - 1, columns - 1):
                best = min(best, cost[path[:, 0], path[:, 1]].sum())
    return best


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (3, 4), (4, 4)])
def test_the_path_is_the_cheapest_of_all(shape):
    cost = np.random.default_rng(1).random(shape)
    rows, columns = distortion.warped(cost)
    assert cost[rows, columns].sum() == pytest.approx(total(cost))
    steps = {*zip(np.diff(rows).tolist(), np.diff(columns).tolist(), strict=True)}
    assert steps <= {(1, 0), (0, 1), (1, 1)}


def test_silence_at_the_ends_is_left_out_and_that_between_words_stays():
    own = np.full((10, 40), -8.0)
    own[3:5] = own[7] = 0
    assert distortion.sounding(own) == slice(3, 8)
