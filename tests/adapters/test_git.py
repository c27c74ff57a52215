"""What a checkout is made of, with real repositories."""

import subprocess

import pytest

from components.adapters import git


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
    assert git.tree(tmp_path) == git.Tree("none", b"")


def test_without_the_program_git_there_is_no_commit(repository, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert git.tree(repository) == git.Tree("none", b"")


def test_a_clean_checkout_is_its_commit_alone(repository):
    (repository / "build").mkdir()
    (repository / "build" / "ignored").write_text("an output")
    (repository / "dvc.lock").write_text("another run wrote this\n")
    assert git.tree(repository) == git.Tree(run(repository, "rev-parse", "HEAD"), b"")


def applied(repository, diff, tmp_path):
    """Return a fresh checkout of the last commit with the difference applied."""
    folder = tmp_path / "again"
    run(tmp_path, "clone", "-q", str(repository), str(folder))
    subprocess.run(["git", "apply", "-"], cwd=folder, input=diff, check=True)
    return folder


def test_what_is_in_no_commit_is_in_the_difference_byte_for_byte_and_the_index_stays_as_it_is(repository, tmp_path):
    changes = {
        "model.py": b"layers = 3\r\n",
        "new file.py": b"hidden = 4\n",
        "picture": bytes(range(256)),
        "latin.txt": "gr\xfc\xdf".encode("latin-1"),
    }
    for name, content in changes.items():
        (repository / name).write_bytes(content)
    before = run(repository, "status", "--porcelain"), run(repository, "count-objects")
    folder = applied(repository, git.tree(repository).diff, tmp_path)
    assert {name: (folder / name).read_bytes() for name in changes} == changes
    assert (run(repository, "status", "--porcelain"), run(repository, "count-objects")) == before


def test_what_the_user_has_set_changes_nothing_of_the_difference(repository):
    (repository / "model.py").write_text("layers = 3\n")
    plain = git.tree(repository).diff
    for name, value in (("color.ui", "always"), ("diff.noprefix", "true"), ("diff.external", "false")):
        run(repository, "config", name, value)
    assert git.tree(repository).diff == plain


def test_a_large_new_file_is_named_with_its_hash_and_not_kept(repository, tmp_path):
    (repository / "large.bin").write_bytes(bytes(git.LARGEST + 1))
    (repository / "model.py").write_text("layers = 3\n")
    diff = git.tree(repository).diff
    assert b"new file, not kept here: large.bin sha256 " in diff
    assert len(diff) < 2000
    folder = applied(repository, diff, tmp_path)
    assert (folder / "model.py").read_text() == "layers = 3\n"
    assert not (folder / "large.bin").exists()


def test_another_repository_inside_is_passed_over(repository):
    (repository / "nested").mkdir()
    run(repository / "nested", "init", "-q")
    assert git.tree(repository).diff == b""


def test_of_a_larger_repository_only_the_projects_folder_counts(repository):
    inner = repository / "inner"
    inner.mkdir()
    (inner / "params.yaml").write_text("a: 1\n")
    run(repository, "add", ".")
    run(repository, "commit", "-qm", "second")
    (repository / "model.py").write_text("not the project's\n")
    assert git.tree(inner).diff == b""
    (inner / "params.yaml").write_text("a: 2\n")
    assert b"+a: 2" in git.tree(inner).diff


def test_a_commit_is_here_or_it_is_not(repository):
    assert git.has(repository, run(repository, "rev-parse", "HEAD"))
    assert not git.has(repository, "0" * 40)
    assert not git.has(repository, "none")


def test_who_acts_is_whom_git_knows_or_the_account(repository, tmp_path, monkeypatch):
    assert git.user(repository) == "Ann Author <ann@example.org>"
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("USER", "bob")
    assert git.user(tmp_path) == "bob"
