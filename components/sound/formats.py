"""Why a file that libsndfile does not take for sound cannot be read: its format."""

from components.datasets.formats import OTHER, named

HEAD = 4096
"""Bytes that are inspected."""
SOUNDS = {
    "MP4 (m4a, AAC)": rb".{4}ftyp",
    "WebM or Matroska": rb"\x1aE\xdf\xa3",
    "Windows Media (wma)": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    "AMR": rb"#!AMR",
    "AAC": rb"\xff[\xf0\xf1\xf8\xf9]",
    "Musepack": rb"MPCK|MP\+",
    "WavPack": rb"wvpk",
    "Monkey's Audio": rb"MAC ",
    "DSD": rb"DSD |FRM8",
    "MIDI": rb"MThd",
    "RealAudio": rb"\.ra\xfd|\.RMF",
}
"""Formats of sound and of video that libsndfile does not know, and how their files begin."""


def unread(data: bytes) -> str:
    """Return the reason why a file's bytes are not read as a sound."""
    head = data[:HEAD]
    if sound := named(head, SOUNDS):
        return f"{sound}, a format that is not read: convert it to wav or flac"
    other = named(head, OTHER)
    return f"not audio: {other}" if other else "not audio"
