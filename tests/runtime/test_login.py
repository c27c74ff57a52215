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
    with pytest.raises(PedigreeError, match="is a link or cannot be read: remove it"):
        login.of(tmp_path)
    file.unlink()
    os.mkfifo(file, 0o600)
    with pytest.raises(PedigreeError, match="is not a file: remove it"):
        login.of(tmp_path)


@pytest.mark.parametrize("text", ["", "word", "pedigree:"])
def test_a_login_without_a_password_is_rejected(tmp_path, text):
    written(tmp_path, text)
    with pytest.raises(PedigreeError, match="holds no user:password: remove it"):
        login.of(tmp_path)
