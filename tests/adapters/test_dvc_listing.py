"""A listing is read as DVC writes it, and refused if DVC would follow it out of the data set."""

import hashlib
import json

import pytest
from dvc_data.hashfile.db import get_odb
from dvc_objects.fs.local import LocalFileSystem

from components.adapters import dvc_listing
from components.errors import DamagedError, PedigreeError

MD5 = "0123456789abcdef" * 2


@pytest.fixture
def store(tmp_path):
    return get_odb(LocalFileSystem(), str(tmp_path))


def planted(store, content):
    """Put a listing, or a text in its place, into a cache under its own hash, which is returned."""
    text = content if isinstance(content, str) else json.dumps(content)
    md5 = f"{hashlib.md5(text.encode()).hexdigest()}.dir"
    store.makedirs(f"{store.path}/{md5[:2]}")
    with open(store.oid_to_path(md5), "w") as file:  # noqa: PTH123 (DVC's paths are strings)
        file.write(text)
    return md5


def entries(*paths):
    return [{"relpath": path, "md5": MD5} for path in paths]


def test_a_listing_gives_the_paths_and_hashes_of_its_files(store):
    paths = [
        "a.png",
        "train/cat/1.png",
        "train/cat/..png",
        "train/back\\slash.png",
        "train/été 1.png",
        "train/.hidden",
    ]
    found = dvc_listing.read(store, planted(store, entries(*paths)))
    assert found == {tuple(path.split("/")): MD5 for path in paths}


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["../../elsewhere"], r"names '\.\./\.\./elsewhere', which is outside its folder"),
        (["train/../../elsewhere"], r"names 'train/\.\./\.\./elsewhere', which is outside its folder"),
        (["/etc/cron.d/job"], "names '/etc/cron.d/job', which is outside its folder"),
        (["train//1.png"], "which is outside its folder"),
        (["./1.png"], "which is outside its folder"),
        (["train/"], "which is outside its folder"),
        ([""], "which is outside its folder"),
        ([".git/config"], r"names '\.git/config', which is in a folder of git or DVC"),
        (["train/.dvc/config"], "which is in a folder of git or DVC"),
        ([".GIT/config"], r"names '\.GIT/config', which is in a folder of git or DVC"),
        (["GIT~1/config"], "names 'GIT~1/config', which is in a folder of git or DVC"),
        (["nul\0.png"], "which is not a file name"),
        (["half \ud800.png"], "which is not a file name"),
        (["n" * 100_000], "names 'n{40,50}...n{40,50}', which is not a file name"),
        (["/".join(["n" * 100] * 50)], "which is not a file name"),
        ([f"{'d/' * 201}1.png"], "which is over 200 levels of folders deep"),
        (["1.png", "2.png", "1.png"], "names '1.png', which occurs twice"),
        (["train/1.png/2.png", "train/1.png"], "names 'train/1.png/2.png', which is below a file"),
    ],
    ids=lambda value: str(value)[:40].encode("ascii", "replace").decode(),
)
def test_a_listing_that_names_what_no_folder_can_hold_is_refused_by_its_hash(store, paths, said):
    md5 = planted(store, entries("other.png", *paths))
    with pytest.raises(PedigreeError, match=rf"^the listing of data {md5} .*{said}: do not use it$"):
        dvc_listing.read(store, md5)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[" * 200_000,
        "7",
        {"relpath": "1.png", "md5": MD5},
        [["1.png", MD5]],
        [{"relpath": "1.png"}],
        [{"relpath": 1, "md5": MD5}],
        [{"relpath": "1.png", "md5": None}],
        [{"relpath": "1.png", "md5": "../../../../etc/passwd"}],
        [{"relpath": "1.png", "md5": f"{MD5}/../../../../etc/passwd"}],
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_listing_of_paths_and_hashes_is_damaged(store, content):
    md5 = planted(store, content)
    with pytest.raises(DamagedError, match=f"^the listing of data {md5} is damaged: "):
        dvc_listing.read(store, md5)


@pytest.mark.parametrize("md5", ["../../../../etc/passwd", "", f"{MD5}/../x.dir", MD5.upper()])
def test_a_hash_that_is_none_is_not_looked_for(store, md5):
    with pytest.raises(DamagedError, match="is not the hash of a data set"):
        dvc_listing.read(store, md5)


def test_a_listing_that_would_fill_the_memory_is_not_read_to_its_end(store, monkeypatch):
    monkeypatch.setattr(dvc_listing, "LARGEST", 1000)
    md5 = planted(store, entries(*map(str, range(100))))
    with pytest.raises(PedigreeError, match=r"has over 1,000 bytes: do not use it"):
        dvc_listing.read(store, md5)
