"""What a checkout is made of, and getting it again, with real repositories."""

import subprocess

import pytest

from components.adapters import git
from components.errors import PedigreeError


def run(folder, *arguments):
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    run(folder, "init", "-q")
    run(folder, "config", "user.name", "Ann Author")
    run(folder, "config", "user.email", "ann@example.org")
    (folder / "model.py").write_text("layers = 2\n")
    (folder / "dvc.lock").write_text("a run wrote this\n")
    (folder / ".gitignore").write_text("build/\n")
    run(folder, "add", ".")
    run(folder, "commit", "-qm", "first")
    return folder


def test_a_folder_that_git_does_not_know_has_no_commit(tmp_path):
    assert git.tree(tmp_path) == git.Tree("none", "")


def test_without_the_program_git_there_is_no_commit(repository, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert git.tree(repository) == git.Tree("none", "")


def test_a_clean_checkout_is_its_commit_alone(repository):
    (repository / "build").mkdir()
    (repository / "build" / "ignored").write_text("an output")
    (repository / "dvc.lock").write_text("another run wrote this\n")
    assert git.tree(repository) == git.Tree(run(repository, "rev-parse", "HEAD"), "")


def test_what_is_in_no_commit_is_in_the_difference_and_the_index_stays_as_it_is(repository):
    (repository / "model.py").write_text("layers = 3\n")
    (repository / "new file.py").write_text("hidden = 4\n")
    (repository / "picture").write_bytes(bytes(range(256)))
    before = run(repository, "status", "--porcelain")
    found = git.tree(repository)
    assert "+layers = 3" in found.diff
    assert "+hidden = 4" in found.diff
    assert run(repository, "status", "--porcelain") == before


def test_a_worktree_has_the_commit_with_the_difference_and_is_gone_afterwards(repository, tmp_path):
    (repository / "model.py").write_text("layers = 3\n")
    (repository / "picture").write_bytes(bytes(range(256)))
    found = git.tree(repository)
    run(repository, "checkout", "-q", "model.py")
    (repository / "picture").unlink()
    with git.worktree(repository, found.commit, found.diff, tmp_path / "again") as folder:
        assert (folder / "model.py").read_text() == "layers = 3\n"
        assert (folder / "picture").read_bytes() == bytes(range(256))
        assert git.tree(folder).diff == found.diff
    assert not (tmp_path / "again").exists()
    assert len(run(repository, "worktree", "list").splitlines()) == 1


def test_a_project_in_a_folder_of_a_larger_repository_is_found_in_its_worktree(repository, tmp_path):
    inner = repository / "inner"
    inner.mkdir()
    (inner / "params.yaml").write_text("a: 1\n")
    run(repository, "add", ".")
    run(repository, "commit", "-qm", "second")
    (inner / "params.yaml").write_text("a: 2\n")
    (repository / "model.py").write_text("not the project's\n")
    found = git.tree(inner)
    assert "model.py" not in found.diff
    with git.worktree(inner, found.commit, found.diff, tmp_path / "again") as folder:
        assert (folder / "params.yaml").read_text() == "a: 2\n"


def test_a_commit_that_is_not_here_is_a_sentence(repository, tmp_path):
    with (
        pytest.raises(PedigreeError, match=r"^commit 0{40} is not in the git repository at .*: fetch it with"),
        git.worktree(repository, "0" * 40, "", tmp_path / "again"),
    ):
        pass


def test_who_acts_is_whom_git_knows_or_the_account(repository, tmp_path, monkeypatch):
    assert git.user(repository) == "Ann Author <ann@example.org>"
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("USER", "bob")
    assert git.user(tmp_path) == "bob"
