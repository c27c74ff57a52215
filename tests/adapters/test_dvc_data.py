import hashlib
import json
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import zc.lockfile
from ruamel.yaml import YAML

import components
from components.adapters import dvc_cache, dvc_data
from components.errors import PedigreeError
from components.runtime import processes, progress
from tests import dvc_program
from tests.conftest import commit
from tests.dvc_program import dvc
from tests.running import DVC, python

STAGES = """\
stages:
  prepare:
    foreach: ${models}
    do:
      cmd: python stage.py ${key}
      deps:
        - data/${item.data}
      outs:
        - build/${key}/prepared
  train:
    foreach: ${models}
    do:
      cmd: cat data/${item.data}/*/* build/${key}/prepared/facts > build/${key}/train
      deps:
        - build/${key}/prepared
        - data/${item.data}
      outs:
        - build/${key}/train
  evaluate:
    foreach: ${models}
    do:
      cmd: cp build/${key}/train build/${key}/evaluate
      deps:
        - build/${key}/train
      outs:
        - build/${key}/evaluate
  register:
    foreach: ${models}
    do:
      cmd: cp build/${key}/evaluate build/${key}/register
      deps:
        - build/${key}/evaluate
      outs:
        - build/${key}/register
"""

# Stands for a stage's program; MODE in the environment says how it goes.
PROGRAM = """\
import os, sys, time
from pathlib import Path
task, mode = sys.argv[1], os.environ.get("MODE")
if not any(Path("data", task).iterdir()):  # as `Model.expect_data` does
    what = f"data/{task} is missing: restore the data set of {task} with `pedigree data {task}`"
    print(f"error: {what}", file=sys.stderr)
    sys.exit(1)
print("preparing", task)
if mode == "refuse":
    print("error: 3 of 4 files were refused:\\n  repair them", file=sys.stderr)
    sys.exit(1)
if mode == "crash":
    raise ValueError("not for people")
if mode == "slow":
    Path(f"started-{task}").write_text(str(os.getpid()))
    time.sleep(float(os.environ["SECONDS"]))
out = Path("build", task, "prepared")
out.mkdir(parents=True)
(out / "facts").write_text("\\n".join([sys.executable, os.environ.get("DVC_NO_ANALYTICS", "")]))
"""


@pytest.fixture(scope="module", autouse=True)
def _without_settings(tmp_path_factory):
    with dvc_program.without_settings(tmp_path_factory):
        yield


SETS = ("digits", "words")
PIN = f"{'ab' * 16}.dir"


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    root = tmp_path_factory.mktemp("template") / "project"
    for file in ("digits/train/1.txt", "digits/train/2.txt", "digits/.hidden", "words/text.txt"):
        (root / "data" / file).parent.mkdir(parents=True, exist_ok=True)
        (root / "data" / file).write_text(f"content of {file}")
    (root / "stage.py").write_text(PROGRAM)
    (root / "dvc.yaml").write_text(STAGES)
    (root / "params.yaml").write_text(
        "models: {digits: {task: image_classification, data: digits}, words: {task: spoken_words, data: words}}"
    )
    (root / ".gitignore").write_text("/build/\n/data/\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    dvc(root, "init")
    dvc(root, "config", "core.autostage", "false")
    return root


@pytest.fixture
def project(template, tmp_path):
    """A DVC project with data/ in it that nothing pins."""
    return shutil.copytree(template, tmp_path / "project")


@pytest.fixture(scope="module")
def pinned_template(template, tmp_path_factory):
    root = shutil.copytree(template, tmp_path_factory.mktemp("pinned") / "project")
    dvc_data.add(root, *SETS)
    return root


@pytest.fixture
def pinned(pinned_template, tmp_path):
    """A DVC project whose data/ is what data.dvc pins."""
    return shutil.copytree(pinned_template, tmp_path / "project")


def files_below(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_has_the_hash_that_dvc_add_pins(project):
    (project / ".dvcignore").write_text(".hidden\n")
    copy = shutil.copytree(project / "data" / "digits", project / ".data.new-1")
    ahead = dvc_data.version_of(copy, project)
    assert ahead.files == 2  # and not the ignored one
    dvc_data.add(project, "digits")
    assert dvc_data.pinned_version(project, "digits") == ahead
    assert dvc_data.pinned(project, "digits") == dvc_data.hash_of(project / "data" / "digits", project) == ahead.md5


def test_asking_for_a_hash_changes_nothing(project):
    before = files_below(project)
    dvc_data.hash_of(project / "data" / "digits", project)
    assert files_below(project).keys() - before.keys() <= {".dvc/tmp/btime"}
    assert not (project / ".dvc" / "cache").exists()


def test_one_changed_byte_changes_the_hash(pinned):
    (pinned / "data" / "words" / "text.txt").write_text("content of words/text.txT")
    assert dvc_data.hash_of(pinned / "data" / "words", pinned) != dvc_data.pinned(pinned, "words")
    assert dvc_data.hash_of(pinned / "data" / "digits", pinned) == dvc_data.pinned(pinned, "digits")


def test_a_file_replaced_by_one_of_the_same_size_and_time_changes_the_hash_and_is_not_pinned_as_the_old_one(
    project,
):
    folder, file = project / "data" / "words", project / "data" / "words" / "text.txt"
    dvc_data.add(project, "words")
    before, text = dvc_data.pinned(project, "words"), (project / "data.dvc").read_text()
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    with file.open("r+") as opened:  # one that is unpacked in its place often has its inode, too
        opened.write("CONTENT")
    os.utime(file, ns=times)
    assert dvc_data.hash_of(folder, project) != before
    with pytest.raises(
        PedigreeError, match=r"same time and size as before: run `find data/words -type f -exec touch"
    ):
        dvc_data.add(project, "words")
    assert (project / "data.dvc").read_text() == text
    file.touch()
    dvc_data.add(project, "words")
    assert dvc_data.pinned(project, "words") == dvc_data.hash_of(folder, project) != before


def test_hashing_says_how_far_it_is(project, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "pedigree.dvc")
    folder = project / "data" / "digits"
    dvc_data.hash_of(folder, project)
    assert not caplog.messages, "it took less than 5 seconds"
    monkeypatch.setattr(progress, "QUIET_SECONDS", -1)
    dvc_data.hash_of(folder, project)
    assert f"{folder}: 2 of about 2 files hashed" in caplog.messages


def test_data_that_are_not_there_have_no_hash(project):
    shutil.rmtree(project / "data")
    assert dvc_data.hash_or_none(project / "data") == "none"


def test_a_dvcignore_inside_the_data_is_rejected_with_the_reason(project):
    (project / "data" / "digits" / ".dvcignore").write_text("*.tmp")
    with pytest.raises(PedigreeError, match=r"\.dvcignore file should not be in"):
        dvc_data.hash_of(project / "data" / "digits", project)


def test_a_data_set_without_an_entry_in_data_dvc_is_not_pinned(pinned):
    assert dvc_data.pinned(pinned, "docstrings") is None


@pytest.mark.parametrize(
    "text",
    [
        "<<<<<<< HEAD\nouts:\n- md5: a\n=======\n",
        "",
        "outs: data/digits\n",
        "outs: [data/digits]\n",
        "outs: [{md5: a.dir, nfiles: 1}]\n",
        "outs: [{path: data/digits, md5: 7, nfiles: 1}]\n",
        "outs: [{path: data/digits, md5: a.dir, nfiles: 2001-99-99}]\n",
    ],
)
def test_a_data_dvc_that_dvc_did_not_write_is_rejected_with_the_remedy_and_stays(project, text):
    (project / "data.dvc").write_text(text)
    with pytest.raises(PedigreeError, match=r"^data\.dvc is not as DVC writes it: .*`git checkout data\.dvc`$"):
        dvc_data.pinned(project, "digits")
    with pytest.raises(PedigreeError, match=r"^data\.dvc is not as DVC writes it"):
        dvc_data.add(project, "digits")
    assert (project / "data.dvc").read_text() == text


def entries(root):
    return {out["path"]: out for out in YAML(typ="safe").load(root / "data.dvc")["outs"]}


def test_one_more_data_set_gets_an_entry_after_those_of_others_and_their_comments_stay(pinned):
    before = (pinned / "data.dvc").read_text()
    (pinned / "data.dvc").write_text(f"# Ours.\n{before}")
    (pinned / "data" / "xrays").mkdir()
    (pinned / "data" / "xrays" / "1.txt").write_text("one")
    dvc_data.add(pinned, "xrays")
    assert (pinned / "data.dvc").read_text().startswith(f"# Ours.\n{before}")
    assert list(entries(pinned)) == ["data/digits", "data/words", "data/xrays"]
    assert dvc_data.pinned(pinned, "xrays") == dvc_data.hash_of(pinned / "data" / "xrays", pinned)


@pytest.mark.parametrize(
    "before",
    [
        None,
        pytest.param(f"outs:\n- md5: {PIN}\n  path: data\n", marks=pytest.mark.long),
        "outs:\n- path: data/words\n",
    ],
)
def test_data_that_dvc_rejects_leave_data_dvc_as_it_was(project, before):
    if before:
        (project / "data.dvc").write_text(before)
    (project / "data" / "digits" / ".dvcignore").write_text("*.tmp")
    with pytest.raises(PedigreeError, match=r"\.dvcignore"):
        dvc_data.add(project, "digits")
    assert ((project / "data.dvc").read_text() if (project / "data.dvc").exists() else None) == before


@pytest.mark.long
def test_of_two_who_pin_at_once_both_find_their_entries(project):
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: dvc_data.add(project, name), SETS))
    assert [dvc_data.pinned(project, name) for name in SETS] == [
        dvc_data.hash_of(project / "data" / name, project) for name in SETS
    ]


def test_git_sees_data_dvc_and_no_raw_data(pinned):
    command = ["git", "status", "--porcelain", "--untracked-files=all", "data", "data.dvc"]
    listed = subprocess.run(command, cwd=pinned, capture_output=True, text=True, check=True)
    assert [line.split()[1] for line in listed.stdout.splitlines()] == ["data.dvc"]


def test_where_all_of_data_is_pinned_as_one_nothing_is_done_but_said_what_to_do_until_a_set_is_pinned(project):
    (project / "data.dvc").write_text(f"outs:\n- md5: {PIN}\n  path: data\n")
    with pytest.raises(PedigreeError, match=r"^data\.dvc pins all of data/ as one, .*`pedigree data --accept`"):
        dvc_data.checkout(project, "digits")
    dvc_data.add(project, "digits")
    assert list(entries(project)) == ["data/digits"]


def test_one_data_set_is_pulled_alone_by_dvc_itself_and_a_stage_needs_no_other(pinned, tmp_path):
    dvc(pinned, "remote", "add", "-d", "shelf", str(tmp_path / "shelf"))
    dvc(pinned, "push")
    before = files_below(pinned / "data" / "digits")
    for folder in ("data/digits", "data/words", ".dvc/cache"):
        shutil.rmtree(pinned / folder)
    dvc(pinned, "pull", "data/digits")
    assert files_below(pinned / "data" / "digits") == before
    assert not (pinned / "data" / "words").exists()
    assert not dvc_cache.holds(pinned, dvc_data.pinned(pinned, "words")), "nothing of it came into the cache either"
    dvc_data.repro(pinned, "prepare@digits")
    assert (pinned / "build" / "digits" / "prepared" / "facts").exists()


def test_data_that_changed_are_pinned_anew_alone_and_only_where_they_were_pinned(pinned):
    before = entries(pinned)
    for name in SETS:
        (pinned / "data" / name / "more.txt").write_text("more")
    for found in (before["data/digits"]["md5"], dvc_data.hash_of(pinned / "data" / "digits", pinned)):
        dvc_data.add_changed(pinned, "digits", found)
        assert dvc_data.pinned(pinned, "digits") == found
    assert dvc_data.pinned_version(pinned, "digits").files == before["data/digits"]["nfiles"] + 1
    assert dvc_cache.holds(pinned, found), "a later run can have them, whatever becomes of the folder"
    assert entries(pinned)["data/words"] == before["data/words"]
    dvc_data.add_changed(pinned, "docstrings", "abc.dir")
    assert list(entries(pinned)) == list(before)


def our_dvc(root, *arguments):
    """The `dvc` of this environment, with the code of this checkout."""
    return python(root, 200, *DVC, *arguments, PYTHONPATH=str(Path(components.__file__).parent.parent))


def test_a_clone_pulls_the_data_and_the_outputs_of_stages_that_ran_and_hears_nothing_of_others(pinned, tmp_path):
    dvc(pinned, "repro", "prepare@digits")
    dvc(pinned, "remote", "add", "--default", "storage", str(tmp_path / "remote"))
    dvc(pinned, "push")
    commit(pinned, "One model's first stage")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", pinned, clone], check=True)
    pulled = our_dvc(clone, "pull")
    assert (pulled.returncode, pulled.stderr) == (0, ""), pulled.stderr
    for each in ("data/digits", "data/words", "build/digits/prepared"):
        assert files_below(clone / each) == files_below(pinned / each)
    assert not (clone / "build" / "words").exists()


@pytest.mark.long
def test_repro_of_one_models_stages_needs_no_other_models_data_and_leaves_its_pin(pinned):
    """The data set has an entry in data.dvc, though the last model that read it may be gone."""
    before = entries(pinned)
    shutil.rmtree(pinned / "data" / "words")
    for said in ("Running stage 'register@digits'", "Stage 'register@digits' didn't change, skipping"):
        done = our_dvc(pinned, "repro", "register@digits")
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
        assert "words" not in done.stdout + done.stderr
    (pinned / "data" / "words").mkdir()
    (pinned / "data" / "digits" / "train" / "1.txt").write_text("changed")
    assert our_dvc(pinned, "repro", "-q", "train@digits").returncode == 0
    assert "changed" in (pinned / "build" / "digits" / "train").read_text()
    assert entries(pinned)["data/words"] == before["data/words"]
    assert dvc_data.pinned(pinned, "digits") == dvc_data.hash_of(pinned / "data" / "digits", pinned), "as DVC does"


def test_dvc_runs_its_stages_with_its_own_python_though_its_environment_is_not_activated(pinned):
    code = str(Path(components.__file__).parent.parent)
    done = python(pinned, 200, *DVC, "repro", "-q", "prepare@digits", PATH=os.defpath, PYTHONPATH=code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("missing", "empty"),
    [(("digits",), ()), pytest.param(SETS, (), marks=pytest.mark.long), (SETS, SETS)],
)
def test_repro_of_a_model_without_data_names_the_command_that_brings_them_and_no_other(pinned, missing, empty):
    before = (pinned / "data.dvc").read_text()
    for name in missing:
        shutil.rmtree(pinned / "data" / name)
    for name in empty:
        (pinned / "data" / name).mkdir()
    done = our_dvc(pinned, "repro", "register@digits")
    assert done.returncode != 0
    assert [line for line in done.stderr.splitlines() if "pedigree data" in line] == [
        "error: data/digits is missing: restore the data set of digits with `pedigree data digits`"
    ]
    assert "Traceback" not in done.stderr
    assert (pinned / "data.dvc").read_text() == before


def test_a_folder_that_is_no_dvc_project_is_rejected_with_the_remedy(tmp_path):
    (tmp_path / "data").mkdir()
    for act in (lambda: dvc_data.hash_of(tmp_path / "data", tmp_path), lambda: dvc_data.add(tmp_path, "digits")):
        with pytest.raises(PedigreeError, match=r"not a DVC project: .*dvc init"):
            act()


def test_pinning_again_what_is_pinned_leaves_its_pin_as_it_was(pinned):
    written = ("data.dvc", ".gitignore")
    before = files_below(pinned)
    dvc_data.add(pinned, "digits")
    after = files_below(pinned)
    assert [after[file] for file in written] == [before[file] for file in written]


def test_the_cache_brings_the_pinned_data_back(pinned):
    before = files_below(pinned / "data")
    shutil.rmtree(pinned / "data" / "digits")
    assert dvc_cache.holds(pinned, dvc_data.pinned(pinned, "digits"))
    dvc_data.checkout(pinned, "digits")
    assert files_below(pinned / "data") == before


def test_a_cache_without_one_of_the_files_does_not_hold_the_data(pinned):
    objects = [
        path for path in (pinned / ".dvc/cache/files").rglob("*") if path.is_file() and path.suffix != ".dir"
    ]
    objects[0].unlink()
    assert [dvc_cache.holds(pinned, dvc_data.pinned(pinned, name)) for name in SETS].count(True) == 1
    shutil.rmtree(pinned / ".dvc" / "cache")
    assert not any(dvc_cache.holds(pinned, dvc_data.pinned(pinned, name)) for name in SETS)
    assert not dvc_cache.holds(pinned, None)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://bob:p/CANARY@host", "the address of DVC's remote shelf is not a valid address"),
        ("s3://bob:pw CANARY@bucket", "the address of DVC's remote shelf is not a valid address"),
        ("http://[bob:CANARY@host", "dvc failed: config file error: not a valid value"),
    ],
)
def test_an_address_of_a_remote_that_cannot_be_parsed_is_refused_and_never_shown(tmp_path, capfd, address, said):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text(f"[core]\nremote = shelf\n['remote \"shelf\"']\nurl = '{address}'\n")
    with pytest.raises(PedigreeError, match=said) as refused:
        dvc_cache.has_remote(tmp_path)
    assert "CANARY" not in f"{refused.value}{''.join(capfd.readouterr())}"


def test_a_remote_brings_the_pinned_data_into_the_cache(pinned, tmp_path):
    assert not dvc_cache.has_remote(pinned)
    dvc(pinned, "remote", "add", "-d", "shelf", str(tmp_path / "shelf"))
    assert dvc_cache.has_remote(pinned)
    dvc(pinned, "push")
    before = files_below(pinned / ".dvc" / "cache" / "files")
    shutil.rmtree(pinned / ".dvc" / "cache" / "files")
    for name in SETS:
        dvc_cache.fetch(pinned, dvc_data.pinned(pinned, name))
    assert files_below(pinned / ".dvc" / "cache" / "files") == before


def test_a_listing_in_the_cache_that_is_not_the_one_it_is_named_for_comes_from_the_remote(pinned, tmp_path):
    shutil.copytree(pinned / ".dvc" / "cache", tmp_path / "shelf")
    dvc(pinned, "remote", "add", "-d", "shelf", str(tmp_path / "shelf"))
    before = files_below(pinned / ".dvc" / "cache" / "files")
    version, other = (dvc_data.pinned(pinned, name) for name in SETS)
    at = [pinned / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:] for md5 in (version, other)]
    for content in (b"damaged", at[1].read_bytes()):
        at[0].chmod(0o644)
        at[0].write_bytes(content)
        at[0].chmod(0o444)  # as DVC leaves its files: it trusts what is read-only
        dvc_cache.fetch(pinned, version)
        assert files_below(pinned / ".dvc" / "cache" / "files") == before


def test_a_file_outside_the_cache_is_not_taken_for_a_damaged_listing(pinned, tmp_path):
    md5 = "../../mine.dir"  # from a lineage, which those who may write to MLflow's store can forge
    dvc(pinned, "remote", "add", "-d", "shelf", str(tmp_path / "shelf"))
    with dvc_data.repo_of(pinned) as repo:
        file = Path(repo.cache.local.oid_to_path(md5))
    assert file.is_relative_to(pinned)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    with pytest.raises(PedigreeError, match="is not the hash of a data set"):
        dvc_cache.fetch(pinned, md5)
    assert file.exists()


def test_an_earlier_version_comes_from_the_remote_and_data_stays_as_it_is(pinned, tmp_path):
    dvc(pinned, "remote", "add", "-d", "shelf", str(tmp_path / "shelf"))
    dvc(pinned, "push")
    version, before = dvc_data.pinned(pinned, "digits"), files_below(pinned / "data" / "digits")
    (pinned / "data" / "digits" / "train" / "1.txt").write_text("changed since")
    dvc_data.add(pinned, "digits")
    now = files_below(pinned / "data")
    shutil.rmtree(pinned / ".dvc" / "cache")
    assert not dvc_cache.holds(pinned, version)
    assert dvc_cache.remote_holds(pinned, version)
    dvc_cache.fetch(pinned, version)
    dvc_cache.write_version(pinned, version, tmp_path / "digits")
    assert files_below(tmp_path / "digits") == before
    assert files_below(pinned / "data") == now


def test_of_a_version_of_all_data_one_folder_is_had_though_files_of_another_are_lost(pinned, tmp_path):
    """As versions pin it that are from before each data set had a pin of its own."""
    before = files_below(pinned / "data" / "digits")
    whole = tmp_path / "whole"
    shutil.copytree(pinned, whole, ignore=shutil.ignore_patterns("?*.dvc", "cache", ".gitignore"))
    dvc(whole, "add", "data")
    version = YAML(typ="safe").load(whole / "data.dvc")["outs"][0]["md5"]
    dvc(whole, "remote", "add", "-d", "shelf", str(tmp_path / "shelf"))
    dvc(whole, "push")
    lost = hashlib.md5(b"content of words/text.txt").hexdigest()
    (tmp_path / "shelf" / "files" / "md5" / lost[:2] / lost[2:]).unlink()
    dvc(pinned, "remote", "add", "-d", "shelf", str(tmp_path / "shelf"))
    shutil.rmtree(pinned / ".dvc" / "cache")
    assert not dvc_cache.remote_holds(pinned, version)
    assert dvc_cache.remote_holds(pinned, version, "digits")
    dvc_cache.fetch(pinned, version, "digits")
    assert not dvc_cache.holds(pinned, version)
    assert dvc_cache.holds(pinned, version, "digits")
    dvc_cache.write_version(pinned, version, tmp_path / "digits", "digits")
    assert files_below(tmp_path / "digits") == before


def test_a_remote_that_lacks_one_file_does_not_hold_the_version(pinned, tmp_path):
    dvc(pinned, "remote", "add", "-d", "shelf", str(tmp_path / "shelf"))
    dvc(pinned, "push")
    version = dvc_data.pinned(pinned, "digits")
    one = hashlib.md5(b"content of digits/train/1.txt").hexdigest()
    (tmp_path / "shelf" / "files" / "md5" / one[:2] / one[2:]).unlink()
    shutil.rmtree(pinned / ".dvc" / "cache")
    assert not dvc_cache.remote_holds(pinned, version)
    with pytest.raises(PedigreeError, match=r"^DVC's remote lacks .* of data"):
        dvc_cache.fetch(pinned, version)


def test_of_a_remote_out_of_reach_nobody_knows_what_it_holds(pinned):
    dvc(pinned, "remote", "add", "-d", "shelf", "http://127.0.0.1:9/shelf")
    shutil.rmtree(pinned / ".dvc" / "cache")
    for ask in (dvc_cache.remote_holds, dvc_cache.fetch):
        with pytest.raises(PedigreeError, match=r"^DVC's remote is unreachable \(.*\): check") as caught:
            ask(pinned, dvc_data.pinned(pinned, "digits"))
        assert "\n" not in str(caught.value)


def test_without_git_as_in_a_downloaded_archive_data_is_pinned_and_prepared(project):
    shutil.rmtree(project / ".git")
    dvc_data.add(project, "digits")
    pin = dvc_data.pinned(project, "digits")
    assert dvc_cache.holds(project, pin)
    assert dvc_data.hash_or_none(project / "data" / "digits") == pin
    dvc_data.repro(project, "prepare@digits")
    assert (project / "build" / "digits" / "prepared" / "facts").is_file()
    assert not (project / ".dvc" / "config.local").exists()


def test_a_version_whose_list_names_a_file_outside_its_folder_is_not_written(pinned, tmp_path):
    entries = [{"md5": "0" * 32, "relpath": "train/../../escaped.txt"}]
    listed = json.dumps(entries).encode()
    md5 = hashlib.md5(listed).hexdigest()
    entry = pinned / ".dvc" / "cache" / "files" / "md5" / md5[:2] / f"{md5[2:]}.dir"
    entry.parent.mkdir(parents=True, exist_ok=True)
    entry.write_bytes(listed)
    with pytest.raises(PedigreeError, match=r"names 'train/\.\./\.\./escaped\.txt', which is outside its folder"):
        dvc_cache.write_version(pinned, f"{md5}.dir", tmp_path / "digits")
    assert not list(tmp_path.rglob("escaped.txt"))


def test_a_list_of_files_that_is_none_is_no_version_that_is_held(pinned):
    entry = pinned / ".dvc" / "cache" / "files" / "md5" / "ab" / "cdef.dir"
    entry.parent.mkdir(parents=True, exist_ok=True)
    entry.write_text('[{"md5": "f00"}]')
    assert not dvc_cache.holds(pinned, "abcdef.dir")


@pytest.mark.parametrize(
    ("pins", "said"),
    [
        (
            "outs: [{{path: ../elsewhere, md5: {pin}}}]",
            r"data\.dvc pins \.\./elsewhere, which is not in data/: remove",
        ),
        ("outs: [{{path: /etc/cron.d, md5: {pin}}}]", "pins /etc/cron.d, which is not in data/"),
        ("outs: [{{path: data/../components, md5: {pin}}}]", "which is not in data/"),
        ("outs: [{{path: components, md5: {pin}}}]", "which is not in data/"),
        ("outs: [{{path: data/.git, md5: {pin}}}]", "which is not in data/"),
        ("outs: [{{path: data/digits, md5: ../../x.dir}}]", "not as DVC writes it"),
        ("outs: [{{path: data/digits, md5: {pin}, files: [{{relpath: ../x}}]}}]", "not as DVC writes it"),
        ("wdir: ..\nouts: [{{path: data/digits, md5: {pin}}}]", "not as DVC writes it"),
        ("cmd: id\nouts: [{{path: data/digits, md5: {pin}}}]", "not as DVC writes it"),
        ("a: &a [1]\nouts: [{{path: data/digits, md5: {pin}, nfiles: *a}}]", "not as DVC writes it"),
        ("outs: " + "[" * 60_000, "not as DVC writes it"),
        ("outs: []  # {long}", "not as DVC writes it"),
    ],
    ids=lambda value: value[:50],
)
def test_pins_outside_data_and_what_dvc_never_writes_are_rejected_before_dvc_reads_them(tmp_path, pins, said):
    (tmp_path / "data.dvc").write_text(pins.format(pin=PIN, long="x" * dvc_data.LARGEST))
    with pytest.raises(PedigreeError, match=said):
        dvc_data.checkout(tmp_path, "digits")


@pytest.mark.long
def test_a_file_that_becomes_a_link_while_dvc_pins_it_is_in_no_pin_and_is_not_pushed(pinned, tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("secret")
    (pinned / "data" / "digits" / "train" / "1.txt").write_text("changed")
    before, run = (pinned / "data.dvc").read_text(), dvc_data._dvc

    def swapped(root, *arguments):
        file = root / "data" / "digits" / "train" / "1.txt"
        file.unlink()
        file.symlink_to(tmp_path / "secret")
        run(root, *arguments)
        file.unlink()
        file.write_text("changed")

    monkeypatch.setattr(dvc_data, "_dvc", swapped)
    with pytest.raises(PedigreeError, match="DVC pins older files of data/digits than are there"):
        dvc_data.add(pinned, "digits")
    assert (pinned / "data.dvc").read_text() == before
    dvc(pinned, "remote", "add", "-d", "shelf", str(tmp_path / "shelf"))
    dvc(pinned, "push")
    assert b"secret" not in files_below(tmp_path / "shelf").values()


def test_a_hard_link_whose_other_name_dvc_would_make_read_only_is_rejected(pinned, tmp_path):
    file = pinned / "data" / "digits" / "train" / "3.txt"
    (tmp_path / "mine.txt").write_text("mine")
    file.hardlink_to(tmp_path / "mine.txt")
    dvc(pinned, "config", "cache.type", "hardlink")
    with pytest.raises(PedigreeError, match=r"cache\.type is hardlink, .* \(train/3\.txt\): put copies"):
        dvc_data.add(pinned, "digits")
    assert file.stat().st_mode & 0o777 != 0o444


@pytest.mark.long
@pytest.mark.parametrize("kind", ["copy", "hardlink", "symlink"])
def test_whatever_links_dvc_makes_the_data_can_be_pinned_again_and_files_elsewhere_keep_their_mode(
    project, tmp_path, kind
):
    file = project / "data" / "digits" / "train" / "3.txt"
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "mine.txt").chmod(0o640)
    if kind != "hardlink":
        file.hardlink_to(tmp_path / "mine.txt")
    dvc(project, "config", "cache.type", kind)
    for _ in range(2):
        dvc_data.add(project, "digits")
    assert dvc_data.pinned(project, "digits") == dvc_data.hash_of(project / "data" / "digits", project)
    assert (tmp_path / "mine.txt").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("elsewhere", [False, True], ids=["in the project", "elsewhere"])
def test_links_into_the_cache_of_the_project_are_files_and_links_into_that_of_another_are_refused(
    pinned, tmp_path, elsewhere
):
    """Wherever DVC's configuration says that the cache is, and whatever links lead there."""
    own = pinned / ".dvc" / "cache"
    if elsewhere:
        own = own.rename(tmp_path / "own")
        (tmp_path / "named").symlink_to(own)
        (pinned / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {tmp_path / 'named'}\n")
    (pinned / ".dvc" / "cache").mkdir(exist_ok=True)
    shutil.copytree(own, tmp_path / "other")
    file = pinned / "data" / "digits" / "train" / "1.txt"
    below = dvc_cache_path(file)
    file.unlink()
    file.symlink_to(own / below)
    assert "train/1.txt" in dvc_data.survey(file.parents[1]).readable
    assert dvc_data.hash_or_none(file.parents[1]) == dvc_data.pinned(pinned, "digits")
    file.unlink()
    file.symlink_to(tmp_path / "other" / below)
    for act in (dvc_data.survey, dvc_data.expect_readable, dvc_data.hash_or_none):
        with pytest.raises(PedigreeError, match=r"its own files, not train/1\.txt \(a link to .*/other/files/md5/"):
            act(file.parents[1])


def dvc_cache_path(file):
    """Return where DVC's caches have the content of a file."""
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    return Path("files", "md5", md5[:2], md5[2:])


@pytest.mark.long
@pytest.mark.parametrize("command", [["add", "data/digits"], ["commit", "-f"], ["repro", "prepare@digits"]])
def test_the_dvc_of_this_environment_rejects_links_to_files_elsewhere_like_every_command(pinned, command):
    (pinned / "data" / "digits" / "train" / "link.txt").symlink_to("/etc/passwd")
    done = our_dvc(pinned, *command)
    assert done.returncode == 1
    assert "may hold only its own files, not train/link.txt (a link to /etc/passwd): remove them" in done.stderr
    secret = Path("/etc/passwd").read_bytes()
    assert secret not in files_below(pinned / ".dvc" / "cache").values()


def test_a_stage_runs_with_our_python_and_its_lines_are_logged_but_for_dvcs_advice_on_git_and_remotes(
    pinned, caplog, monkeypatch
):
    monkeypatch.setenv("PATH", os.defpath)  # as in a shell where the venv is not activated
    caplog.set_level(logging.INFO, "pedigree.dvc")
    dvc_data.repro(pinned, "prepare@digits")
    python, analytics = (pinned / "build/digits/prepared/facts").read_text().splitlines()
    assert (Path(python), analytics) == (Path(sys.executable), "1")
    assert "preparing digits" in caplog.messages
    assert caplog.messages[-1] == "dvc.lock records the output of prepare@digits: commit it to git"
    assert not any("git " in message or "dvc push" in message for message in caplog.messages[:-1])
    dvc_data.repro(pinned, "prepare@digits")
    assert len([each for each in caplog.messages if "dvc.lock records" in each]) == 1
    assert caplog.messages.count("preparing digits") == 1  # the second time there is nothing to do


def test_a_failing_stage_is_reported_in_its_own_sentence(pinned, monkeypatch):
    monkeypatch.setenv("MODE", "refuse")
    with pytest.raises(PedigreeError) as caught:
        dvc_data.repro(pinned, "prepare@digits")
    assert str(caught.value) == "3 of 4 files were refused:\n  repair them"


@pytest.mark.parametrize(
    ("stage", "reason"),
    [("prepare@digits", "python stage.py digits, exited with 1"), ("prepare@digit", "'prepare@digit' not found")],
)
def test_a_failure_without_a_sentence_is_reported_in_dvcs(pinned, monkeypatch, stage, reason):
    monkeypatch.setenv("MODE", "crash")
    with pytest.raises(PedigreeError, match=f"^dvc repro --single-item {stage} failed: .*{reason}"):
        dvc_data.repro(pinned, stage)


def waits_until(ends: Callable[[], object], pinned: Path, monkeypatch, caplog) -> str:
    """Add data while another DVC is at work, which ends when ours has said that it waits; return what it said."""
    monkeypatch.setattr(dvc_data.time, "sleep", lambda seconds: ends())
    with caplog.at_level(logging.INFO, "pedigree"):
        dvc_data.add(pinned, "digits")
    return caplog.text


@pytest.mark.long
def test_of_two_dvc_the_second_waits_though_the_first_is_not_of_this_environment(pinned, monkeypatch, caplog):
    (pinned / ".dvc" / "tmp").mkdir(exist_ok=True)
    lock = zc.lockfile.LockFile(str(pinned / ".dvc" / "tmp" / "lock"))
    said = waits_until(lock.close, pinned, monkeypatch, caplog)
    assert "waiting for another DVC command in this workspace" in said


def test_whoever_waits_for_data_that_another_dvc_reads_says_for_which_process(pinned, monkeypatch, caplog):
    (pinned / ".dvc" / "tmp").mkdir(exist_ok=True)
    reader = {"pid": os.getpid(), "cmd": "dvc push"}
    rwlock = pinned / ".dvc" / "tmp" / "rwlock"
    rwlock.write_text(json.dumps({"read": {str(pinned / "data" / "digits"): [reader]}}))
    said = waits_until(lambda: rwlock.write_text("{}"), pinned, monkeypatch, caplog)
    assert f"waiting for another DVC command in this workspace (PID {os.getpid()}): dvc push" in said


@pytest.mark.long
def test_a_dvc_that_outlives_its_killed_parent_is_ended_with_its_stage_before_the_next_one(pinned, monkeypatch):
    monkeypatch.setenv("MODE", "quick")
    process, _ = start_slow_repro(pinned, seconds=600)
    left = processes.tree(process.pid)[1:]
    process.kill()
    process.wait()
    assert any(not each.gone for each in left)
    dvc_data.repro(pinned, "prepare@digits")
    assert all(each.gone for each in left)


def start_slow_repro(root, seconds):
    """Return a process that reproduces prepare@digits, and all it started, once the stage's program runs."""
    # A shell that starts the tests in the background has them ignore SIGINT, and their children with them.
    code = (
        "import signal, sys; from pathlib import Path; from components.adapters import dvc_data\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code + "dvc_data.repro(Path(sys.argv[1]), 'prepare@digits')", str(root)],
        cwd=Path(components.__file__).parent.parent,
        env=os.environ | {"MODE": "slow", "SECONDS": str(seconds)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    started = root / "started-digits"
    deadline = time.monotonic() + 30
    while not (started.exists() and started.read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    return process, psutil.Process(process.pid).children(recursive=True)


def test_of_two_repros_at_once_the_second_waits_and_both_succeed(pinned, caplog):
    caplog.set_level(logging.INFO, "pedigree")
    first, _ = start_slow_repro(pinned, seconds=2)
    dvc_data.repro(pinned, "prepare@words")
    assert first.wait(30) == 0
    waits = [message for message in caplog.messages if message.startswith("waiting")]
    assert waits == [f"waiting for dvc repro --single-item prepare@digits (pid {first.pid} on {platform.node()})"]
    assert (pinned / "build/digits/prepared/facts").exists()
    assert (pinned / "build/words/prepared/facts").exists()


@pytest.mark.parametrize(
    "end",
    [
        lambda pid: os.kill(pid, signal.SIGINT),
        pytest.param(lambda pid: os.killpg(pid, signal.SIGTERM), marks=pytest.mark.long),
    ],
    ids=["ctrl-c", "prefect"],
)
def test_an_interrupted_repro_ends_the_stages_program_too_and_can_be_repeated(pinned, end):
    process, started = start_slow_repro(pinned, seconds=60)
    assert int((pinned / "started-digits").read_text()) in [child.pid for child in started]
    end(process.pid)
    assert process.wait(20) != 0
    _, alive = psutil.wait_procs(started, timeout=5)
    assert not alive
    dvc_data.repro(pinned, "prepare@digits")
    assert (pinned / "build/digits/prepared/facts").exists()


@pytest.mark.parametrize("file", [".dvc/tmp/rwlock", "dvc.lock"])
@pytest.mark.parametrize("content", ["", '{"write": {', "\x00\x00"])
def test_what_a_killed_dvc_left_half_written_is_put_away(tmp_path, monkeypatch, file, content):
    monkeypatch.setattr(dvc_data, "MOMENT", 0)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(content)
    dvc_data.repair(tmp_path)
    assert not (tmp_path / file).exists()
    assert (tmp_path / f"{file}.damaged").read_text() == content


def test_a_dvc_lock_that_is_whole_stays(tmp_path):
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    dvc_data.repair(tmp_path)
    assert (tmp_path / "dvc.lock").exists()


@pytest.mark.parametrize(("files", "said"), [(1, "1 file"), (0, "0 files"), (5000, "5,000 files")])
def test_the_size_of_a_version_reads_as_english(files, said):
    assert dvc_data.Version("778426741c2abb199f7590392b1299e0.dir", files).size == said
