"""One list of a raw folder's files: what DVC would not pin is named before anything is read."""

import os
import socket
import stat
from pathlib import Path

import pytest

from components.datasets import raw_files
from components.datasets.raw_files import by_name, survey, visible
from components.errors import PedigreeError


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "data" / "digits"
    (folder / "train" / "cat").mkdir(parents=True)
    for name in ("train/cat/1.png", "train/cat/2.png", "Thumbs.db", ".hidden", ".git/config"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_files_are_listed_except_hidden_ones_and_a_systems_own(raw):
    assert survey(raw).readable == {"train/cat/1.png", "train/cat/2.png"}
    assert survey(raw).rejected == ()


@pytest.mark.parametrize(
    "name",
    [
        "1.png:Zone.Identifier",
        "1.png\uf03aZone.Identifier",
        "1.png:zone.identifier:$DATA",
        "1.png:com.dropbox.attrs",
        "1.png@SynoEAStream",
        "THUMBS.DB",
        "Icon\r",
        "__MACOSX/1.png",
        "@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg",
        "lost+found/#12345",
        "LOST+FOUND/#12345",
        "$RECYCLE.BIN/S-1-5-21/1.png",
        "$Recycle.Bin/1.png",
        "System Volume Information/IndexerVolumeGuid",
        "#recycle/1.png",
    ],
)
def test_what_a_system_puts_beside_files_is_ignored_in_any_case(raw, name):
    for folder in (raw, raw / "train", raw / "train" / "cat"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
        assert name.split("/")[0] not in {name for name, _ in visible(folder)}
    found, top = survey(raw), name.split("/")[0]
    assert found.readable == {"train/cat/1.png", "train/cat/2.png"}
    assert found.rejected == ()
    if top != "Icon\r":
        assert {top, f"train/{top}", f"train/cat/{top}"} <= {*found.ignored}


@pytest.mark.parametrize("name", ["12:30.png", "lost and found", "Icon", "icons", "recycle.png", "@home", "tmp"])
def test_a_name_that_only_resembles_a_systems_own_is_read(raw, name):
    (raw / "train" / "cat" / name).touch()
    assert f"train/cat/{name}" in survey(raw).readable


def test_a_folder_that_does_not_exist_has_no_files(tmp_path):
    assert survey(tmp_path / "missing").readable == frozenset()


@pytest.mark.parametrize("target", ["{raw}/train/cat/1.png", "1.png", "../../train/cat/1.png", "../../.hidden"])
def test_a_link_to_a_file_of_the_same_data_set_is_a_file(raw, target):
    (raw / "train" / "cat" / "3.png").symlink_to(target.format(raw=raw))
    assert "train/cat/3.png" in survey(raw).readable


def test_a_hard_link_is_a_file_like_a_copy_wherever_its_other_names_are(raw, tmp_path):
    (tmp_path / "elsewhere.png").touch()
    (raw / "train" / "cat" / "3.png").hardlink_to(tmp_path / "elsewhere.png")
    assert "train/cat/3.png" in survey(raw).readable


def test_a_link_into_the_projects_dvc_cache_is_a_file_and_one_into_another_cache_is_not(raw, tmp_path):
    store = tmp_path / "cache" / "files" / "md5"
    cached = store / "d4" / "1d8cd98f00b204e9800998ecf8427e"
    cached.parent.mkdir(parents=True)
    cached.touch()
    (raw / "train" / "cat" / "3.png").symlink_to(cached)
    assert "train/cat/3.png" in survey(raw, lambda: str(store)).readable
    for other in ("", str(tmp_path / "cache2" / "files" / "md5"), f"{store}/d"):
        with pytest.raises(PedigreeError, match=rf"not train/cat/3\.png \(a link to {cached}\): remove them"):
            survey(raw, lambda other=other: other)


def link(target):
    """Return a function that makes a link; `{raw}` in the target is the data set's folder."""
    return lambda path: path.symlink_to(target.format(raw=path.parents[2]))


def chain(path):
    path.with_name("next.png").symlink_to("/etc/passwd")
    path.symlink_to("next.png")


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as opened:
        os.chdir(path.parent)  # a socket's path must be short
        opened.bind(path.name)


def device(path):
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root may create devices, and not in every container")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (link("/etc/passwd"), "a link to /etc/passwd"),
        (link("../../../../elsewhere.png"), "a link to .*/elsewhere.png"),
        (link("{raw}/../words/1.wav"), "a link to .*/data/words/1.wav"),
        (link("{raw}-more/1.png"), "a link to .*/digits-more/1.png"),
        (link("/proc/self/environ"), r"a link to /proc/\d+/environ"),
        (link("/dev/zero"), "a link to /dev/zero"),
        (chain, r"a link to /etc/passwd\), train/cat/next.png \(a link to /etc/passwd"),
        (os.mkfifo, "a named pipe"),
        (unix_socket, "a socket"),
        (device, "a device"),
    ],
)
@pytest.mark.parametrize("name", ["3.png", ".hidden"])
def test_what_is_not_a_file_of_the_data_set_is_an_error_that_names_it_also_if_it_is_hidden(
    raw, tmp_path, monkeypatch, make, what, name
):
    monkeypatch.chdir(raw)
    for other in ("elsewhere.png", "data/words/1.wav", "data/digits-more/1.png"):
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).touch()
    make(raw / "train" / "cat" / name)
    with pytest.raises(
        PedigreeError,
        match=rf"digits may hold only its own files, not train/cat/{name} \({what}\): remove them, or",
    ):
        survey(raw)


def test_of_many_links_to_files_elsewhere_five_are_named_and_the_others_counted(raw):
    for number in range(8):
        (raw / "train" / "cat" / f"link {number}.png").symlink_to("/etc/passwd")
    with pytest.raises(PedigreeError, match=r"train/cat/link 4\.png \(a link to /etc/passwd\) and 3 more: remove"):
        survey(raw)


@pytest.mark.parametrize("inside", ["train", "train/cat"])
def test_a_link_to_a_folder_is_an_error_that_names_it(raw, tmp_path, inside):
    (tmp_path / "elsewhere").mkdir()
    (raw / inside / "dog").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        PedigreeError, match=f"DVC does not follow links to folders: {inside}/dog: copy the folders"
    ):
        survey(raw)


@pytest.mark.parametrize("which", ["data/digits", "data"])
def test_a_data_folder_that_is_a_link_is_an_error(raw, tmp_path, which):
    moved = (tmp_path / which).rename(tmp_path / "big disk")
    (tmp_path / which).symlink_to(moved)
    with pytest.raises(PedigreeError, match=f"{which} is a symbolic link, which DVC does not follow"):
        survey(raw)


@pytest.mark.parametrize("inside", [".", "train/cat"])
def test_a_dvc_project_inside_the_data_is_an_error(raw, inside):
    (raw / inside / ".dvc").mkdir()
    with pytest.raises(PedigreeError, match="is a DVC project of its own, of which this one pins nothing"):
        survey(raw)


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("gone.png", lambda path: path.symlink_to("nowhere"), "a link to nothing: remove it"),
        ("loop.png", lambda path: path.symlink_to(path.name), "a link to nothing: remove it"),
        ("line\nbreak.png", Path.touch, "its name has a line break in it: rename it"),
    ],
)
def test_an_entry_that_is_no_file_is_rejected_with_what_to_do(raw, monkeypatch, name, make, reason):
    monkeypatch.chdir(raw)
    make(raw / "train" / "cat" / name)
    (rejected,) = survey(raw).rejected
    assert (rejected.file, rejected.reason) == (f"train/cat/{name}".replace("\n", "\\n"), reason)
    assert survey(raw).readable == {"train/cat/1.png", "train/cat/2.png"}


def test_a_name_that_is_not_utf_8_is_rejected_in_a_form_that_can_be_printed(raw):
    (raw / "train" / os.fsdecode(b"caf\xe9.png")).touch()
    (rejected,) = survey(raw).rejected
    assert rejected.file == "train/caf\\udce9.png"
    assert rejected.reason == "its name is not UTF-8: rename it"


def closed(monkeypatch, folder):
    """Forbid to list a folder; permissions alone would not, as tests may run as root."""
    scandir = os.scandir

    def refusing(path):
        if path == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)


def test_a_systems_own_folder_that_only_root_may_open_is_passed_over(raw, monkeypatch):
    (raw / "lost+found").mkdir()
    closed(monkeypatch, raw / "lost+found")
    assert survey(raw).readable == {"train/cat/1.png", "train/cat/2.png"}


def test_a_folder_that_may_not_be_read_is_an_error_that_names_it(raw, monkeypatch):
    closed(monkeypatch, raw / "train" / "cat")
    with pytest.raises(PedigreeError, match=r"digits/train/cat cannot be read: allow yourself to read it, or move"):
        survey(raw)


TOO_DEEP = "has over {} levels of folders, more than DVC can pin, in {}: move the deepest up, or away"


def test_the_levels_of_folders_are_limited(raw, monkeypatch):
    monkeypatch.setattr(raw_files, "DEEPEST", 2)
    assert len(survey(raw).readable) == 2
    (raw / "train" / "cat" / "more").mkdir()
    with pytest.raises(PedigreeError, match=TOO_DEEP.format(2, "train/cat/more")):
        survey(raw)


@pytest.mark.long
def test_folders_at_which_python_could_not_recurse_are_an_error_that_says_where_they_are(raw, deepened):
    deepened(raw, 1500)
    with pytest.raises(PedigreeError, match=TOO_DEEP.format(200, "d/d/d")):
        survey(raw)


@pytest.mark.timeout(20)
def test_the_names_of_many_classes_are_compared_at_once(tmp_path):
    names = [f"class {number}" for number in range(50_000)]
    assert len(by_name(tmp_path, names)) == 50_000
