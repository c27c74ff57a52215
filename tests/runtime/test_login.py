"""The login of a checkout's servers is in a file that its user alone can read."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.errors import PedigreeError
from components.runtime import login


def test_a_login_is_created_once_in_a_file_that_only_its_user_can_read(tmp_path):
    before = os.umask(0)
    first = login.of(tmp_path)
    os.umask(before)
    assert first.startswith("pedigree:")
    assert len(first) > 40
    assert login.of(tmp_path) == login.read(tmp_path) == first
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / login.FILE, (tmp_path / login.FILE).parent)]
    assert modes == [0o600, 0o700]
    assert [path.name for path in (tmp_path / ".prefect").iterdir()] == ["login"]


def test_two_checkouts_have_two_logins(tmp_path):
    assert login.of(tmp_path / "hers") != login.of(tmp_path / "his")


def test_a_checkout_whose_servers_never_ran_has_no_login(tmp_path):
    assert login.read(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_processes_that_start_together_agree_on_one_login(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(login.of, [tmp_path] * 32))) == 1


def written(folder, text):
    file = folder / login.FILE
    file.parent.mkdir()
    file.write_text(text)
    file.chmod(0o600)
    return file


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_login_that_others_can_read_or_write_is_rejected(tmp_path, mode):
    written(tmp_path, "pedigree:word").chmod(mode)
    with pytest.raises(PedigreeError, match=rf"is open to other accounts \(mode {mode:04o}\): remove it"):
        login.of(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_login_that_another_account_put_there_is_rejected(tmp_path):
    os.chown(written(tmp_path, "pedigree:word"), 65534, 65534)
    with pytest.raises(PedigreeError, match=r"belongs to another account \(uid 65534\): remove it"):
        login.of(tmp_path)


def test_a_link_or_a_pipe_in_the_logins_place_is_rejected(tmp_path):
    file = written(tmp_path, "pedigree:word")
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PedigreeError, match=r"is a link or cannot be read \(Too many levels .*\): remove it"):
        login.of(tmp_path)
    file.unlink()
    os.mkfifo(file, 0o600)
    with pytest.raises(PedigreeError, match="is not a file: remove it"):
        login.of(tmp_path)


@pytest.mark.parametrize("text", [b"", b"word", b"pedigree:", b"ann:word\nann:other\n", b"ann:w\xf6rd"])
def test_a_login_that_is_not_one_line_of_user_and_password_is_rejected(tmp_path, text):
    written(tmp_path, "").write_bytes(text)
    with pytest.raises(PedigreeError, match="holds no user:password: remove it"):
        login.of(tmp_path)


def stored_without_modes(monkeypatch):
    """Have each file be open to all accounts, as on file systems that keep neither owners nor modes."""
    fstat = os.fstat

    def found(descriptor):
        parts = list(fstat(descriptor))
        parts[0] |= 0o777
        return os.stat_result(parts)

    monkeypatch.setattr(os, "fstat", found)


def test_a_file_system_without_modes_is_named_with_what_to_do_and_no_login_is_left_there(tmp_path, monkeypatch):
    stored_without_modes(monkeypatch)
    with pytest.raises(
        PedigreeError, match=r"a new file there is open .*\(mode 0777\): set PEDIGREE_LOGIN_FILE to"
    ):
        login.of(tmp_path)
    assert list((tmp_path / ".prefect").iterdir()) == []


@pytest.mark.parametrize("named", ["{}/elsewhere/login", "../elsewhere/login"])
def test_a_login_can_be_in_another_file_which_is_checked_the_same_way(tmp_path, monkeypatch, named):
    root, file = tmp_path / "project", tmp_path / "elsewhere" / "login"
    root.mkdir()
    monkeypatch.setenv(login.ELSEWHERE, named.format(tmp_path))
    assert login.of(root) == login.read(root) == file.read_text().strip()
    assert not (root / login.FILE).exists()
    assert login.where() == "the file that PEDIGREE_LOGIN_FILE names"
    file.chmod(0o640)
    with pytest.raises(PedigreeError, match=r"is open to other accounts \(mode 0640\)"):
        login.of(root)
