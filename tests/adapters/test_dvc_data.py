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
from pathlib import Path

import psutil
import pytest
import zc.lockfile

import components
from components import processes
from components.adapters import dvc_data
from components.errors import PedigreeError

STAGES = """\
stages:
  prepare:
    foreach: ${tasks}
    do:
      cmd: python stage.py ${key}
      deps:
        - data/${key}
      outs:
        - build/${key}/prepared
"""

# Stands for a stage's program; MODE in the environment says how it goes.
PROGRAM = """\
import os, sys, time
from pathlib import Path
task, mode = sys.argv[1], os.environ.get("MODE")
print("preparing", task)
if mode == "refuse":
    print("error: 3 of 4 files were refused:\\n  mend them", file=sys.stderr)
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
def _nothing_of_the_user(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        yield


def dvc(root, *arguments):
    subprocess.run([sys.executable, "-m", "dvc", *arguments, "-q"], cwd=root, check=True)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    root = tmp_path_factory.mktemp("template") / "project"
    for file in ("vision/train/1.txt", "vision/train/2.txt", "vision/.hidden", "language/text.txt"):
        (root / "data" / file).parent.mkdir(parents=True, exist_ok=True)
        (root / "data" / file).write_text(f"content of {file}")
    (root / "stage.py").write_text(PROGRAM)
    (root / "dvc.yaml").write_text(STAGES)
    (root / "params.yaml").write_text("tasks: {vision: {a: 1}, language: {a: 1}}")
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
    dvc_data.add(root)
    return root


@pytest.fixture
def pinned(pinned_template, tmp_path):
    """A DVC project whose data/ is what data.dvc pins."""
    return shutil.copytree(pinned_template, tmp_path / "project")


def files_below(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_has_the_hash_that_dvc_add_pins(project):
    (project / ".dvcignore").write_text(".hidden\n")
    copy = shutil.copytree(project / "data", project / ".data.new-1")
    ahead = dvc_data.version_of(copy, project)
    assert ahead.files == 3  # and not the ignored one
    dvc_data.add(project)
    assert dvc_data.pinned_version(project) == ahead
    assert dvc_data.pinned(project) == dvc_data.hash_of(project / "data", project) == ahead.md5


def test_asking_for_a_hash_changes_nothing(project):
    before = files_below(project)
    dvc_data.hash_of(project / "data", project)
    assert files_below(project).keys() - before.keys() <= {".dvc/tmp/btime"}
    assert not (project / ".dvc" / "cache").exists()


def test_one_changed_byte_changes_the_hash(pinned):
    (pinned / "data" / "language" / "text.txt").write_text("content of language/text.txT")
    assert dvc_data.hash_of(pinned / "data", pinned) != dvc_data.pinned(pinned)


def test_data_that_are_not_there_have_no_hash(project):
    shutil.rmtree(project / "data")
    assert dvc_data.hash_or_none(project / "data") == "none"


def test_a_dvcignore_inside_the_data_is_refused_with_the_reason(project):
    (project / "data" / ".dvcignore").write_text("*.tmp")
    with pytest.raises(PedigreeError, match=r"\.dvcignore file should not be in"):
        dvc_data.hash_of(project / "data", project)


def test_without_data_dvc_nothing_is_pinned(project):
    assert dvc_data.pinned(project) is None


def test_a_data_dvc_with_merge_conflicts_is_refused_with_the_remedy(project):
    (project / "data.dvc").write_text("<<<<<<< HEAD\nouts:\n- md5: a\n=======\n")
    with pytest.raises(PedigreeError, match=r"^data\.dvc is not as DVC writes it: .*git checkout data\.dvc"):
        dvc_data.pinned(project)


def test_a_folder_that_is_no_dvc_project_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "data").mkdir()
    for act in (lambda: dvc_data.hash_of(tmp_path / "data", tmp_path), lambda: dvc_data.add(tmp_path)):
        with pytest.raises(PedigreeError, match=r"no DVC project: .*dvc init"):
            act()


def test_pinning_again_what_is_pinned_leaves_data_dvc_as_it_was(pinned):
    before = files_below(pinned)
    dvc_data.add(pinned)
    after = files_below(pinned)
    assert [after[file] for file in ("data.dvc", ".gitignore")] == [
        before[file] for file in ("data.dvc", ".gitignore")
    ]


def test_the_cache_brings_the_pinned_data_back(pinned):
    before = files_below(pinned / "data")
    shutil.rmtree(pinned / "data")
    assert dvc_data.holds(pinned)
    dvc_data.checkout(pinned)
    assert files_below(pinned / "data") == before


def test_a_cache_without_one_of_the_files_does_not_hold_the_data(pinned):
    objects = [
        path for path in (pinned / ".dvc/cache/files").rglob("*") if path.is_file() and path.suffix != ".dir"
    ]
    objects[0].unlink()
    assert not dvc_data.holds(pinned)
    shutil.rmtree(pinned / ".dvc" / "cache")
    assert not dvc_data.holds(pinned)


def test_a_remote_brings_the_pinned_data(pinned, tmp_path):
    assert not dvc_data.has_remote(pinned)
    dvc(pinned, "remote", "add", "-d", "shelf", str(tmp_path / "shelf"))
    assert dvc_data.has_remote(pinned)
    dvc(pinned, "push")
    before = files_below(pinned / "data")
    for folder in ("data", ".dvc/cache"):
        shutil.rmtree(pinned / folder)
    dvc_data.pull(pinned)
    assert files_below(pinned / "data") == before


def test_an_earlier_version_of_one_task_comes_from_the_remote_and_data_stays_as_it_is(pinned, tmp_path):
    dvc(pinned, "remote", "add", "-d", "shelf", str(tmp_path / "shelf"))
    dvc(pinned, "push")
    version, before = dvc_data.pinned(pinned), files_below(pinned / "data" / "vision")
    (pinned / "data" / "vision" / "train" / "1.txt").write_text("changed since")
    dvc_data.add(pinned)
    now = files_below(pinned / "data")
    shutil.rmtree(pinned / ".dvc" / "cache")
    assert not dvc_data.holds(pinned, version)
    assert dvc_data.remote_holds(pinned, version)
    dvc_data.fetch(pinned, version)
    dvc_data.write_version(pinned, version, "vision", tmp_path / "vision")
    assert files_below(tmp_path / "vision") == before
    assert files_below(pinned / "data") == now


def test_a_remote_that_lacks_one_file_does_not_hold_the_version(pinned, tmp_path):
    dvc(pinned, "remote", "add", "-d", "shelf", str(tmp_path / "shelf"))
    dvc(pinned, "push")
    version = dvc_data.pinned(pinned)
    kept = [path for path in (tmp_path / "shelf").rglob("*") if path.is_file() and path.suffix != ".dir"]
    kept[0].unlink()
    shutil.rmtree(pinned / ".dvc" / "cache")
    assert not dvc_data.remote_holds(pinned, version)
    with pytest.raises(PedigreeError, match=r"^DVC's remote lacks .* of data"):
        dvc_data.fetch(pinned, version)


def test_of_a_remote_out_of_reach_nobody_knows_what_it_holds(pinned):
    dvc(pinned, "remote", "add", "-d", "shelf", "http://127.0.0.1:9/shelf")
    shutil.rmtree(pinned / ".dvc" / "cache")
    for ask in (dvc_data.remote_holds, dvc_data.fetch):
        with pytest.raises(PedigreeError, match=r"^DVC's remote is out of reach \(.*\): look at") as caught:
            ask(pinned, dvc_data.pinned(pinned))
        assert "\n" not in str(caught.value)


def test_without_git_as_in_a_downloaded_archive_data_is_pinned_and_prepared(project):
    shutil.rmtree(project / ".git")
    dvc_data.add(project)
    assert dvc_data.holds(project)
    assert dvc_data.hash_or_none(project / "data") == dvc_data.pinned(project)
    dvc_data.repro(project, "prepare@vision")
    assert (project / "build" / "vision" / "prepared" / "facts").is_file()
    assert not (project / ".dvc" / "config.local").exists()


def test_a_version_whose_list_names_a_file_outside_its_folder_is_not_written(pinned, tmp_path):
    entries = [{"md5": "0" * 32, "relpath": "vision/../../escaped.txt"}]
    listed = json.dumps(entries).encode()
    md5 = hashlib.md5(listed).hexdigest()
    place = pinned / ".dvc" / "cache" / "files" / "md5" / md5[:2] / f"{md5[2:]}.dir"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(listed)
    with pytest.raises(PedigreeError, match=r"names a file outside its folder, vision/\.\./\.\./escaped\.txt"):
        dvc_data.write_version(pinned, f"{md5}.dir", "vision", tmp_path / "vision")
    assert not list(tmp_path.rglob("escaped.txt"))


def test_a_list_of_files_that_is_none_is_no_version_that_is_held(pinned):
    place = pinned / ".dvc" / "cache" / "files" / "md5" / "ab" / "cdef.dir"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text('[{"md5": "f00"}]')
    assert not dvc_data.holds(pinned, "abcdef.dir")


@pytest.mark.parametrize("url", ["/dev/null/nowhere", "http://127.0.0.1:9/shelf"])
def test_a_remote_out_of_reach_is_one_sentence_with_the_remedy(pinned, url):
    dvc(pinned, "remote", "add", "-d", "shelf", url)
    for folder in ("data", ".dvc/cache"):
        shutil.rmtree(pinned / folder)
    with pytest.raises(PedigreeError, match=r"^dvc pull data\.dvc failed.*that can be reached") as caught:
        dvc_data.pull(pinned)
    assert "\n" not in str(caught.value)
    assert not (pinned / "data").exists()


def test_a_stage_runs_with_our_python_and_its_lines_are_logged(pinned, caplog, monkeypatch):
    monkeypatch.setenv("PATH", os.defpath)  # as in a shell where the venv is not activated
    caplog.set_level(logging.INFO, "pedigree.dvc")
    dvc_data.repro(pinned, "prepare@vision")
    python, analytics = (pinned / "build/vision/prepared/facts").read_text().splitlines()
    assert (Path(python), analytics) == (Path(sys.executable), "1")
    assert "preparing vision" in caplog.messages
    dvc_data.repro(pinned, "prepare@vision")
    assert caplog.messages.count("preparing vision") == 1  # the second time there is nothing to do


def test_a_failing_stage_is_told_in_its_own_sentence(pinned, monkeypatch):
    monkeypatch.setenv("MODE", "refuse")
    with pytest.raises(PedigreeError) as caught:
        dvc_data.repro(pinned, "prepare@vision")
    assert str(caught.value) == "3 of 4 files were refused:\n  mend them"


@pytest.mark.parametrize(
    ("stage", "reason"),
    [("prepare@vision", "python stage.py vision, exited with 1"), ("prepare@visio", "'prepare@visio' not found")],
)
def test_a_failure_without_a_sentence_is_told_in_dvcs(pinned, monkeypatch, stage, reason):
    monkeypatch.setenv("MODE", "crash")
    with pytest.raises(PedigreeError, match=f"^dvc repro {stage} failed: .*{reason}"):
        dvc_data.repro(pinned, stage)


def waits_until(ends: Callable[[], object], pinned: Path, monkeypatch, caplog) -> str:
    """Add data while another DVC is at work, which ends when ours has said that it waits; return what it said."""
    monkeypatch.setattr(dvc_data.time, "sleep", lambda seconds: ends())
    with caplog.at_level(logging.INFO, "pedigree"):
        dvc_data.add(pinned)
    return caplog.text


def test_of_two_dvc_the_second_waits_though_the_first_is_not_of_this_environment(pinned, monkeypatch, caplog):
    (pinned / ".dvc" / "tmp").mkdir(exist_ok=True)
    lock = zc.lockfile.LockFile(str(pinned / ".dvc" / "tmp" / "lock"))
    said = waits_until(lock.close, pinned, monkeypatch, caplog)
    assert "waiting for another DVC command in this workspace" in said


def test_whoever_waits_for_data_that_another_dvc_reads_says_for_which_process(pinned, monkeypatch, caplog):
    (pinned / ".dvc" / "tmp").mkdir(exist_ok=True)
    reader = {"pid": os.getpid(), "cmd": "dvc push"}
    rwlock = pinned / ".dvc" / "tmp" / "rwlock"
    rwlock.write_text(json.dumps({"read": {str(pinned / "data"): [reader]}}))
    said = waits_until(lambda: rwlock.write_text("{}"), pinned, monkeypatch, caplog)
    assert f"waiting for another DVC command in this workspace (PID {os.getpid()}): dvc push" in said


def test_a_dvc_that_outlives_its_killed_parent_is_ended_with_its_stage_before_the_next_one(pinned, monkeypatch):
    monkeypatch.setenv("MODE", "quick")
    process, _ = start_slow_repro(pinned, seconds=600)
    left = processes.tree(process.pid)[1:]
    process.kill()
    process.wait()
    assert any(not each.gone for each in left)
    dvc_data.repro(pinned, "prepare@vision")
    assert all(each.gone for each in left)


def start_slow_repro(root, seconds):
    """Return a process that reproduces prepare@vision, and all it started, once the stage's program runs."""
    # A shell that starts the tests in the background has them ignore SIGINT, and their children with them.
    code = (
        "import signal, sys; from pathlib import Path; from components.adapters import dvc_data\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code + "dvc_data.repro(Path(sys.argv[1]), 'prepare@vision')", str(root)],
        cwd=Path(components.__file__).parent.parent,
        env=os.environ | {"MODE": "slow", "SECONDS": str(seconds)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    started = root / "started-vision"
    deadline = time.monotonic() + 30
    while not (started.exists() and started.read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    return process, psutil.Process(process.pid).children(recursive=True)


def test_of_two_repros_at_once_the_second_waits_and_both_succeed(pinned, caplog):
    caplog.set_level(logging.INFO, "pedigree")
    first, _ = start_slow_repro(pinned, seconds=2)
    dvc_data.repro(pinned, "prepare@language")
    assert first.wait(30) == 0
    waits = [message for message in caplog.messages if message.startswith("waiting")]
    assert waits == [f"waiting for dvc repro prepare@vision (pid {first.pid} on {platform.node()})"]
    assert (pinned / "build/vision/prepared/facts").exists()
    assert (pinned / "build/language/prepared/facts").exists()


@pytest.mark.parametrize(
    "end", [lambda pid: os.kill(pid, signal.SIGINT), lambda pid: os.killpg(pid, signal.SIGTERM)]
)
def test_an_interrupted_repro_ends_the_stages_program_too_and_can_be_repeated(pinned, end):
    process, started = start_slow_repro(pinned, seconds=60)
    assert int((pinned / "started-vision").read_text()) in [child.pid for child in started]
    end(process.pid)
    assert process.wait(20) != 0
    _, alive = psutil.wait_procs(started, timeout=5)
    assert not alive
    dvc_data.repro(pinned, "prepare@vision")
    assert (pinned / "build/vision/prepared/facts").exists()


@pytest.mark.parametrize("file", [".dvc/tmp/rwlock", "dvc.lock"])
@pytest.mark.parametrize("content", ["", '{"write": {', "\x00\x00"])
def test_what_a_killed_dvc_left_half_written_is_put_away(tmp_path, monkeypatch, file, content):
    monkeypatch.setattr(dvc_data, "MOMENT", 0)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(content)
    dvc_data.mend(tmp_path)
    assert not (tmp_path / file).exists()
    assert (tmp_path / f"{file}.damaged").read_text() == content


def test_a_dvc_lock_that_is_whole_stays(tmp_path):
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    dvc_data.mend(tmp_path)
    assert (tmp_path / "dvc.lock").exists()
