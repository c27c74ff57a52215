"""Archives of public data sets from the internet, accepted only as they were published."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from components.errors import PedigreeError, sentence


def download(name: str, url: str, archive: Path, md5: str) -> None:
    """Download an archive to `archive`, unless it is already there.

    Args:
        name: Name of the data set in messages.
        url: Where it is published.
        archive: The file to write; later calls use it without the network.
        md5: Of the published archive, as hexadecimal digits.

    Raises:
        PedigreeError: the archive cannot be downloaded, or differs from the published one.
    """
    from torchvision.datasets.utils import download_url  # type: ignore[import-untyped]

    try:
        with fetching(name, url, archive, f"md5 {md5}"):
            download_url(url, archive.parent, archive.name, md5)
    except RuntimeError as error:
        raise PedigreeError(
            f"{archive}, as {urlsplit(url).netloc} sent it, is not what was published (md5 {md5}): "
            "remove it and try again, or put the right file there"
        ) from error


@contextmanager
def fetching(name: str, url: str, archive: Path, checksum: str) -> Iterator[None]:
    """Report a download that fails in the block, and the file, with its checksum, that a person can put there.

    Raises:
        PedigreeError: the server cannot be reached or has no such file.
    """
    try:
        yield
    except OSError as error:  # URLError is one
        if sentence(error):  # the disk, not the network
            raise
        reason = getattr(error, "reason", error)
        raise PedigreeError(
            f"{name} could not be fetched from {urlsplit(url).netloc} ({reason}): try again, or put the file "
            f"with {checksum} at {archive}"
        ) from error
