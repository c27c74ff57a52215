"""Archives of public data sets, from a server on this machine."""

import errno
import hashlib
import threading
import urllib.error
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from components.datasets.download import download, fetching
from components.errors import PedigreeError

CONTENT = b"an archive"
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def published(tmp_path):
    """Return the file that the server sends, which does not exist yet, and its URL."""
    folder = tmp_path / "published"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield folder / "set.zip", f"http://127.0.0.1:{server.server_port}/set.zip"
        server.shutdown()


def test_an_archive_is_downloaded_once_and_later_used_without_the_server(tmp_path, published):
    file, url = published
    file.write_bytes(CONTENT)
    download("Some set", url, tmp_path / "set.zip", MD5)
    file.unlink()
    download("Some set", url, tmp_path / "set.zip", MD5)
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


def test_an_archive_that_is_not_the_published_one_is_rejected(tmp_path, published):
    file, url = published
    file.write_bytes(b"something else")
    with pytest.raises(PedigreeError, match=r"127\.0\.0\.1:\d+ sent it, is not what was published .*: remove it"):
        download("Some set", url, tmp_path / "set.zip", MD5)


def test_a_server_without_the_archive_is_named(tmp_path, published):
    said = r"^Some set could not be fetched from 127\.0\.0\.1:\d+ \(File not found\): try again"
    with pytest.raises(PedigreeError, match=said):
        download("Some set", published[1], tmp_path / "set.zip", MD5)


def test_a_full_disk_is_not_reported_as_a_problem_of_the_network(tmp_path):
    with (
        pytest.raises(OSError, match="No space left") as error,
        fetching("Some set", "https://example.org/set.zip", tmp_path / "set.zip", f"md5 {MD5}"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not isinstance(error.value, urllib.error.URLError)
