"""The embedded glyphs: letters of thirteen alphabets in matplotlib's fonts, distorted at random.

Whatever is drawn is computed with integers, so that the files are byte for byte the same everywhere.
"""

import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from components.datasets.raw_files import COMPOSED

ALPHABETS = {
    "train": {
        "armenian": (0x561, 0x586),
        "canadian-syllabics": (0x1401, 0x142E),
        "cyrillic": (0x430, 0x45F),
        "latin": (0x61, 0x7A),
        "lisu": (0xA4D0, 0xA4F7),
        "nko": (0x7CA, 0x7EA),
        "arabic": (0x621, 0x64A),
        "fraktur": (0x1D51E, 0x1D537),
    },
    "test": {
        "georgian": (0x10D0, 0x10F0),
        "greek": (0x3B1, 0x3C9),
        "hebrew": (0x5D0, 0x5EA),
        "lao": (0xE81, 0xEAE),
        "tifinagh": (0x2D30, 0x2D65),
    },
}
"""First and last code point of each alphabet, by split."""
FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic"),
    *("DejaVuSansMono", "STIXGeneral", "STIXGeneralItalic"),
)
"""Fonts in matplotlib's package; a letter is drawn with each that has it."""
IMAGES = 12
"""Images of each letter."""
SIDE, FINE = 28, 4
"""Side of an image in pixels, and the pixels of the drawing, along each axis, that make up one of it."""
UNIT = 1 << 12
"""What 1 is in coordinates, which are integers."""
NOTE = """Letters in fonts of matplotlib, distorted at random, by components/images/embedded/glyphs.py.
"""


def glyphs(folder: Path) -> None:
    """Write letters as folder/{train,test}/<alphabet>/<letter>/<index>.bmp, 28 x 28, white on black.

    The alphabets of test are none of train's, though some of their letters look alike. Sources: DejaVu Fonts
    (dejavu-fonts.github.io, of Bitstream's Vera licence) and STIX Fonts (stixfonts.org, SIL Open Font License).
    """
    write_glyphs(folder, ALPHABETS, IMAGES)


def write_glyphs(folder: Path, alphabets: Mapping[str, Mapping[str, tuple[int, int]]], images: int) -> None:
    """Write so many images of each letter of alphabets, which are given as `ALPHABETS` are."""
    generator = np.random.default_rng(0)
    for split, ranges in alphabets.items():
        for alphabet, (first, last) in ranges.items():
            for code, fonts in _letters(first, last):
                name = unicodedata.name(chr(code)).split(" LETTER ")[-1].lower()
                below = folder / split / alphabet / f"{code:x}-{'-'.join(name.split())}"
                below.mkdir(parents=True)
                drawings = [_drawn(chr(code), font) for font in fonts]
                for index in range(images):
                    drawing = drawings[int(generator.integers(len(drawings)))]
                    Image.fromarray(_distorted(drawing, generator)).save(below / f"{index:02d}.bmp")
    (folder / COMPOSED).write_text(NOTE, encoding="utf-8", newline="\n")


def _letters(first: int, last: int) -> Iterator[tuple[int, list[Path]]]:
    """Yield the code point of each letter that fonts have, and these fonts."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    maps = {path: FT2Font(path).get_charmap() for path in (folder / f"{font}.ttf" for font in FONTS)}
    for code in range(first, last + 1):
        fonts = [path for path, codes in maps.items() if code in codes]
        if fonts and unicodedata.category(chr(code)).startswith("L"):
            yield code, fonts


def _drawn(letter: str, font: Path) -> NDArray[np.uint8]:
    """Return a letter in the middle of a drawing (SIDE FINE, SIDE FINE), white on black."""
    side = SIDE * FINE
    # Raqm, which not every build of Pillow has, would shape letters as parts of words.
    face = ImageFont.truetype(font, side * 11 // 16, layout_engine=ImageFont.Layout.BASIC)
    left, top, right, bottom = face.getbbox(letter)
    picture = Image.new("L", (side, side))
    place = ((side - (right - left)) // 2 - left, (side - (bottom - top)) // 2 - top)
    ImageDraw.Draw(picture).text(place, letter, fill=255, font=face)
    return np.asarray(picture)


def _distorted(drawing: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Return a drawing as an image (SIDE, SIDE): turned, scaled, sheared, shifted, and bent along a coarse grid."""
    side = SIDE * FINE
    places = 2 * np.arange(side) + 1 - side  # of the pixels' centres, in half pixels from the middle
    y, x = np.meshgrid(places, places, indexing="ij")

    def random(most: float) -> int:
        limit = int(most * UNIT)
        return int(generator.integers(-limit, limit + 1))

    bent = [_smooth(generator.integers(-9 * UNIT, 9 * UNIT + 1, (5, 5)), side) for _ in range(2)]
    to_y = (UNIT + random(0.2)) * y + random(0.25) * x + random(12) + bent[0]
    to_x = (UNIT + random(0.2)) * x + random(0.25) * y + random(12) + bent[1]
    rows, columns = ((each // UNIT + side) // 2 for each in (to_y, to_x))
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    fine = np.where(inside, drawing[rows.clip(0, side - 1), columns.clip(0, side - 1)], 0).astype(np.int64)
    sums = fine.reshape(SIDE, FINE, SIDE, FINE).sum((1, 3))
    means: NDArray[np.uint8] = ((sums + FINE * FINE // 2) // (FINE * FINE)).astype(np.uint8)
    return means


def _smooth(grid: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Return a grid's values between its points, (side, side), interpolated linearly."""
    cells = len(grid) - 1
    first, rest = np.divmod(np.arange(side) * cells, side)
    rows = (grid[first] * (side - rest)[:, None] + grid[first + 1] * rest[:, None]) // side  # (side, cells + 1)
    smooth: NDArray[np.int64] = (rows[:, first] * (side - rest) + rows[:, first + 1] * rest) // side
    return smooth
