import io
import random
import re
import struct
import time
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageChops, features

from components.images.decoding import jpeg
from components.images.decoding.decode import Unusable, decode, native, peek

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


def plain(mode: str, size: tuple[int, int], colour) -> Image.Image:
    """An image of one colour but for a mark in the corner, as one of a single colour is rejected."""
    image = Image.new(mode, size, colour)
    image.paste(0, (0, 0, size[0] // 4, size[1] // 4))
    return image


def value(data: bytes, channels: int = 1) -> list[int]:
    """The colour of a `plain` image."""
    pixels = decode(data, SIZE, channels, 64)[:, -SIZE // 3 :, -SIZE // 3 :]
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
    assert value(encoded(plain("RGB", (40, 40), (200, 100, 50)), "PNG")) == [round(0.299 * 200 + 58.7 + 5.7)]


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


@pytest.mark.parametrize("format_", LOSSLESS)
def test_an_image_at_its_own_size_keeps_every_pixel(format_):
    image = Image.fromarray(np.random.default_rng(0).integers(256, size=(7, 50, 3), dtype=np.uint8))
    pixels = native(encoded(image, format_, **LOSSLESS[format_]), 3, 64)
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, np.asarray(image).transpose(2, 0, 1))
    assert native(encoded(image, format_, **LOSSLESS[format_]), 1, 64).shape == (1, 7, 50)


@pytest.mark.parametrize(
    ("annotated", "size"), [(None, (48, 96)), ((48, 96), (48, 96)), ((96, 48), (96, 48))], ids=str
)
def test_the_size_in_an_annotation_tells_whether_an_image_is_turned_by_its_exif_tag(annotated, size):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.random.default_rng(0).integers(256, size=(48, 96, 3), dtype=np.uint8))  # 96 wide
    assert native(encoded(stored, "PNG", exif=exif), 3, 64, annotated).shape == (3, size[1], size[0])


def test_an_image_of_another_size_than_in_its_annotation_is_rejected():
    stored = Image.fromarray(np.random.default_rng(0).integers(256, size=(48, 96, 3), dtype=np.uint8))
    with pytest.raises(Unusable, match="it has 96 x 48 pixels, but its annotation says 95 x 48"):
        native(encoded(stored, "PNG"), 3, 64, (95, 48))


def test_an_image_of_one_colour_is_rejected_at_its_own_size_too():
    with pytest.raises(Unusable, match=r"^all pixels have one colour$"):
        native(encoded(Image.new("RGB", (30, 40), (9, 9, 99)), "PNG"), 3, 64)
    with pytest.raises(Unusable, match="zero bytes"):
        native(b"", 3, 64)


ORIENTATION = (0x0112, 3, 1, struct.pack("<HH", 6, 0))
ODD_TAGS = {
    "a width that is text": (0x0100, 2, 4, b"60a\0"),
    "a negative width": (0x0100, 9, 1, struct.pack("<i", -1)),
    "a compression that is no number": (0x0103, 11, 1, struct.pack("<f", float("nan"))),
    "a Photoshop block that is text": (0x8649, 2, 4, b"abc\0"),
    "a resolution that lies beyond the end": (0x011A, 5, 1, struct.pack("<I", 9_999)),
    "a type that does not exist": (0x010F, 77, 1, bytes(4)),
    "a position that lies beyond the end": (0x8825, 4, 1, struct.pack("<I", 99_999)),
}


def exif_of(*tags: tuple[int, int, int, bytes]) -> bytes:
    entries = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in sorted(tags))
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def stored_on_its_side(exif: bytes, format_: str = "JPEG") -> bytes:
    """An image whose first row, which is white, is the right side if it is turned by orientation 6."""
    image = Image.new("L", (64, 64))
    image.paste(255, (0, 0, 64, 16))
    return encoded(image, format_, exif=exif)


def is_upright(data: bytes) -> bool:
    pixels = decode(data, SIZE, 1, 64)[0]
    return bool((pixels[:, -6:] > 240).all() and (pixels[:, :20] < 15).all())


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("tag", ODD_TAGS)
def test_a_photo_with_one_odd_exif_tag_is_turned_by_its_orientation_alone(tag, format_):
    assert is_upright(stored_on_its_side(exif_of(ORIENTATION, ODD_TAGS[tag]), format_))


@pytest.mark.parametrize(
    "orientation",
    [
        (0x0112, 4, 1, struct.pack("<I", 6)),
        (0x0112, 3, 2, struct.pack("<HH", 6, 0)),
        (0x0112, 1, 1, b"\x06\0\0\0"),
    ],
)
def test_an_orientation_of_another_type_or_count_turns_a_photo_too(orientation):
    assert is_upright(stored_on_its_side(exif_of(orientation)))


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0once upon a time", exif_of((0x0112, 2, 4, b"top\0"))])
def test_a_photo_whose_exif_block_says_nothing_is_taken_as_it_is_stored(exif):
    pixels = decode(stored_on_its_side(exif), SIZE, 1, 64)[0]
    assert (pixels[:6] > 240).all()
    assert (pixels[12:] < 15).all()


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
    data = encoded(plain(mode, (50, 40), colour), "PNG")
    assert value(data) == [round(255 * 0.8 + 100 * 0.2)]
    assert value(data, channels=3) == [224] * 3


def test_what_is_wholly_transparent_does_not_show_its_hidden_colour():
    image = Image.new("RGBA", (50, 40), (9, 9, 9, 0))
    image.paste((9, 9, 9, 255), (0, 0, 20, 20))
    assert value(encoded(image, "PNG"), channels=3) == [255] * 3


@pytest.mark.parametrize("side", [64, 1000])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_cmyk_jpeg_is_inverted_by_adobes_marker_only(side, progressive):
    red = (0, 255, 255, 0)
    marked = encoded(plain("CMYK", (side, side), red), "JPEG", progressive=progressive)  # Pillow stores the inverse
    unmarked = encoded(ImageChops.invert(plain("CMYK", (side, side), red)), "JPEG", progressive=progressive)
    unmarked = unmarked.replace(unmarked[(at := unmarked.index(b"\xff\xee")) : at + 16], b"")
    assert b"Adobe" not in unmarked
    for data in (marked, unmarked):
        red, green, blue = value(data, channels=3)
        assert red > 240
        assert max(green, blue) < 15
        assert decode(data, SIZE, 3, 64)[:, 1, 1].min() > 240


def test_a_cmyk_tiff_is_never_inverted():
    assert value(encoded(plain("CMYK", (64, 64), (0, 255, 255, 0)), "TIFF"), channels=3) == [255, 0, 0]


@pytest.mark.parametrize("format_", ["PNG", "PPM", "TIFF"])
def test_sixteen_bits_are_divided_by_257_and_not_clipped(format_):
    values = np.linspace(0, 65535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    data = encoded(Image.fromarray(values), format_)
    expected = np.rint(values / 257).astype(np.uint8)
    assert np.array_equal(decode(data, SIZE, 1, 64)[0], expected)
    assert np.array_equal(decode(data, SIZE, 3, 64)[2], expected)


def scale(bits: int = 16) -> np.ndarray:
    """All greys from black on the left to white on the right, in some bits."""
    return np.tile(np.linspace(0, 2**bits - 1, SIZE).astype(np.uint16), (SIZE, 1))


def test_sixteen_bits_of_which_0_is_white_do_not_become_the_negative():
    data = encoded(Image.fromarray(scale()), "TIFF", tiffinfo={262: 0})
    pixels = decode(data, SIZE, 1, 64)[0]
    assert np.array_equal(pixels[0], np.linspace(255, 0, SIZE).round())


def test_a_tiff_of_twelve_bits_has_its_whole_range():
    values = scale(12)
    even, odd = values[:, ::2], values[:, 1::2]  # two values are three bytes
    packed = np.stack([even >> 4, (even & 15) << 4 | odd >> 8, odd & 255], -1).astype(np.uint8)
    data = encoded(Image.fromarray(packed.reshape(SIZE, -1)), "TIFF")
    for tag, kind, eight, twelve in ((256, 4, SIZE * 3 // 2, SIZE), (258, 3, 8, 12)):
        was, now = (struct.pack("<HHII", tag, kind, 1, value) for value in (eight, twelve))
        assert was in data
        data = data.replace(was, now)
    assert np.abs(decode(data, SIZE, 1, 64)[0][0] - np.linspace(0, 255, SIZE)).max() <= 1


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_sixteen_bits_that_hold_fewer_are_rejected_as_nearly_black(format_, bits):
    said = f"nearly black: its grey values go up to {2**bits - 1:,} of 65,535: multiply them, or store 8 bits"
    assert reason(encoded(Image.fromarray(scale(bits)), format_)) == said


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("highest", [1, 9, 15])
def test_eight_bits_that_hold_few_levels_are_rejected_as_nearly_black(mode, highest):
    levels = Image.fromarray((np.indices((SIZE, SIZE)).sum(0) % (highest + 1)).astype(np.uint8))
    said = f"nearly black: its values go from 0 to {highest} of 255: multiply them"
    for channels in (1, 3):
        assert reason(encoded(levels.convert(mode), "PNG"), channels=channels) == said


def test_an_alpha_of_0_and_1_is_rejected_as_it_leaves_only_white():
    image = noise("RGBA")
    image.putalpha(Image.fromarray(np.indices((SIZE, SIZE)).sum(0).astype(np.uint8) % 2))
    assert reason(encoded(image, "PNG")) == (
        "nearly white: its values go from 254 to 255 of 255: multiply its alpha"
    )
    light = noise("L").point(lambda grey: 240 + grey // 17)
    assert reason(encoded(light, "PNG")) == "nearly white: its values go from 240 to 255 of 255: stretch them"


@pytest.mark.parametrize(("ground", "spot"), [(2, 60), (253, 200)])
def test_a_picture_is_judged_before_a_spot_in_it_disappears_by_resizing(ground, spot):
    image = Image.new("L", (256, 256), ground)
    image.paste(spot, (100, 100, 104, 104))
    assert np.ptp(decode(encoded(image, "PNG"), 8, 1, 64)) < 16
    assert np.ptp(decode(encoded(image, "PNG"), 256, 1, 64)) == abs(ground - spot)


def test_signed_values_of_eight_bits_are_rejected_and_not_taken_for_unsigned_ones():
    data = encoded(noise("L"), "TIFF", tiffinfo={339: 2})
    assert reason(data) == "unreadable: signed grey values of 8 bits have no known range"


def test_sixteen_bit_colour_keeps_its_whole_range():
    pixels = np.full((SIZE, SIZE, 3), [0, 32768, 65535], ">u2")
    pixels[0, 0] = 0
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
    image.paste(1, (0, 0, 64, 64))
    assert set(np.unique(decode(encoded(image, format_), 256, 1, 64))) == {0, 255}
    assert abs(int(decode(encoded(image, format_), SIZE, 1, 64)[0, 16, 16]) - 128) < 3


@pytest.mark.parametrize("mode", ["I", "F"])
def test_values_without_a_known_range_are_rejected(mode):
    data = encoded(Image.new(mode, (SIZE, SIZE), 70_000), "TIFF")
    assert "have no known range" in reason(data)


@pytest.mark.parametrize("format_", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_of_many_frames_is_taken(format_):
    frames = [plain("RGB", (SIZE, SIZE), colour) for colour in ("white", "black", "red")]
    data = encoded(frames[0], format_, save_all=True, append_images=frames[1:])
    assert value(data, channels=3) == [255] * 3


@pytest.mark.parametrize("turned", [False, True])
def test_the_centre_of_an_oblong_image_is_kept(turned):
    image = Image.new("L", (300, 100), 0)
    image.paste(plain("L", (100, 100), 200).rotate(270 if turned else 0), (100, 0))
    image = image.transpose(Image.Transpose.ROTATE_90) if turned else image
    assert value(encoded(image, "PNG")) == [200]


def test_an_odd_crop_moves_no_pixel():
    image = noise("L", (SIZE + 5, SIZE))
    assert np.array_equal(decode(encoded(image, "PNG"), SIZE, 1, 64)[0], np.asarray(image)[:, 2 : SIZE + 2])


def test_a_strip_of_one_pixel_does_not_explode():
    start = time.perf_counter()
    with pytest.raises(Unusable, match="only the central square is used"):  # a single pixel
        decode(encoded(noise("L", (1, 60_000)), "PNG"), 1024, 3, 64)
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


def test_an_image_of_two_by_two_pixels_is_enough():
    image = Image.fromarray(np.array([[0, 0], [77, 77]], np.uint8))
    assert decode(encoded(image, "PNG"), 2, 1, 64).tolist() == [[[0, 0], [77, 77]]]


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_alpha_of_0_everywhere_is_no_transparency(format_, channels):
    image = noise("RGBA")
    options = LOSSLESS[format_] | ({"exact": True} if format_ == "WEBP" else {})
    opaque = decode(encoded(image.convert("RGB"), format_, **LOSSLESS[format_]), SIZE, channels, 64)
    image.putalpha(0)
    assert np.array_equal(decode(encoded(image, format_, **options), SIZE, channels, 64), opaque)


def bmp(pixels: np.ndarray) -> bytes:
    """A BMP of RGBA pixels (H, W, 4) with masks for four channels (BITMAPV5HEADER)."""
    height, width, _ = pixels.shape
    head = struct.pack("<IiiHHIIiiII", 124, width, height, 1, 32, 3, pixels.nbytes, 2835, 2835, 0, 0)
    head += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(64)
    return (
        b"BM"
        + struct.pack("<IHHI", 138 + pixels.nbytes, 0, 0, 138)
        + head
        + pixels[::-1, :, [2, 1, 0, 3]].tobytes()
    )


def test_an_alpha_of_0_everywhere_in_a_bmp_is_no_transparency():
    pixels = np.asarray(noise("RGBA")).copy()
    pixels[..., 3] = 0
    assert np.array_equal(decode(bmp(pixels), SIZE, 3, 64), pixels[..., :3].transpose(2, 0, 1))
    pixels[:9, :, 3] = 255
    assert (decode(bmp(pixels), SIZE, 3, 64)[:, 9:] == 255).all()


@pytest.mark.parametrize("alphas", [bytes(2), bytes(256)])
def test_a_palette_whose_entries_are_all_transparent_is_opaque(alphas):
    image = Image.new("P", (SIZE, SIZE), 1)
    image.putpalette([0, 0, 0, 200, 10, 20])
    image.paste(0, (0, 0, SIZE, 10))
    pixels = decode(encoded(image, "PNG", transparency=alphas), SIZE, 3, 64)
    assert (pixels[:, :10] == 0).all()
    assert (pixels[:, 10:] == np.array([200, 10, 20])[:, None, None]).all()


def test_an_alpha_of_0_in_the_central_square_alone_is_transparency():
    image = noise("RGBA", (96, 32))
    image.paste((9, 9, 9, 0), (32, 0, 64, 30))
    pixels = decode(encoded(image, "PNG"), SIZE, 3, 64)
    assert (pixels[:, :30] == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_an_image_of_one_colour_is_rejected(mode):
    assert reason(encoded(Image.new(mode, (SIZE, SIZE), 1), "PNG")) == "all pixels have one colour"


def test_an_image_that_becomes_one_of_one_colour_is_rejected_with_what_was_done_to_it():
    shape = Image.new("RGBA", (SIZE, SIZE), (255, 255, 255, 0))
    shape.paste("white", (4, 4, 20, 20))
    wide = Image.new("L", (200, 100))
    wide.paste(9, (0, 0, 50, 100))
    chessboard = Image.fromarray((np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8))
    hues = Image.new("RGB", (SIZE, SIZE), (100, 0, 0))
    hues.paste((0, 51, 0), (0, 0, 9, 9))
    said = "all pixels have one colour: "
    assert reason(encoded(shape, "PNG")) == said + "transparent pixels are seen on white"
    assert reason(encoded(wide, "PNG")) == said + "only the central square is used"
    assert reason(encoded(chessboard, "PNG"), size=8) == said + "resized to 8 x 8"
    assert reason(encoded(hues, "PNG"), channels=1) == said + "converted to grey"


def test_an_empty_file_is_rejected():
    assert reason(b"") == "zero bytes"


@pytest.mark.parametrize("data", [b"x", b"once upon a time\n" * 99, bytes(5000), b"\xff\xd8"])
def test_what_is_no_image_is_rejected(data):
    assert reason(data) == "not an image"


def tiff(bands: np.ndarray, photometric: int = 2, extra: int | None = None) -> bytes:
    """A TIFF of bands (H, W, N) in 8 or 16 bits, which says what its last one is if `extra` does."""
    height, width, count = bands.shape
    tags = [
        (256, 3, width),
        (257, 3, height),
        (259, 3, 1),
        (262, 3, photometric),
        (277, 3, count),
        (278, 3, height),
    ]
    tags += [(279, 4, bands.nbytes), (258, 3, None), (273, 4, None)]
    tags += [] if extra is None else [(338, 3, extra)]
    end = 8 + 2 + 12 * len(tags) + 4
    bits = struct.pack(f"<{count}H", *[8 * bands.itemsize] * count)
    entries = b""
    for tag, kind, said in sorted(tags, key=lambda tag: tag[0]):
        if tag == 258 and count <= 2:
            entries += struct.pack("<HHI", tag, kind, count) + bits.ljust(4, b"\0")
        else:
            placed = {258: end, 273: end + len(bits)}.get(tag, said)
            entries += struct.pack("<HHII", tag, kind, count if tag == 258 else 1, placed)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head + bits + bands.astype(bands.dtype.newbyteorder("<")).tobytes()


@pytest.mark.parametrize("type_", [np.uint8, np.uint16])
def test_a_fourth_band_is_taken_for_alpha_only_if_the_file_says_so(type_):
    most = np.iinfo(type_).max
    bands = np.random.default_rng(0).integers(0, most, (SIZE, SIZE, 4), type_)
    bands[:8, :8, 3] = 0
    said = "a TIFF of 4 bands, of which none is said to be alpha: store red, green and blue, or set ExtraSamples"
    assert reason(tiff(bands)) == said
    assert (decode(tiff(bands, extra=2), SIZE, 3, 64)[:, :8, :8] == 255).all()
    colours = (bands[..., :3] >> 8 * (bands.itemsize - 1)).transpose(2, 0, 1)
    assert np.array_equal(decode(tiff(bands, extra=0), SIZE, 3, 64), colours)


@pytest.mark.parametrize(("count", "photometric"), [(5, 2), (13, 1), (2, 1), (7, 2)])
@pytest.mark.parametrize(("type_", "kind"), [(np.uint8, "8 bits"), (np.uint16, "16 bits")])
def test_the_bands_of_a_tiff_that_is_not_read_are_counted(tmp_path, count, photometric, type_, kind):
    data = tiff(np.zeros((SIZE, SIZE, count), type_), photometric)
    said = (
        f"a TIFF of {count} bands of {kind}, a kind that is not read: store it as RGB of 8 bits, or grey of 8 or 16"
    )
    assert reason(data) == said
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(Unusable, match=said):
        peek(tmp_path / "a.tif", 64)


@pytest.mark.parametrize("format_", ["PCX", "SGI", "TGA"])
def test_formats_beyond_the_common_ones_are_rejected_though_pillow_knows_them(format_):
    assert reason(encoded(noise(), format_)) == "not an image"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400), "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(400), "HEIC"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99), "JPEG XL"),
        (b"\xff\x0a\xfa\x7f" + bytes(99), "JPEG XL"),
        (encoded(noise(), "JPEG2000"), "JPEG 2000"),
        (encoded(noise(), "ICO"), "ICO"),
        (encoded(noise(), "EPS"), "EPS"),
        (encoded(noise(), "PDF"), "PDF"),
        (b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    ],
)
def test_a_format_that_is_not_read_is_named_by_its_contents(data, name):
    assert reason(data) == f"{name}, a format that is not read: convert it to JPEG or PNG"


def test_a_jpeg_of_a_kind_that_is_not_read_is_called_a_jpeg():
    data = encoded(noise(), "JPEG")
    twelve_bits = data.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c")
    assert reason(twelve_bits) == "unreadable: damaged, or an unusual kind of JPEG"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"<!DOCTYPE html>\n<title>403 Forbidden</title>", "a web page"),
        (b"\0\0\0\x20ftypisom" + bytes(99), "a video"),
        (b"PK\x03\x04" + bytes(99), "a ZIP archive"),
    ],
)
def test_what_is_often_found_among_images_is_named(data, name):
    assert reason(data) == f"not an image: {name}"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("comment", [b"<!-- a note -->\n", b"<!---->"])
def test_a_file_of_many_comments_is_rejected_at_once(comment):
    assert reason(b'<?xml version="1.0"?>\n' + comment * 300 + b"<annotation/>") == "not an image"


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read_turned_and_rejected_as_other_formats_are():
    stored = Image.fromarray(np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[:, None], 64, 1)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row is the right side
    pixels = decode(encoded(stored, "AVIF", quality=95, exif=exif), SIZE, 1, 64)[0].astype(int)
    assert (pixels[:, -3:] < 40).all()
    assert (pixels[:, :3] > 215).all()
    data = encoded(noise(size=(200, 200)), "AVIF")
    assert re.match("truncated|unreadable", reason(data[: len(data) // 2]))
    assert reason(data[:200]) == "unreadable: damaged, or an unusual kind of AVIF"


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "BMP", "GIF", "PPM"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_file_is_rejected_with_the_reason(format_, share):
    data = encoded(noise(size=(200, 200)), format_)
    assert reason(data[: int(len(data) * share)]) == "truncated"


DAMAGED = "damaged: the compressed data do not fit the picture's size"


def photo(size: int, seed: int, **options) -> bytes:
    source = np.random.default_rng(seed)
    waves = np.sin(np.arange(size)[:, None, None] * 0.9 + source.uniform(0, 6)) * [90, 60, 30] + 128
    pixels = (waves + source.normal(0, 20, (size, size, 3))).clip(0, 255).astype(np.uint8)
    return encoded(Image.fromarray(pixels), "JPEG", **{"quality": 90} | options)


def scan_of(data: bytes) -> int:
    """Where the compressed data of a JPEG begin."""
    at = data.index(b"\xff\xda")
    return at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimize": True},
        {"subsampling": 0},
        {"quality": 30},
        {"restart_marker_rows": 1},
        {"progressive": True},
        {"progressive": True, "quality": 30, "subsampling": 0},
        {"progressive": True, "restart_marker_blocks": 7},
    ],
)
def test_no_whole_jpeg_is_taken_for_a_damaged_one(options):
    for size in (*range(5, 40), 63, 100, 224, 401):
        assert decode(photo(size, size, **options), SIZE, 3, 64).shape == (3, SIZE, SIZE)


@pytest.mark.parametrize("progressive", [False, True])
def test_bytes_around_the_data_of_a_jpeg_are_no_damage(progressive):
    data = photo(200, 0, progressive=progressive)
    pixels = decode(data, SIZE, 3, 64)
    thumbnail = Image.open(io.BytesIO(photo(60, 1)))
    two = encoded(Image.open(io.BytesIO(data)), "MPO", save_all=True, append_images=[thumbnail], quality=90)
    assert decode(two, SIZE, 3, 64).shape == (3, SIZE, SIZE)
    assert reason(two[:9000] + bytes(2000) + two[11_000:]) == DAMAGED
    for whole in (
        data + bytes(5000),
        data + photo(100, 2),  # as phones append a second picture
        data[:-2] + bytes(8) + data[-2:],  # as others write a few bytes too many
        data[:-2] + b"\xff" * 99 + data[-2:],  # fill bytes before a marker
        data[:2] + b"\xff\xff\xec\x00\x06\xff\xd9\xff\xda" + data[2:],  # a fill byte, and markers inside a segment
    ):
        assert np.array_equal(decode(whole, SIZE, 3, 64), pixels)


@pytest.mark.parametrize(("size", "progressive"), [(SIZE, False), (400, False), (100, True), (200, True)])
def test_a_jpeg_with_a_run_of_bad_bytes_in_its_middle_is_rejected_nearly_always(size, progressive):
    source, reasons = np.random.default_rng(0), []
    for seed in range(50):
        data = bytearray(photo(size, seed, progressive=progressive))
        at = (scan_of(data) + len(data)) // 2
        data[at : at + 60] = source.integers(1, 200, 60, np.uint8).tobytes()
        try:
            decode(bytes(data), SIZE, 3, 64)
        except Unusable as error:
            reasons.append(str(error))
    assert set(reasons) == {DAMAGED}
    assert len(reasons) >= 40


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lost_a_part_of_its_middle_is_not_filled_up_with_grey(progressive):
    data = photo(400, 0, progressive=progressive)
    assert reason(data[:9000] + data[20_000:]) == DAMAGED
    assert reason(data[:9000] + b"\xff\xd9") == DAMAGED
    assert reason(data[:9000]) == "truncated"
    assert reason(data[:9000] + bytes(4096) + data[13_096:]) == DAMAGED


@pytest.mark.timeout(30)  # a quadratic search would take minutes
def test_a_long_run_of_fill_bytes_in_the_data_of_a_jpeg_is_passed_over_at_once():
    data = photo(100, 0, progressive=True)
    filled = data[:-2] + b"\xff" * 100_000 + b"\0" + data[-2:]
    assert np.array_equal(decode(filled, SIZE, 3, 64), decode(data, SIZE, 3, 64))


def test_of_a_jpeg_with_a_restart_marker_after_every_block_ten_thousand_intervals_are_checked():
    data = photo(400, 0, progressive=True, restart_marker_blocks=1)
    markers = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    early, late = (data[: markers[n]] + bytes(40) + data[markers[n] :] for n in (9900, 10_100))
    assert not jpeg.several_scans_fit(early)
    assert jpeg.several_scans_fit(late), "to check all takes a second for each megapixel"


@pytest.mark.parametrize("format_", ["TIFF", "WEBP"])
def test_a_truncated_file_of_a_format_that_cannot_tell_is_rejected_too(format_):
    data = encoded(noise(size=(200, 200)), format_, **LOSSLESS[format_])
    assert reason(data[: len(data) // 2])


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_rejected_by_its_header_with_its_size():
    expected = "decompression bomb: 12000 x 12000 pixels is over max_megapixels 64"
    assert reason(png_header(12_000, 12_000)) == expected


def test_a_bomb_that_pillow_rejects_itself_is_called_a_bomb():
    assert reason(png_header(60_000, 60_000)) == "decompression bomb: the image is far over max_megapixels 64"


def test_the_limit_is_the_one_given():
    data = encoded(noise("L", (300, 100)), "PNG")
    assert decode(data, SIZE, 1, 0.03).shape == (1, SIZE, SIZE)
    assert reason(data, max_megapixels=0.0299).endswith("300 x 100 pixels is over max_megapixels 0.0299")


def test_a_png_whose_text_explodes_is_rejected():
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
    "AVIF": {},
}


@pytest.mark.parametrize("format_", FUZZED)
@pytest.mark.parametrize("warned", ["ignore", "error"])
def test_damaged_files_give_pixels_or_a_reason_and_nothing_else(format_, warned):
    source, shapes, reasons = random.Random(format_), set(), set()
    whole = encoded(noise(), format_, **FUZZED[format_])
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(source.choice([1, 1, 3, 20])):
            # Half of the mutations are in the header, where they do most damage.
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
def test_a_look_at_the_header_rejects_what_decoding_would_reject(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_header(12_000, 12_000))
    (tmp_path / "text.png").write_text("text")
    for name in ("bomb.png", "text.png", "missing.png"):
        with pytest.raises(Unusable):
            peek(tmp_path / name, 64)
