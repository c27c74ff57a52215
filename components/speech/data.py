"""Spoken words to begin with: synthetic ones that eSpeak NG makes here, and Speech Commands from the net."""

import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from components import files
from components.errors import PedigreeError
from components.speech.words import SYNTHETIC

NOTICE = """\
No person spoke these clips. eSpeak NG did (GPL-3.0, https://github.com/espeak-ng/espeak-ng), through the package
espeakng-loader: ten words in 48 voices, each in four accents. They show that everything works; how well a network
understands people they do not show.
"""
LARGEST_MEMBER, MOST_BYTES, MOST_MEMBERS = 100_000_000, 10_000_000_000, 200_000
"""Of Speech Commands, whose longest background noise is 3 MB: 105,835 clips and 3.4 GB in all."""


def espeak(folder: Path) -> None:
    """Write folder/<word>/<voice>_<take>.wav, 1,920 clips, and SYNTHETIC.txt, which says what they are.

    Raises:
        PedigreeError: eSpeak NG is not installed, or cannot speak here.
    """
    if find_spec("espeakng_loader") is None:
        raise PedigreeError(
            "eSpeak NG, which speaks the embedded words, is not installed: install it (licence GPL-3.0) with "
            "`uv pip install 'pedigree[demo]'`, or put your own clips in data/speech/<word>/"
        )
    script = Path(__file__).with_name("espeak.py")
    spoken = subprocess.run(
        [sys.executable, "-P", script, folder], capture_output=True, text=True, errors="replace", check=False
    )
    if spoken.returncode:
        reason = (spoken.stderr.strip().splitlines() or [f"exit status {spoken.returncode}"])[-1]
        raise PedigreeError(
            f"eSpeak NG could not speak the embedded words ({reason}): install espeakng-loader anew, "
            "or put your own clips in data/speech/<word>/"
        )
    (folder / SYNTHETIC).write_text(NOTICE, encoding="utf-8")


def speech_commands(folder: Path, cache: Path) -> None:
    """Write Speech Commands v0.02: folder/<word>/<file>.wav, 105,829 clips of 35 words, and its two lists.

    The archive, 2.4 GB, is fetched into `cache` unless it is there already. Source: Warden 2018,
    arXiv:1804.03209; licence CC BY 4.0.

    Raises:
        PedigreeError: the archive cannot be fetched, or is not the one that was published.
    """
    from torch.hub import download_url_to_file
    from torchaudio.datasets.speechcommands import _CHECKSUMS, URL  # type: ignore[import-untyped]

    url, sha256 = next(pair for pair in _CHECKSUMS.items() if URL in pair[0])
    archive, host = cache / f"{URL}.tar.gz", urlsplit(url).netloc
    if not archive.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        try:
            download_url_to_file(url, str(archive))
        except OSError as error:  # URLError is one
            reason = getattr(error, "reason", error)
            raise PedigreeError(
                f"Speech Commands could not be fetched from {host} ({reason}): try again, or put the file "
                f"with sha256 {sha256} at {archive}"
            ) from error
    if files.sha256(archive) != sha256:
        raise PedigreeError(
            f"{archive} is not what was published (sha256 {sha256}): "
            "remove it and try again, or put the right file there"
        )
    extract(archive, folder)


def extract(archive: Path, folder: Path) -> None:
    """Write the regular files of a tar archive below the folder, and nothing outside it.

    Raises:
        PedigreeError: a member would lie elsewhere, or there is more than Speech Commands could hold.
    """
    with tarfile.open(archive, "r:gz") as tar:
        try:
            tar.extractall(folder, _members(archive, tar), filter="data")
        except tarfile.FilterError as error:
            raise PedigreeError(f"{archive}: {error}: it is not extracted, get another") from None


def _members(archive: Path, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    total = 0
    for number, member in enumerate(tar):
        total += member.size
        if member.size > LARGEST_MEMBER or total > MOST_BYTES or number >= MOST_MEMBERS:
            raise PedigreeError(f"{archive}: {member.name} is more than Speech Commands has: get another")
        if member.isreg() and not PurePosixPath(member.name).name.startswith("."):
            yield member
