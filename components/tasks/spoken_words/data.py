"""Data sets of spoken words: synthetic speech by eSpeak NG, and Speech Commands from the internet."""

import tarfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from components.datasets.download import fetching
from components.errors import PedigreeError
from components.runtime import files
from components.sound import voices
from components.sound.recordings.recording import SYNTHETIC

NOTICE = """\
No person spoke these clips. eSpeak NG did (GPL-3.0, https://github.com/espeak-ng/espeak-ng), through the package
espeakng-loader: ten words in 48 voices, each in four accents. They show that everything works; how well a network
understands people they do not show.
"""
LARGEST_MEMBER, MOST_BYTES, MOST_MEMBERS, LONGEST_NAME = 100_000_000, 10_000_000_000, 200_000, 200
"""Limits for the archive of Speech Commands, which has 105,835 clips and 3.4 GB, with recordings of up to 3 MB."""


def espeak(folder: Path) -> None:
    """Write 1,920 clips to folder/<word>/<voice>_<take>.wav, and a notice to SYNTHETIC.txt.

    Raises:
        PedigreeError: eSpeak NG is not installed or fails.
    """
    if find_spec("espeakng_loader") is None:
        raise PedigreeError(
            "eSpeak NG, which synthesises the embedded words, is not installed: install it (licence GPL-3.0) with "
            "`uv pip install 'pedigree[demo]'`, or put your own clips in data/words/<word>/"
        )
    if reason := voices.speak("espeak.py", folder):
        raise PedigreeError(
            f"eSpeak NG could not synthesise the embedded words ({reason}): reinstall espeakng-loader, "
            "or put your own clips in data/words/<word>/"
        )
    (folder / SYNTHETIC).write_text(NOTICE, encoding="utf-8")


def speech_commands(folder: Path, cache: Path) -> None:
    """Write Speech Commands v0.02: folder/<word>/<file>.wav, 105,829 clips of 35 words, and its two lists.

    The archive, 2.4 GB, is downloaded into `cache` unless it is already there. Source: Warden 2018,
    arXiv:1804.03209; licence CC BY 4.0.

    Raises:
        PedigreeError: the archive cannot be downloaded, or differs from the published one.
    """
    from torch.hub import download_url_to_file
    from torchaudio.datasets.speechcommands import _CHECKSUMS, URL  # type: ignore[import-untyped]

    url, sha256 = next(pair for pair in _CHECKSUMS.items() if URL in pair[0])
    archive = cache / f"{URL}.tar.gz"
    if not archive.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with fetching("Speech Commands", url, archive, f"sha256 {sha256}"):
            download_url_to_file(url, str(archive))
    if files.sha256(archive) != sha256:
        raise PedigreeError(
            f"{archive} is not what was published (sha256 {sha256}): "
            "remove it and try again, or put the right file there"
        )
    extract(archive, folder)


def extract(archive: Path, folder: Path) -> None:
    """Extract the regular files of a tar archive into the folder, and nothing outside it.

    Raises:
        PedigreeError: a member is outside the folder, or the archive exceeds the limits for Speech Commands.
    """
    with tarfile.open(archive, "r:gz") as tar:
        try:
            tar.extractall(folder, _members(archive, tar), filter="data")
        except tarfile.FilterError as error:
            raise PedigreeError(f"{archive}: {error}: download it again") from None


def _members(archive: Path, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    total = 0
    for number, member in enumerate(tar):
        total += member.size
        large = member.size > LARGEST_MEMBER or total > MOST_BYTES or number >= MOST_MEMBERS
        if large or len(member.name) > LONGEST_NAME:
            name = member.name[:LONGEST_NAME]
            raise PedigreeError(f"{archive}: {name} is not part of Speech Commands: download it again")
        if member.isreg() and not PurePosixPath(member.name).name.startswith("."):
            yield member
