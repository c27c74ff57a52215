"""What a checkout is made of, with real repositories."""

import os
import pwd
import shutil
import subprocess

import pytest

from components.adapters import git
from components.errors import PedigreeError
from components.runtime import files


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


def test_without_the_program_git_there_is_no_commit_which_is_said_of_a_checkout(
    repository, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("PATH", "/nowhere")
    assert git.tree(tmp_path) == git.Tree("none", b"")
    assert not caplog.messages
    assert git.tree(repository) == git.Tree("none", b"")
    assert caplog.messages == [f"git is not installed: no commit of {repository} is recorded"]


@pytest.mark.parametrize("part", [".", "project"])
def test_a_checkout_of_another_owner_is_an_error_with_gits_remedy_and_not_without_a_commit(
    repository, part, monkeypatch
):
    (repository / part).mkdir(exist_ok=True)
    commit = run(repository, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    remedy = f"run `git config --global --add safe.directory {repository}`"
    for ask in (git.tree, git.worktrees, lambda root: git.has(root, commit)):
        with pytest.raises(PedigreeError, match=f"git refuses to read .* belongs to another user.*: {remedy}$"):
            ask(repository / part)
    assert git.user(repository) != ""


def test_a_checkout_of_another_owner_that_the_user_has_declared_safe_has_its_commit(
    repository, tmp_path, monkeypatch
):
    commit = run(repository, "rev-parse", "HEAD")
    monkeypatch.setenv("HOME", str(tmp_path))
    run(tmp_path, "config", "--global", "--add", "safe.directory", str(repository))
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert git.tree(repository).commit == commit


def damage_settings(repository):
    (repository / ".git" / "config").write_text("[core\n")
    return repository


def lose_repository(repository):
    """Return a worktree whose repository is not there, as in a container that sees only the worktree's folder."""
    folder = repository.with_name("worktree")
    run(repository, "worktree", "add", "-q", str(folder))
    (repository / ".git").rename(repository / "away")
    return folder


@pytest.mark.parametrize(
    ("harm", "said"), [(damage_settings, "bad config"), (lose_repository, "not a git repository: ")]
)
@pytest.mark.parametrize("language", ["", "de"])
def test_a_repository_that_git_cannot_read_is_an_error_in_any_language(
    repository, harm, said, language, monkeypatch
):
    monkeypatch.setenv("LANGUAGE", language)
    with pytest.raises(PedigreeError, match=f"git refuses to read the repository of .*{said}"):
        git.tree(harm(repository))


def test_a_repository_without_a_commit_has_none(tmp_path):
    run(tmp_path, "init", "-q")
    assert git.tree(tmp_path) == git.Tree("none", b"")


def test_a_hooks_variables_for_another_repository_change_nothing(repository, tmp_path, monkeypatch):
    (repository / "model.py").write_text("layers = 3\n")
    right = git.tree(repository)
    other = tmp_path / "other"
    other.mkdir()
    run(other, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    assert git.tree(repository) == right
    monkeypatch.setenv("GIT_DIR", ".git")  # relative to the top of a larger repository
    (repository / "inner").mkdir()
    assert git.tree(repository / "inner").commit == right.commit


def test_a_checkout_that_git_cannot_compare_with_its_commit_is_an_error_and_not_taken_for_a_clean_one(repository):
    (repository / ".gitattributes").write_text("*.py filter=lfs\n")
    run(repository, "config", "filter.lfs.clean", "git-lfs-that-is-not-installed clean")
    run(repository, "config", "filter.lfs.required", "true")
    (repository / "model.py").write_text("layers = 3\n")
    with pytest.raises(PedigreeError, match=r"^git cannot record the uncommitted changes of .*clean filter 'lfs'"):
        git.tree(repository)


def test_a_git_that_is_killed_is_an_error_and_no_clean_checkout(repository, tmp_path, monkeypatch):
    (repository / "model.py").write_text("layers = 3\n")
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncase "$1" in diff) kill -9 $$;; esac\nexec {shutil.which("git")} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    with pytest.raises(PedigreeError, match="git cannot record the uncommitted changes"):
        git.tree(repository)


def test_new_files_of_any_name_and_number_are_recorded_and_those_that_are_gone_again_passed_over(
    repository, monkeypatch
):
    names = [":note.txt", "*", "-x", "a b"] + [f"{number:0200}.txt" for number in range(1000)]
    for name in names:
        (repository / name).write_text(name)
    listed = git._new_files

    def then_remove(*arguments):
        found = listed(*arguments)
        (repository / "a b").unlink()
        return found

    monkeypatch.setattr(git, "_new_files", then_remove)
    diff = git.tree(repository).diff.decode()
    assert [name for name in names if f"b/{name}" not in diff] == ["a b"]


def test_mixed_line_ends_are_recorded_though_the_user_has_git_refuse_them(repository):
    for name, value in (("core.safecrlf", "true"), ("core.autocrlf", "input")):
        run(repository, "config", name, value)
    (repository / "notes.txt").write_bytes(b"one\r\ntwo\n")
    assert b"notes.txt" in git.tree(repository).diff


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


KEY = f"-----BEGIN {'EC'} PRIVATE KEY-----\nCANARY\n"
"""In two parts, as this file would otherwise be one that holds a key."""
SECRETS = (
    *("prod.env", ".env", "sub/.env.production", "key.pem", "Server.KEY", "id_rsa", "id_ed25519", "deploy_rsa"),
    *(
        ".netrc",
        "_netrc",
        ".pypirc",
        ".npmrc",
        ".htpasswd",
        ".pgpass",
        ".git-credentials",
        "kaggle.json",
        "a.ipynb",
    ),
    *("aws_credentials.csv", "client_secret.json", "secrets/a.yaml", "my-service-account.json", "x.tfvars"),
    *("sub/.aws/config", ".ssh/config", ".kube/config", ".docker/config.json", ".gnupg/x", ".dvc/config.local2"),
    *("store.jks", "store.p12", "store.pfx", "store.kdbx", "host.keytab", "putty.ppk", ".envrc"),
)


def write(folder, name, content):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)


def test_of_new_files_that_may_hold_secrets_the_difference_has_name_and_hash_only(repository, tmp_path):
    for name in SECRETS:
        write(repository, name, "CANARY")
    write(repository, "note.txt", f"a key:\n{KEY}")
    write(repository, "secrets.py", "layers = 4\n")  # a module is code, and needed to train again
    write(repository, "token.json", "layers: 4\n")
    run(repository, "add", "prod.env")  # a staged file is no less new
    tree = git.tree(repository)
    assert tree.secret == tuple(sorted([*SECRETS, "note.txt"]))
    assert tree.new == ("secrets.py", "token.json")
    assert b"CANARY" not in tree.diff
    assert f"new file, not kept here: key.pem sha256 {files.sha256(repository / 'key.pem')}\n".encode() in tree.diff
    folder = applied(repository, tree.diff, tmp_path)
    assert (folder / "secrets.py").read_text() == "layers = 4\n"
    assert not (folder / "key.pem").exists()
    assert git.left_out(tree.diff) == list(tree.secret)


def test_of_changed_files_that_may_hold_secrets_the_difference_has_name_and_hash_only(repository, tmp_path):
    names = ["prod.env", "sub/key.pem", "note.txt", "gone.key", "[a]*.pem"]
    for name in names:
        write(repository, name, "old CANARY\n")
    run(repository, "add", ".")
    run(repository, "commit", "-qm", "second")
    for name in names:
        write(repository, name, KEY if name == "note.txt" else "new CANARY\n")
    (repository / "gone.key").unlink()
    write(repository, "model.py", "layers = 3\n")
    before = run(repository, "status", "--porcelain")
    tree = git.tree(repository)
    assert tree.secret == tuple(sorted(names))
    assert tree.new == ()
    assert b"CANARY" not in tree.diff
    assert b"deleted file, not kept here: gone.key\n" in tree.diff
    assert (applied(repository, tree.diff, tmp_path) / "model.py").read_text() == "layers = 3\n"
    assert run(repository, "status", "--porcelain") == before
    inner = git.tree(repository / "sub")
    assert (inner.secret, b"CANARY" in inner.diff) == (("key.pem",), False)


def test_a_name_with_a_line_break_adds_no_line_to_the_difference(repository, tmp_path):
    write(repository, "a\nb.pem", "CANARY")
    write(repository, "large\n+++ b", "0" * (git.LARGEST + 1))
    write(repository, "model.py", "layers = 3\n")
    tree = git.tree(repository)
    assert git.left_out(tree.diff) == ["a\\x0ab.pem", "large\\x0a+++ b"]
    assert (applied(repository, tree.diff, tmp_path) / "model.py").read_text() == "layers = 3\n"


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
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    assert git.user(tmp_path) == pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setenv("USER", "bob")
    assert git.user(tmp_path) == "bob"


def test_an_account_without_a_name_acts_under_its_number(tmp_path, monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    assert git.user(tmp_path) == f"uid {os.getuid()}"


def test_a_worktree_has_the_commit_and_what_was_in_none_and_is_gone_afterwards(repository, tmp_path):
    commit = run(repository, "rev-parse", "HEAD")
    (repository / "model.py").write_text("layers = 3\n")
    tree = git.tree(repository)
    (repository / "model.py").write_text("layers = 4\n")
    with git.worktree(repository, commit, tree.diff, tmp_path / "code") as folder:
        assert (folder / "model.py").read_text() == "layers = 3\n"
    assert not (tmp_path / "code").exists()
    assert len(run(repository, "worktree", "list").splitlines()) == 1
    assert (repository / "model.py").read_text() == "layers = 4\n"


def test_a_project_in_a_folder_of_a_larger_repository_is_given_as_that_folder(repository, tmp_path):
    (repository / "project").mkdir()
    (repository / "project" / "model.py").write_text("layers = 2\n")
    run(repository, "add", ".")
    run(repository, "commit", "-qm", "second")
    run(repository, "config", "diff.relative", "true")
    (repository / "project" / "model.py").write_text("layers = 3\n")
    tree = git.tree(repository / "project")
    with git.worktree(repository / "project", tree.commit, tree.diff, tmp_path / "code") as folder:
        assert folder == tmp_path / "code" / "project"
        assert (folder / "model.py").read_text() == "layers = 3\n"


def test_hooks_and_a_new_file_that_was_too_large_to_keep_are_no_hindrance(repository, tmp_path):
    hook = repository / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    (repository / "large").write_bytes(bytes(git.LARGEST + 1))
    tree = git.tree(repository)
    assert b"not kept here: large" in tree.diff
    with git.worktree(repository, tree.commit, tree.diff, tmp_path / "code") as folder:
        assert (folder / "model.py").is_file()


def test_a_worktree_of_the_users_that_is_away_for_now_stays_known(repository, tmp_path):
    run(repository, "worktree", "add", "-q", "-b", "mine", str(tmp_path / "mine"))
    (tmp_path / "mine").rename(tmp_path / "away")
    with git.worktree(repository, run(repository, "rev-parse", "HEAD"), b"", tmp_path / "code"):
        pass
    (tmp_path / "away").rename(tmp_path / "mine")
    assert run(tmp_path / "mine", "status", "--porcelain") == ""


def test_a_commit_that_cannot_be_checked_out_is_a_sentence_and_leaves_nothing(repository, tmp_path):
    with (
        pytest.raises(PedigreeError, match=r"^git cannot check out commit 0000"),
        git.worktree(repository, "0" * 40, b"", tmp_path / "code"),
    ):
        pass
    assert not (tmp_path / "code").exists()


def test_the_files_that_differ_between_a_commit_and_the_checkout_are_named(repository):
    first = run(repository, "rev-parse", "HEAD")
    (repository / "model.py").write_text("layers = 3\n")
    assert git.changed(repository, ".", first) == ["model.py"]
    run(repository, "commit", "-qam", "second")
    assert git.changed(repository, ".", first, run(repository, "rev-parse", "HEAD")) == ["model.py"]
    assert git.changed(repository, ".", "0" * 40) == []
