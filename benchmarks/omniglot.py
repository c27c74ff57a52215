"""Omniglot laid out for `python -m benchmarks.result`; `benchmarks.layouts` says how."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BACKGROUND = {
    "Arcadian": 26,
    "Armenian": 41,
    "Asomtavruli": 40,
    "Balinese": 24,
    "Bengali": 46,
    "Blackfoot": 14,
    "Braille": 26,
    "Cyrillic": 33,
    "Early_Aramaic": 22,
    "Syriac_Estrangelo": 23,
    "Futhorc": 29,
    "Futurama": 26,
    "Grantha": 43,
    "Greek": 24,
    "Gujarati": 48,
    "Hebrew": 22,
    "Hiragana": 52,
    "Inuktitut": 16,
    "Jawi": 40,
    "Katakana": 47,
    "Korean": 40,
    "Latin": 26,
    "Magi": 20,
    "Mkhedruli": 41,
    "Burmese": 34,
    "N_Ko": 33,
    "Ojibwe": 14,
    "Sanskrit": 42,
    "Tagalog": 17,
    "Tifinagh": 55,
}
"""Alphabets of `images_background.npz` in its order, and the number of characters of each."""
EVALUATION = {
    "Angelic": 20,
    "Atemayar": 26,
    "Atlantean": 26,
    "Aurek-Besh": 26,
    "Avesta": 26,
    "Ge_ez": 26,
    "Glagolitic": 45,
    "Gurmukhi": 45,
    "Kannada": 41,
    "Keble": 26,
    "Malayalam": 47,
    "Manipuri": 40,
    "Mongolian": 30,
    "Old_Church_Slavonic": 45,
    "Oriya": 46,
    "Syriac_Serto": 23,
    "Sylheti": 28,
    "Tengwar": 25,
    "Tibetan": 42,
    "ULOG": 26,
}
"""The same of `images_evaluation.npz`."""
TESTED = 4
"""Drawings of each character, the first of 20, that test a classifier of characters."""


def few_shot(extracted: Path, folder: Path) -> None:
    """Write the characters of the background alphabets for training and of the others for testing."""
    for split, part, alphabets in (("train", "background", BACKGROUND), ("test", "evaluation", EVALUATION)):
        for name, drawings in _characters(extracted / f"images_{part}.npz", alphabets):
            for number, drawing in enumerate(drawings):
                _save(drawing, folder / split / name / f"{number:02d}.png")


def characters(extracted: Path, folder: Path) -> None:
    """Write the background characters as classes; a part of the drawings of each is for testing."""
    for name, drawings in _characters(extracted / "images_background.npz", BACKGROUND):
        for number, drawing in enumerate(drawings):
            split = "test" if number < TESTED else "train"
            _save(
                ~drawing, folder / split / name.replace("/", "-") / f"{number:02d}.png"
            )  # white on black, as MNIST


def _characters(file: Path, alphabets: Mapping[str, int]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield `<alphabet>/<number>` and the drawings (20, 105, 105) of each character, True where paper is."""
    images = np.load(file)["images"]  # (characters, 20, 105, 105)
    names = [f"{alphabet}/{number:02d}" for alphabet, count in alphabets.items() for number in range(count)]
    yield from zip(names, images, strict=True)


def _save(drawing: NDArray[np.bool_], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawing).save(path)
