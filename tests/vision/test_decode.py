import io
import random
import struct
import time
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from components.vision.decode import Unusable, decode, peek

SIZE = 32


def encoded(image: Image.Image, format_: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def noise(mode: str = "RGB", size: tuple[int, int] = (SIZE, SIZE)) -> Image.Image:
    shape = size[::-1] if mode == "L" else (*size[::-1], len(mode))
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8), mode)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """A PNG that lacks its pixels: whoever decodes them finds it truncated."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(99)))


def value(data: bytes, channels: int = 1) -> list[int]:
    """The colour of an image that has only one."""
    pixels = decode(data, SIZE, channels, 64)
    assert (pixels == pixels[:, :1, :1]).all()
    return pixels[:, 0, 0].tolist()


def reason(data: bytes, **options) -> str:
    with pytest.raises(Unusable) as error:
        decode(data, **{"size": SIZE, "channels": 3, "max_megapixels": 64} | options)
    return str(error.value)


LOSSLESS = {"PNG": {}, "BMP": {}, "TIFF": {}, "PPM": {}, "WEBP": {"lossless": True}}


@pytest.mark.parametrize("format_", LOSSLESS)
def test_an_image_that_has_the_size_already_keeps_every_pixel(format_):
    image = noise()
    pixels = decode(encoded(image, format_, **LOSSLESS[format_]), SIZE, 3, 64)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, np.asarray(image).transpose(2, 0, 1))


@pytest.mark.parametrize("format_", ["PNG", "BMP", "GIF", "TIFF", "PPM"])
def test_grey_stays_as_it_is_in_one_channel_and_is_repeated_in_three(format_):
    image = noise("L")
    data = encoded(image, format_)
    assert np.array_equal(decode(data, SIZE, 1, 64)[0], np.asarray(image))
    assert np.array_equal(decode(data, SIZE, 3, 64), np.stack([np.asarray(image)] * 3))


def test_colour_becomes_grey_by_its_luma():
    assert value(encoded(Image.new("RGB", (9, 9), (200, 100, 50)), "PNG")) == [round(0.299 * 200 + 58.7 + 5.7)]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_an_image_is_turned_as_its_exif_tag_says(format_, orientation):
    stored = np.zeros((48, 96, 3), np.uint8)
    stored[:24, :48], stored[:24, 48:], stored[24:, :48] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode(encoded(Image.fromarray(stored), format_, exif=exif), SIZE, 3, 64)
    corners = [pixels[:, y, x] for y in (6, 25) for x in (6, 25)]
    seen = ["RGBK"[int(colour.argmax()) if colour.max() > 128 else 3] for colour in corners]
    # Exif 2.32, table 6: which sides of the picture are the stored rows and columns that come first.
    turned = ["RGBK", "GRKB", "KBGR", "BKRG", "RBGK", "BRKG", "KGBR", "GKRB"]
    assert "".join(seen) == turned[orientation - 1]


@pytest.mark.parametrize("format_", ["PNG", "GIF"])
def test_a_palettes_transparent_colour_becomes_white(format_):
    image = Image.new("P", (SIZE, SIZE), 1)
    image.putpalette([0, 0, 0, 200, 10, 20])
    image.paste(0, (0, 0, SIZE, 10))
    pixels = decode(encoded(image, format_, transparency=0), SIZE, 3, 64)
    assert (pixels[:, :10] == 255).all()
    assert (pixels[:, 10:] == np.array([200, 10, 20])[:, None, None]).all()


@pytest.mark.parametrize(("mode", "colour"), [("LA", (100, 51)), ("RGBA", (100, 100, 100, 51))])
def test_what_is_partly_transparent_is_seen_on_white(mode, colour):
    data = encoded(Image.new(mode, (50, 40), colour), "PNG")
    assert value(data) == [round(255 * 0.8 + 100 * 0.2)]
    assert value(data, channels=3) == [224] * 3


def test_what_is_wholly_transparent_does_not_show_its_hidden_colour():
    assert value(encoded(Image.new("RGBA", (50, 40), (9, 9, 9, 0)), "PNG"), channels=3) == [255] * 3


def test_a_cmyk_jpeg_has_its_own_colours_and_not_their_inverse():
    red, green, blue = value(encoded(Image.new("CMYK", (SIZE, SIZE), (0, 255, 255, 0)), "JPEG"), channels=3)
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("format_", ["PNG", "PPM", "TIFF"])
def test_sixteen_bits_are_divided_by_257_and_not_clipped(format_):
    values = np.linspace(0, 65535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    data = encoded(Image.fromarray(values), format_)
    expected = np.rint(values / 257).astype(np.uint8)
    assert np.array_equal(decode(data, SIZE, 1, 64)[0], expected)
    assert np.array_equal(decode(data, SIZE, 3, 64)[2], expected)


def test_sixteen_bit_colour_keeps_its_whole_range():
    pixels = np.full((SIZE, SIZE, 3), [0, 32768, 65535], ">u2")
    assert value(b"P6 32 32 65535\n" + pixels.tobytes(), channels=3) == [0, 128, 255]


def test_the_transparent_grey_of_a_sixteen_bit_png_becomes_white():
    rows = b"".join(b"\0" + struct.pack(">HH", 300, 0) for _ in range(2))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 0, 0, 0, 0))
    body = chunk(b"tRNS", struct.pack(">H", 300)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    pixels = decode(b"\x89PNG\r\n\x1a\n" + header + body, 2, 1, 64)
    assert pixels.tolist() == [[[255, 0], [255, 0]]]


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_one_bit_is_black_and_white_and_blends_when_it_shrinks(format_):
    image = Image.fromarray(np.indices((256, 256)).sum(0) % 2 == 1)
    assert set(np.unique(decode(encoded(image, format_), 256, 1, 64))) == {0, 255}
    assert abs(int(decode(encoded(image, format_), SIZE, 1, 64)[0, 16, 16]) - 128) < 3


@pytest.mark.parametrize("mode", ["I", "F"])
def test_values_without_a_known_range_are_refused(mode):
    data = encoded(Image.new(mode, (SIZE, SIZE), 70_000), "TIFF")
    assert "have no known range" in reason(data)


@pytest.mark.parametrize("format_", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_of_many_frames_is_taken(format_):
    frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("white", "black", "red")]
    data = encoded(frames[0], format_, save_all=True, append_images=frames[1:])
    assert value(data, channels=3) == [255] * 3


@pytest.mark.parametrize("turned", [False, True])
def test_the_centre_of_an_oblong_image_is_kept(turned):
    image = Image.new("L", (300, 100), 0)
    image.paste(200, (100, 0, 200, 100))
    image = image.transpose(Image.Transpose.ROTATE_90) if turned else image
    assert value(encoded(image, "PNG")) == [200]


def test_an_odd_crop_moves_no_pixel():
    image = noise("L", (SIZE + 5, SIZE))
    assert np.array_equal(decode(encoded(image, "PNG"), SIZE, 1, 64)[0], np.asarray(image)[:, 2 : SIZE + 2])


def test_a_strip_of_one_pixel_does_not_explode():
    start = time.perf_counter()
    decode(encoded(Image.new("L", (1, 60_000)), "PNG"), 1024, 3, 64)
    assert time.perf_counter() - start < 2


def test_a_large_jpeg_that_is_shrunk_while_it_is_decoded_looks_like_the_same_png():
    y, x = np.mgrid[:1200, :1200]
    waves = np.stack([np.sin(x / 40) + np.cos(y / 25), np.sin(x * y / 9000), np.cos(x / 70)], -1)
    image = Image.fromarray((waves * 60 + 128).clip(0, 255).astype(np.uint8))
    one, other = (
        decode(encoded(image, name, **options), SIZE, 3, 64).astype(int)
        for name, options in (("PNG", {}), ("JPEG", {"quality": 95, "subsampling": 0}))
    )
    assert np.abs(one - other).mean() < 2


def test_nothing_is_smaller_than_one_pixel_and_one_is_enough():
    assert value(encoded(Image.new("L", (1, 1), 77), "PNG")) == [77]


def test_an_empty_file_is_refused():
    assert reason(b"") == "zero bytes"


@pytest.mark.parametrize("data", [b"x", b"once upon a time\n" * 99, bytes(5000), b"\xff\xd8", b"%!PS-Adobe"])
def test_what_is_no_image_is_refused(data):
    assert reason(data) == "not an image"


@pytest.mark.parametrize("format_", ["EPS", "ICO", "PCX", "PDF", "SGI", "TGA", "JPEG2000"])
def test_formats_beyond_the_common_ones_are_refused_though_pillow_knows_them(format_):
    assert reason(encoded(noise(), format_)) == "not an image"


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "BMP", "GIF", "PPM"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_file_is_refused_with_the_reason(format_, share):
    data = encoded(noise(size=(200, 200)), format_)
    assert reason(data[: int(len(data) * share)]) == "truncated"


@pytest.mark.parametrize("format_", ["TIFF", "WEBP"])
def test_a_truncated_file_of_a_format_that_cannot_tell_is_refused_too(format_):
    data = encoded(noise(size=(200, 200)), format_, **LOSSLESS[format_])
    assert reason(data[: len(data) // 2])


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_by_its_header_with_its_size():
    expected = "decompression bomb: 12000 x 12000 pixels is over max_megapixels 64"
    assert reason(png_header(12_000, 12_000)) == expected


def test_a_bomb_that_pillow_refuses_itself_is_called_a_bomb():
    assert reason(png_header(60_000, 60_000)) == "decompression bomb: the image is far over max_megapixels 64"


def test_the_limit_is_the_one_given():
    data = encoded(noise("L", (300, 100)), "PNG")
    assert decode(data, SIZE, 1, 0.03).shape == (1, SIZE, SIZE)
    assert reason(data, max_megapixels=0.0299).endswith("300 x 100 pixels is over max_megapixels 0.0299")


def test_a_png_whose_text_explodes_is_refused():
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3_000_000)))
    data = encoded(noise(), "PNG")
    assert reason(data[:33] + bomb + data[33:]).startswith("unreadable: ")


FUZZED = {
    "JPEG": {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"},
    "PNG": {},
    "BMP": {},
    "GIF": {},
    "TIFF": {"compression": "tiff_lzw"},
    "WEBP": {},
    "PPM": {},
}


@pytest.mark.parametrize("format_", FUZZED)
@pytest.mark.parametrize("warned", ["ignore", "error"])
def test_damaged_files_give_pixels_or_a_reason_and_nothing_else(format_, warned):
    source, shapes, reasons = random.Random(format_), set(), set()
    whole = encoded(noise(), format_, **FUZZED[format_])
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(source.choice([1, 1, 3, 20])):
            # Half of the blows go to the header, where they hurt most.
            data[source.randrange(min(64, len(data)) if source.random() < 0.5 else len(data))] = source.randrange(
                256
            )
        data = bytes(data[: source.randrange(len(data))] if source.random() < 0.2 else data)
        with warnings.catch_warnings():
            warnings.simplefilter(warned)
            try:
                shapes.add(decode(data, SIZE, 3, 64).shape)
            except Unusable as error:
                reasons.add(str(error))
    assert shapes == {(3, SIZE, SIZE)}
    assert len(reasons) > 1
    assert all(4 < len(text) < 130 for text in reasons)
    assert not any("0x" in text for text in reasons), "an address in memory differs from run to run"


@pytest.mark.parametrize(
    ("image", "grey"),
    [
        (Image.new("1", (50, 40)), True),
        (Image.new("L", (50, 40)), True),
        (Image.new("LA", (50, 40)), True),
        (Image.fromarray(np.zeros((40, 50), np.uint16)), True),
        (Image.new("L", (50, 40)).convert("P"), True),
        (Image.new("RGB", (50, 40)), False),
        (Image.new("RGBA", (50, 40)), False),
        (Image.new("RGB", (50, 40), "red").convert("P", palette=Image.Palette.ADAPTIVE), False),
    ],
)
def test_a_look_at_the_header_tells_whether_it_is_grey_and_the_shorter_side(tmp_path, image, grey):
    image.save(tmp_path / "a.png")
    assert peek(tmp_path / "a.png", 64) == (grey, 40)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_look_at_the_header_refuses_what_decoding_would_refuse(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_header(12_000, 12_000))
    (tmp_path / "text.png").write_text("text")
    for name in ("bomb.png", "text.png", "missing.png"):
        with pytest.raises(Unusable):
            peek(tmp_path / name, 64)
