"""DICOM files: their pixels as pictures of 8 bits, and nothing else of them.

Of a file's elements only those in `TAGS` are parsed: they say how pixels are stored and shown. The patient's name
and all other data about people are skipped by the parser, and enter neither arrays, manifests, logs nor error
messages.
"""

from __future__ import annotations

import io
import math
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.datasets.ingest import Unusable

if TYPE_CHECKING:  # the package is optional
    from pydicom import Dataset

EXTRA = "pydicom"
"""The package that reads DICOM, of the extra `[medical]`."""
PREAMBLE, MAGIC = 128, b"DICM"
"""A file begins with 128 bytes of any content and these four (DICOM PS3.10, section 7.1)."""
DEFLATED = b"1.2.840.10008.1.2.1.99"
"""Transfer syntax of files that are compressed as a whole: how large they become is known only afterwards."""
HEAD = 2048
"""Bytes in which the transfer syntax is found."""
TAGS = [
    *("TransferSyntaxUID", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData"),
    *("RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData"),
    *("GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData"),
    *("BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "LUTDescriptor", "LUTData"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
]
"""Keywords of the elements that are read."""
OPTIONAL = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")
"""Keywords of elements that some devices write without a value: they are then as good as missing."""
GREYS = ("MONOCHROME1", "MONOCHROME2")


def is_dicom(data: bytes) -> bool:
    """Return whether a file with these first bytes is a DICOM file."""
    return data[PREAMBLE : PREAMBLE + len(MAGIC)] == MAGIC


def peek(file: IO[bytes], max_megapixels: float) -> tuple[bool, int]:
    """Return whether a file is grey, and its shorter side in pixels, without decoding it.

    Raises:
        Unusable: as in `picture`, as far as the elements tell.
    """
    dataset = _read(file.read(), max_megapixels)
    return str(dataset.PhotometricInterpretation) in GREYS, int(min(dataset.Rows, dataset.Columns))


def picture(data: bytes, max_megapixels: float) -> Image.Image:
    """Return the pixels of a DICOM file's bytes as a picture, L or RGB.

    Grey values pass the modality transformation (rescale slope and intercept, or its table), then the window or
    table of interest (VOI; the first if there are several), and become 8 bits; without one of the two, the smallest
    and largest values of the image are black and white, except for values of 8 bits or fewer, which keep their
    range. Last, MONOCHROME1 is inverted, as its smallest values are white (DICOM PS3.3, sections C.11.1, C.11.2 and
    C.7.6.3.1.2).

    Raises:
        Unusable: the bytes are damaged, hold no image, several frames, or more than `max_megapixels` million
            pixels; or pydicom or the decoder of the compression is not installed.
    """
    dataset = _read(data, max_megapixels)
    try:
        return Image.fromarray(_grey(dataset) if dataset.PhotometricInterpretation in GREYS else _colour(dataset))
    except Unusable:
        raise
    except RuntimeError:  # pydicom's, after all decoders have failed
        raise _undecodable(dataset.file_meta.TransferSyntaxUID) from None
    except Exception as error:  # damaged files cause all kinds; their messages may quote elements
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> Unusable:
    return Unusable(f"unreadable: damaged, or an unusual kind of DICOM ({type(error).__name__})")


def _undecodable(syntax: Any) -> Unusable:
    return Unusable(
        f"DICOM, compressed as {syntax.name}, for which no decoder is installed, or only one that fails: install a "
        "package that pydicom uses for it, such as pylibjpeg, or store it uncompressed"
    )


def _read(data: bytes, max_megapixels: float) -> Dataset:
    """Parse the elements in `TAGS`; check that there is one image, of a size and compression that can be read."""
    if find_spec(EXTRA) is None:
        raise Unusable(
            "DICOM, which needs a package that is not installed: `uv pip install 'pedigree[medical]'`, or convert "
            "it to PNG"
        )
    if DEFLATED in data[:HEAD]:
        raise Unusable("DICOM, compressed as a whole (Deflated Explicit VR Little Endian): store it uncompressed")
    from pydicom import dcmread

    try:
        dataset = dcmread(io.BytesIO(data), specific_tags=list(TAGS))
        missing = [
            name for name in ("PixelData", "Rows", "Columns", "PhotometricInterpretation") if name not in dataset
        ]
        frames = int(dataset.get("NumberOfFrames") or 1)
        pixels = int(dataset.get("Rows", 0)) * int(dataset.get("Columns", 0))
        syntax = dataset.file_meta.TransferSyntaxUID
        compressed = bool(syntax.is_compressed)
        for name in OPTIONAL:
            if name in dataset and dataset[name].is_empty:
                del dataset[name]
    except Exception as error:  # as above
        raise _unreadable(error) from None
    if missing:
        raise Unusable("DICOM without an image, such as a report or a plan")
    if frames > 1:
        raise Unusable(f"DICOM with {frames:,} frames: store each as a file of its own")
    if pixels > max_megapixels * 1e6:
        raise Unusable(
            f"decompression bomb: {dataset.Columns} x {dataset.Rows} pixels is over max_megapixels "
            f"{max_megapixels:g}"
        )
    if compressed:
        _expect_decoder(syntax)
    return dataset


def _expect_decoder(syntax: Any) -> None:
    from pydicom.pixels.decoders.base import get_decoder

    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise _undecodable(syntax)


def _grey(dataset: Dataset) -> NDArray[np.uint8]:
    """Return grey values (H, W) as a viewer shows them."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    stored = dataset.pixel_array
    values = apply_modality_lut(stored, dataset)
    if "VOILUTSequence" in dataset:
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        shown = apply_voi_lut(values, dataset).astype(np.float64) / (2**bits - 1)
    elif "WindowCenter" in dataset and "WindowWidth" in dataset:
        shown = _windowed(values.astype(np.float64), dataset)
    elif stored.dtype == np.uint8 and values is stored:
        shown = values / (2 ** int(dataset.BitsStored) - 1)
    else:
        low, high = float(values.min()), float(values.max())
        shown = (values.astype(np.float64) - low) / ((high - low) or 1)
    levels: NDArray[np.uint8] = np.rint(shown.clip(0, 1) * 255).astype(np.uint8)
    return 255 - levels if dataset.PhotometricInterpretation == "MONOCHROME1" else levels


def _windowed(values: NDArray[np.float64], dataset: Dataset) -> NDArray[np.float64]:
    """Map the first window to 0..1 by its function (DICOM PS3.3, section C.11.2.1)."""
    centre, width = (_first(dataset[name].value) for name in ("WindowCenter", "WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    if not (math.isfinite(centre) and math.isfinite(width) and width >= (1 if function == "LINEAR" else 1e-9)):
        raise Unusable(
            f"DICOM with a window of the width {width:g}: correct its elements WindowCenter and WindowWidth"
        )
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    # A width of 1 is a step between two neighbouring values.
    return (values - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5


def _first(value: Any) -> float:
    return float(value if isinstance(value, str | int | float) else next(iter(value)))


def _colour(dataset: Dataset) -> NDArray[np.uint8]:
    """Return RGB values (H, W, 3) of 8 bits."""
    from pydicom.pixels.processing import apply_color_lut

    values = dataset.pixel_array  # YBR is converted to RGB
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)
    if values.dtype == np.uint16:
        values = (values >> 8).astype(np.uint8)
    if values.dtype != np.uint8 or values.ndim != 3 or values.shape[2] != 3:
        kind = f"{dataset.PhotometricInterpretation}, {values.dtype}"
        raise Unusable(f"DICOM of a kind that is not read ({kind}): convert it to PNG")
    return np.ascontiguousarray(values)
