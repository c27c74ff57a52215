"""DICOM files, those of pydicom's own tests."""

import io
import logging
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from components.datasets.ingest import Unusable
from components.images.decoding import dicom
from components.images.decoding.decode import decode, peek

FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def bytes_of(name: str, **changes) -> bytes:
    """Return the bytes of a file, with some elements changed."""
    if not changes:
        return (FILES / name).read_bytes()
    dataset = pydicom.dcmread(FILES / name)
    for key, value in changes.items():
        if value is None:
            delattr(dataset, key)
        else:
            setattr(dataset, key, value)
    file = io.BytesIO()
    dataset.save_as(file)
    return file.getvalue()


def levels(name: str, **changes) -> np.ndarray:
    return np.asarray(dicom.picture(bytes_of(name, **changes), 64)).astype(int)


def test_a_window_is_applied_as_the_standard_says():
    dataset = pydicom.dcmread(FILES / "MR_small.dcm")
    centre, width = float(dataset.WindowCenter), float(dataset.WindowWidth)
    expected = ((dataset.pixel_array - (centre - 0.5)) / (width - 1) + 0.5).clip(0, 1) * 255
    assert np.abs(levels("MR_small.dcm") - expected).max() <= 0.5


def test_slope_and_intercept_come_before_the_window():
    plain = levels("CT_small.dcm", WindowCenter=40, WindowWidth=400)
    hounsfield = pydicom.dcmread(FILES / "CT_small.dcm").pixel_array * 1.0 - 1024
    expected = ((hounsfield - 39.5) / 399 + 0.5).clip(0, 1) * 255
    assert np.abs(plain - expected).max() <= 0.5
    exact = levels("CT_small.dcm", WindowCenter=40, WindowWidth=400, VOILUTFunction="LINEAR_EXACT")
    assert np.abs(exact - ((hounsfield - 40) / 400 + 0.5).clip(0, 1) * 255).max() <= 0.5
    sigmoid = levels("CT_small.dcm", WindowCenter=40, WindowWidth=400, VOILUTFunction="SIGMOID")
    assert np.abs(sigmoid - 255 / (1 + np.exp(-4 * (hounsfield - 40) / 400))).max() <= 0.5


def test_monochrome1_is_inverted_after_the_window():
    window = {"WindowCenter": 600, "WindowWidth": 200}
    plain = levels("MR_small.dcm", **window)
    assert {0, 255} <= set(plain.flat), "the window clips on both sides"
    inverted = levels("MR_small.dcm", PhotometricInterpretation="MONOCHROME1", **window)
    assert np.array_equal(inverted, 255 - plain)


def test_without_a_window_the_smallest_and_largest_values_are_black_and_white():
    found = levels("CT_small.dcm")
    assert (found.min(), found.max()) == (0, 255)


def test_a_table_of_interest_is_applied():
    dataset = pydicom.dcmread(FILES / "MR_small.dcm")
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [4096, 0, 16])
    item.add_new("LUTData", "US", [65535 - 16 * index for index in range(4096)])
    found = levels("MR_small.dcm", VOILUTSequence=pydicom.Sequence([item]))
    expected = (65535 - 16 * dataset.pixel_array.clip(0, 4095).astype(int)) / 257
    assert np.abs(found - expected).max() <= 0.5


@pytest.mark.parametrize("name", ["examples_rgb_color.dcm", "examples_palette.dcm", "SC_rgb_rle_16bit.dcm"])
def test_colours_become_rgb_of_8_bits(name):
    picture = dicom.picture(bytes_of(name), 64)
    assert picture.mode == "RGB"
    assert max(high for _, high in picture.getextrema()) == 255


def test_the_same_image_in_three_syntaxes_is_the_same():
    first, *others = (levels(name) for name in ("MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm"))
    assert all(np.array_equal(first, each) for each in others)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("JPEGLSNearLossless_08.dcm", "compressed as JPEG-LS Lossy .Near-Lossless. .*no decoder is installed"),
        ("SC_rgb_jpeg_gdcm.dcm", "compressed as JPEG Lossless, .*no decoder is installed"),
        ("JPEG-lossy.dcm", "compressed as JPEG Extended .*no decoder is installed, or only one that fails"),
        ("image_dfl.dcm", "compressed as a whole"),
        ("rtdose.dcm", "with 15 frames: store each as a file of its own"),
        ("test-SR.dcm", "without an image"),
        ("MR_truncated.dcm", "unreadable: damaged"),
        ("badVR.dcm", "unreadable: damaged"),
        ("SC_rgb_rle_32bit.dcm", "a kind that is not read .RGB, uint32."),
    ],
)
def test_what_cannot_be_read_says_why(name, reason):
    with pytest.raises(Unusable, match=reason) as raised:
        decode(bytes_of(name), 32, 1, 64)
    assert "\n" not in str(raised.value)


def test_a_window_without_a_width_is_named():
    with pytest.raises(Unusable, match="a window of the width 0"):
        levels("MR_small.dcm", WindowWidth=0)


def test_elements_without_a_value_are_as_good_as_missing():
    missing = levels("MR_small.dcm", WindowCenter=None, WindowWidth=None)
    empty = levels("MR_small.dcm", WindowCenter="", WindowWidth="", RescaleSlope="", RescaleIntercept="")
    assert (empty == missing).all()


def test_a_file_whose_transfer_syntax_is_none_is_rejected():
    data = bytes_of("MR_small.dcm").replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.5.1.4\0")
    with pytest.raises(Unusable, match=r"unreadable: damaged, or an unusual kind of DICOM \(ValueError\)"):
        dicom.picture(data, 64)


def test_the_size_is_checked_before_pixels_are_decoded():
    with pytest.raises(Unusable, match=r"decompression bomb: 128 x 128 pixels is over max_megapixels 0.001"):
        decode(bytes_of("CT_small.dcm"), 32, 1, 0.001)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(dicom, "EXTRA", "pydicom_that_nobody_has")
    with pytest.raises(Unusable, match=r"not installed: `uv pip install 'pedigree\[medical\]'`"):
        decode(bytes_of("CT_small.dcm"), 32, 1, 64)


def test_a_dicom_file_is_cropped_and_resized_as_its_picture_in_a_png_is(tmp_path):
    file = io.BytesIO()
    dicom.picture(bytes_of("examples_rgb_color.dcm"), 64).save(file, "PNG")
    for channels in (1, 3):
        assert np.array_equal(
            decode(bytes_of("examples_rgb_color.dcm"), 32, channels, 64), decode(file.getvalue(), 32, channels, 64)
        )
    assert peek(FILES / "examples_rgb_color.dcm", 64) == (False, 240)
    assert peek(FILES / "CT_small.dcm", 64) == (True, 128)


def test_no_data_about_the_patient_are_read_or_logged(caplog, recwarn):
    data = bytes_of("CT_small.dcm", PatientName="Canary^Ann", PatientID="canary-17", PatientBirthDate="nonsense")
    recwarn.clear()  # of writing such a date
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        dataset = dicom._read(data, 64)
        dicom.picture(data, 64)
        with pytest.raises(Unusable) as raised:
            dicom.picture(data[:-20000], 64)
    assert not {element.keyword for element in dataset} - {*dicom.TAGS, "SpecificCharacterSet"}
    said = " ".join([*caplog.messages, *(str(each.message) for each in recwarn), str(raised.value)])
    assert "anary" not in said
    assert "nonsense" not in said


def test_values_of_fewer_bits_keep_their_range():
    assert set(levels("liver_1frame.dcm").flat) == {0, 255}


def test_a_png_is_no_dicom_file():
    file = io.BytesIO()
    Image.new("L", (200, 200)).save(file, "PNG")
    assert not dicom.is_dicom(file.getvalue())
