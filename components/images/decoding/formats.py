"""Why a file that Pillow does not take for an image of our formats cannot be read: its format, or its bands."""

from typing import IO

from PIL import TiffImagePlugin

from components.datasets.formats import OTHER, named

HEAD = 4096
"""Bytes that are inspected."""
IMAGES = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "GIF": rb"GIF8[79]a",
    "WEBP": rb"RIFF.{4}WEBP",
    "AVIF": rb".{4}ftyp(avi[fs]|.{8,40}?avi[fs])",
    "HEIC": rb".{4}ftyp(hei[cxms]|hev[cxms]|mi[af][f12]|msf1)",
    "Canon CR3": rb".{4}ftypcrx",
    "JPEG 2000": rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51",
    "JPEG XL": rb"\xff\x0a|\x00\x00\x00\x0cJXL ",
    "JPEG XR": rb"II\xbc",
    "EPS": rb"%!PS|\xc5\xd0\xd3\xc6",
    "FITS": rb"SIMPLE  =",
    "GIMP's XCF": rb"gimp xcf",
    "ICO": rb"\x00\x00[\x01\x02]\x00[^\x00]",
    "OpenEXR": rb"\x76\x2f\x31\x01",
    "PDF": rb"%PDF",
    "Photoshop's PSD": rb"8BPS",
    "QOI": rb"qoif",
    "Radiance HDR": rb"#\?(RADIANCE|RGBE)",
    # Comments are taken as a whole and never divided anew (++), as there are too many ways to divide them.
    "SVG": rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?((?><!--.*?-->)\s*)*+(<!DOCTYPE svg[^>]*>\s*)?<svg\b",
}
"""Image formats and how their files begin; those that are read can be damaged."""
VIDEO = {"a video": rb".{4}ftyp|.{4}moov|\x1aE\xdf\xa3|RIFF.{4}AVI "}
"""Videos, which are found among images."""


def unread(file: IO[bytes], readable: tuple[str, ...]) -> str:
    """Return the reason why a file is not read as an image.

    Args:
        file: The file, which is read from its start.
        readable: The formats that are read; one of them here is damaged.
    """
    file.seek(0)
    head = file.read(HEAD)
    image = named(head, IMAGES)
    if image in readable:
        return f"unreadable: damaged, or an unusual kind of {image}"
    if image:
        return f"{image}, a format that is not read: convert it to JPEG or PNG"
    if other := named(head, VIDEO | OTHER):
        return f"not an image: {other}"
    return _unread_tiff(file, head) or "not an image"


def _unread_tiff(file: IO[bytes], head: bytes) -> str | None:
    """Return a reason with the bands of a TIFF, or None if it is none or has no such tags."""
    if not head.startswith(tuple(TiffImagePlugin.PREFIXES)):
        return None
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(head[: 16 if 43 in head[2:4] else 8])
        file.seek(tags.next)
        tags.load(file)
        bands = int(tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1))
        bits = sorted(set(tags[TiffImagePlugin.BITSPERSAMPLE]))
        kinds = set(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,)))
    except Exception:  # damaged files cause all kinds of exceptions
        return None
    kind = "floating-point " if kinds == {3} else "signed " if kinds == {2} else ""
    number = f"{bands} {kind}band{'' if bands == 1 else 's'} of {' and '.join(map(str, bits))} bits"
    return f"a TIFF of {number}, a kind that is not read: store it as RGB of 8 bits, or grey of 8 or 16"
