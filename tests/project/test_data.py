"""Data sets come as they are pinned, one model's without another's, and nothing is lost."""

import hashlib
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
from ruamel.yaml import YAML

from components import models, tasks
from components.adapters import dvc_cache, dvc_data
from components.datasets import raw_files
from components.errors import PedigreeError
from components.project import data as project_data
from components.project import listing
from tests import dvc_program
from tests.conftest import ROOT
from tests.dvc_program import dvc


def write(texts):
    """Return a function that writes these files, as the values of `embedded` and `public_data` do."""

    def into(folder, cache=None):
        for name, text in texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        if cache is not None:
            (cache / "archive.zip").write_text("downloaded")

    return into


def broken(folder, cache):
    (folder / "half.png").write_text("half")
    raise PedigreeError("the archive is damaged: remove it and fetch again")


PIN = f"{'ab' * 16}.dir"
DIGITS = {"train/1.png": "one", "train/2.png": "two"}
VISION = SimpleNamespace(
    name="image_classification",
    embedded={"digits": write(DIGITS)},
    public_data={"cifar10": write({"train/cat.png": "cat"}), "broken": broken},
    survey=None,
)
CHANGED = SimpleNamespace(**{**vars(VISION), "embedded": {"digits": write({"train/1.png": "One"})}})
SPEECH = SimpleNamespace(
    name="spoken_words",
    embedded={"words": write({"yes/1.wav": "yes"})},
    public_data={},
    survey=None,
)
PARAMS = """\
models:
  digits: {task: image_classification, data: digits}
  digits-deep: {task: image_classification, data: digits}
  words: {task: spoken_words, data: words}
  xrays: {task: image_classification, data: xrays}
"""
SET, XRAYS = project_data.DataSet("digits", VISION, ("digits",)), project_data.DataSet("xrays", VISION, ("xrays",))
OTHER = project_data.DataSet("digits", CHANGED, ("digits",))


@pytest.fixture(scope="module", autouse=True)
def _without_settings(tmp_path_factory):
    with dvc_program.without_settings(tmp_path_factory) as patch:
        patch.setattr(tasks, "load", {"image_classification": VISION, "spoken_words": SPEECH}.__getitem__)
        yield


@pytest.fixture(scope="module")
def new_template(tmp_path_factory):
    root = tmp_path_factory.mktemp("new") / "project"
    (root / "data").mkdir(parents=True)
    (root / ".gitignore").write_text("/build/\n/data/\n")
    (root / "params.yaml").write_text(PARAMS)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    dvc(root, "init")
    dvc(root, "config", "core.autostage", "false")
    return root


@pytest.fixture(scope="module")
def template(new_template, tmp_path_factory):
    root = shutil.copytree(new_template, tmp_path_factory.mktemp("pinned") / "project")
    for task in (VISION, SPEECH):
        ((name, write_files),) = task.embedded.items()
        write_files(root / "data" / name)
    dvc_data.add(root, "digits", "words")
    return root


@pytest.fixture
def new(new_template, tmp_path):
    """A project with neither data nor pins."""
    return shutil.copytree(new_template, tmp_path / "project")


@pytest.fixture
def project(template, tmp_path):
    """A project whose data are the embedded sets, pinned and in DVC's cache."""
    return shutil.copytree(template, tmp_path / "project")


def remove(root, *folders):
    for folder in folders:
        shutil.rmtree(root / folder)


def files_below(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def visible(root):
    """Return all that a user calls theirs: everything but DVC's and our own notes, which no version depends on."""
    return {
        name: content
        for name, content in files_below(root).items()
        if not name.startswith((".dvc/tmp/", ".git/", "build/.dvc-repro"))
    }


def test_data_that_are_what_is_pinned_are_left_alone(project):
    before = visible(project)
    assert project_data.bring(project, SET, accept=False).endswith("nothing to do")
    assert visible(project) == before


def test_missing_data_come_back_from_the_cache(project):
    before = visible(project)
    remove(project, "data/digits")
    said = project_data.bring(project, OTHER, accept=False)
    assert said.startswith("restored data/digits from DVC's cache")
    assert visible(project) == before


def test_missing_data_are_pulled_when_there_is_a_remote(project, tmp_path):
    dvc(project, "remote", "add", "-d", "shelf", str(tmp_path / "shelf"))
    dvc(project, "push")
    before = files_below(project / "data")
    remove(project, "data/digits", ".dvc/cache")
    assert "from DVC's remote" in project_data.bring(project, OTHER, accept=False)
    assert files_below(project / "data") == before
    assert not dvc_cache.holds(project, dvc_data.pinned(project, "words")), "what nobody asked for was not fetched"


LINKED = {"link.png": "/etc/passwd", "env.png": "/proc/self/environ"}
REJECTED = (
    r"data/digits may hold only its own files, not env\.png \(a link to /proc/\d+/environ\), "
    r"link\.png \(a link to /etc/passwd\), pipe\.png \(a named pipe\): remove them"
)


@pytest.mark.parametrize("accept", [True, pytest.param(False, marks=pytest.mark.long)])
def test_links_to_files_elsewhere_and_pipes_are_named_and_nothing_of_them_is_hashed_or_cached(project, accept):
    for name, target in LINKED.items():
        (project / "data" / "digits" / name).symlink_to(target)
    os.mkfifo(project / "data" / "digits" / "pipe.png")
    pins, cached = (project / "data.dvc").read_text(), files_below(project / ".dvc" / "cache")
    with pytest.raises(PedigreeError, match=REJECTED):
        project_data.bring(project, SET, accept)
    with pytest.raises(PedigreeError, match=REJECTED):
        project_data.fetch(project, SET, "cifar10", project / "build" / "downloads")
    assert (project / "data.dvc").read_text() == pins
    assert files_below(project / ".dvc" / "cache") == cached


@pytest.mark.long
def test_folders_are_pinned_and_come_back_at_all_levels_that_are_allowed(project, deepened):
    deepened(project / "data" / "digits", raw_files.DEEPEST)
    assert "pins it anew (3 files" in project_data.bring(project, SET, accept=True)
    version = dvc_data.pinned(project, "digits")
    shutil.rmtree(project / "data" / "digits")
    project_data.bring(project, SET, accept=False)
    assert dvc_data.hash_of(project / "data" / "digits", project) == version


@pytest.mark.long
@pytest.mark.parametrize("accept", [True, False])
def test_folders_deeper_than_dvc_can_pin_are_a_sentence(project, deepened, accept):
    shutil.rmtree(project / "data" / "digits")
    (project / "data" / "digits").mkdir()
    deepened(project / "data" / "digits", 1500)
    with pytest.raises(PedigreeError, match=r"data/digits has over 200 levels of folders, more than DVC can pin"):
        project_data.bring(project, SET, accept)


def pushed(root, tmp_path):
    """Push the data to a new remote, and remove them here; return the remote's file of an MD5 as a function."""
    dvc(root, "remote", "add", "-d", "shelf", str(tmp_path / "shelf"))
    dvc(root, "push")
    remove(root, "data/digits", ".dvc/cache")
    return partial(object_below, tmp_path / "shelf")


def object_below(folder, md5):
    return folder / "files" / "md5" / md5[:2] / md5[2:]


def replace_content(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        file.chmod(0o644)
    file.write_bytes(content)
    file.chmod(0o444)  # as DVC leaves its files: it trusts what is read-only


def pin(root, md5):
    text = (root / "data.dvc").read_text()
    (root / "data.dvc").write_text(text.replace(dvc_data.pinned(root, "digits"), md5))


@pytest.mark.parametrize("where", ["cache", "remote"])
def test_a_listing_that_leads_out_of_the_data_set_is_refused_and_nothing_is_written(project, tmp_path, where):
    content = b"not one of the data set's files"
    md5 = hashlib.md5(content).hexdigest()
    listing = json.dumps([{"md5": md5, "relpath": "../../../outside"}]).encode()
    version = f"{hashlib.md5(listing).hexdigest()}.dir"
    shelf = pushed(project, tmp_path)
    at = shelf if where == "remote" else partial(object_below, project / ".dvc" / "cache")
    replace_content(at(md5), content)
    replace_content(at(version), listing)
    pin(project, version)
    with pytest.raises(
        PedigreeError, match=rf"^the listing of data {version} names '\.\./\.\./\.\./outside', which is"
    ):
        project_data.bring(project, SET, accept=False)
    assert not list(tmp_path.rglob("outside"))
    assert not (project / "data" / "digits").exists()
    assert where == "cache" or not files_below(project / ".dvc" / "cache")


@pytest.mark.parametrize("what", ["file", pytest.param("listing", marks=pytest.mark.long)])
def test_what_was_altered_in_the_remote_stays_neither_in_the_cache_nor_in_data(project, tmp_path, what):
    listing, one = dvc_data.pinned(project, "digits"), hashlib.md5(b"one").hexdigest()
    shelf = pushed(project, tmp_path)
    if what == "file":
        replace_content(shelf(one), b"eno")
    else:
        replace_content(shelf(listing), shelf(listing).read_bytes().replace(b"train/1", b"train/0"))
    altered = {"file": r"train/1\.png", "listing": "its listing"}[what]
    with pytest.raises(
        PedigreeError, match=rf"remote has other content .* files of data {listing} \({altered}\): do not use it"
    ):
        project_data.bring(project, SET, accept=False)
    cache = partial(object_below, project / ".dvc" / "cache")
    assert not cache(one if what == "file" else listing).exists()
    assert not (project / "data" / "digits").exists()


def test_a_file_that_was_altered_in_the_cache_is_not_written_to_data(project):
    remove(project, "data/digits")
    replace_content(object_below(project / ".dvc" / "cache", hashlib.md5(b"one").hexdigest()), b"eno")
    with pytest.raises(PedigreeError, match=r"are damaged in DVC's cache \(train/1\.png\): copy them from another"):
        project_data.bring(project, SET, accept=False)
    assert not (project / "data" / "digits").exists()


@pytest.mark.parametrize("empty", [False, pytest.param(True, marks=pytest.mark.long)])
def test_without_cache_and_remote_the_embedded_data_are_written_and_the_pin_stays_as_it_was(project, empty):
    before = files_below(project / "data")
    remove(project, "data/digits", ".dvc/cache")
    if empty:
        (project / "data" / "digits").mkdir()
    assert "data.dvc pins it unchanged" in project_data.bring(project, SET, accept=False)
    assert files_below(project / "data") == before
    assert dvc_cache.holds(project, dvc_data.pinned(project, "digits")), "a later checkout finds them there"


@pytest.mark.parametrize("lost", ["everything", pytest.param("a file", marks=pytest.mark.long)])
def test_embedded_data_that_the_remote_lacks_are_written_and_the_pin_stays_as_it_was(project, tmp_path, lost):
    before = files_below(project / "data")
    shelf = pushed(project, tmp_path)
    if lost == "everything":
        remove(tmp_path, "shelf")
    else:
        shelf(hashlib.md5(b"one").hexdigest()).unlink()
    assert "data.dvc pins it unchanged" in project_data.bring(project, SET, accept=False)
    assert files_below(project / "data") == before


def test_embedded_data_with_another_hash_are_rejected_and_removed(project):
    remove(project, "data/digits", ".dvc/cache")
    before = visible(project)
    with pytest.raises(PedigreeError, match=r"requirements\.lock, or remove the entry of data/digits") as caught:
        project_data.bring(project, OTHER, accept=False)
    assert f"data.dvc pins {dvc_data.pinned(project, 'digits')}" in str(caught.value)
    assert visible(project) == before
    assert not list((project / "data").glob(".digits*"))


@pytest.mark.parametrize(
    ("empty", "said"),
    [
        (False, "^there is no data/digits to pin: .*, or bring the pinned version back with `pedigree data dig"),
        (True, "^data/digits has no files to pin: put the files there first, or"),
    ],
)
def test_where_there_are_no_files_to_accept_it_is_said_and_nothing_is_written(project, empty, said):
    remove(project, "data/digits")
    if empty:
        (project / "data" / "digits").mkdir()
    before = visible(project)
    with pytest.raises(PedigreeError, match=said):
        project_data.bring(project, SET, accept=True)
    assert visible(project) == before


def test_without_names_and_without_any_data_there_is_nothing_to_accept(new):
    before = visible(new)
    with pytest.raises(PedigreeError, match=r"^data/ has no files of any model's data set to pin: put"):
        list(project_data.bring_all(new, [], accept=True))
    assert visible(new) == before


def test_embedded_data_that_nothing_pins_are_written_and_pinned(new):
    assert "pins it anew" in project_data.bring(new, SET, accept=False)
    assert (new / "data/digits/train/1.png").read_text() == "one"
    assert dvc_data.pinned(new, "digits") == dvc_data.hash_of(new / "data/digits", new)


def test_the_list_of_models_hashes_no_file_that_dvc_has_a_hash_of_and_a_check_of_the_data_hashes_all(
    project, monkeypatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert listing.rows(project)[0].data == "digits: 2 files, pinned"
    file = project / "data" / "digits" / "train" / "1.png"
    time = file.stat().st_mtime_ns
    with file.open("r+") as opened:
        opened.write("ONE")
    os.utime(file, ns=(time, time))
    assert listing.rows(project)[0].data == "digits: 2 files, pinned"
    with pytest.raises(PedigreeError, match="data/digits has 2 files with the hash"):
        project_data.bring(project, SET, accept=False)
    (project / "data" / "digits" / "train" / "2.png").write_text("TWO")
    assert listing.rows(project)[0].data == "digits: 2 files, changed since it was pinned"


def test_changed_data_are_rejected_with_both_hashes_and_nothing_is_touched(project):
    (project / "data" / "digits" / "mine.png").write_text("mine")
    before = visible(project)
    here, pinned = dvc_data.hash_of(project / "data/digits", project), dvc_data.pinned(project, "digits")
    with pytest.raises(PedigreeError) as caught:
        project_data.bring(project, SET, accept=False)
    said = str(caught.value)
    assert f"data/digits has 3 files with the hash {here} but data.dvc pins 2 files with the hash" in said
    assert str(pinned) in said
    assert "`pedigree data --accept digits`" in said
    assert "`dvc checkout data/digits`" in said
    assert visible(project) == before


def test_changed_data_are_not_sent_to_a_cache_that_lacks_the_pinned_version(project):
    (project / "data" / "digits" / "mine.png").write_text("mine")
    remove(project, ".dvc/cache")
    with pytest.raises(PedigreeError, match="moving data/digits away and running `pedigree data digits`"):
        project_data.bring(project, SET, accept=False)


def entries(root):
    return {out["path"]: out for out in YAML(typ="safe").load(root / "data.dvc")["outs"]}


def test_accepted_changes_of_one_data_set_become_its_pinned_version_and_no_others(project):
    before = entries(project)
    for name in ("digits", "words"):
        (project / "data" / name / "mine").write_text("mine")
    (said,) = project_data.bring_all(project, ["digits-deep"], accept=True)
    assert said.endswith("commit data.dvc to git")
    assert dvc_data.pinned(project, "digits") == dvc_data.hash_of(project / "data/digits", project)
    assert entries(project) == before | {"data/digits": entries(project)["data/digits"]}
    assert entries(project)["data/digits"] != before["data/digits"]


def test_the_remedy_for_changed_data_names_a_model_that_reads_them_and_pins_those_alone(project):
    """Where no model has the data set's own name."""
    params = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(
        params.replace("  digits: {task: image_classification, data: digits}\n", "")
    )
    for name in ("digits", "words"):
        (project / "data" / name / "mine").write_text("mine")
    with pytest.raises(PedigreeError, match=r"`pedigree data --accept digits-deep`"):
        list(project_data.bring_all(project, ["digits-deep"], accept=False))
    list(project_data.bring_all(project, ["digits-deep"], accept=True))
    assert dvc_data.pinned(project, "digits") == dvc_data.hash_of(project / "data/digits", project)
    assert dvc_data.pinned(project, "words") != dvc_data.hash_of(project / "data/words", project)


def test_without_names_the_embedded_data_sets_are_brought_each_once(project):
    remove(project, "data/digits")
    brought, there = project_data.bring_all(project, [], accept=False)
    assert brought.startswith("restored data/digits from DVC's cache")
    assert there.startswith("data/words matches data.dvc")
    assert not (project / "data" / "xrays").exists()


def test_without_names_all_that_is_there_is_pinned_and_nothing_is_written(project):
    remove(project, "data/words")
    write({"a.png": "a"})(project / "data" / "xrays")
    said = list(project_data.bring_all(project, [], accept=True))
    assert [each.partition(" ")[0] for each in said] == ["data/digits", "data/xrays"]
    assert dvc_data.pinned(project, "xrays") == dvc_data.hash_of(project / "data/xrays", project)
    assert not (project / "data" / "words").exists()


def test_all_means_the_data_of_every_model(project):
    said = project_data.bring_all(project, [], accept=False, everything=True)
    assert [next(said).split()[0] for _ in range(2)] == ["data/digits", "data/words"]
    with pytest.raises(PedigreeError, match=r"^data/xrays is missing"):
        next(said)


def test_one_data_set_that_cannot_be_had_keeps_no_other_from_coming(project):
    remove(project, "data/digits", "data/words")
    pins, md5 = (project / "data.dvc").read_text(), dvc_data.pinned(project, "digits")
    (project / "data.dvc").write_text(pins.replace(md5, f"{'0' * 32}.dir"))
    said = project_data.bring_all(project, [], accept=False)
    assert next(said).startswith("restored data/words from DVC's cache")
    with pytest.raises(PedigreeError, match=r"^the embedded data digits has the hash"):
        next(said)
    assert (project / "data" / "words" / "yes" / "1.wav").exists()


@pytest.mark.long
def test_the_one_pin_of_earlier_versions_is_rejected_until_each_data_set_has_its_own(project):
    before = entries(project)
    (project / "data.dvc").write_text(f"outs:\n- md5: {PIN}\n  nfiles: 1\n  path: data\n")
    with pytest.raises(PedigreeError, match=r"^data\.dvc pins all of data/ as one, .* `pedigree data --accept`"):
        list(project_data.bring_all(project, ["digits"], accept=False))
    with pytest.raises(PedigreeError, match=r"^data\.dvc pins all of data/ as one"):
        project_data.fetch(project, SET, "cifar10", project / "build" / "downloads")
    list(project_data.bring_all(project, [], accept=True))
    assert entries(project) == before
    assert next(project_data.bring_all(project, ["digits"], accept=False)).endswith("nothing to do")


def test_with_neither_data_nor_pin_it_is_said_what_to_do(new):
    said = r"^data/xrays is missing, and data\.dvc does not pin it: put .* with `pedigree data --accept xrays`"
    with pytest.raises(PedigreeError, match=said):
        project_data.bring(new, XRAYS, accept=False)


def test_data_of_ones_own_that_are_gone_from_the_cache_are_not_made_up(project):
    write({"a.png": "a"})(project / "data" / "xrays")
    project_data.bring(project, XRAYS, accept=True)
    remove(project, "data/xrays", ".dvc/cache")
    with pytest.raises(
        PedigreeError, match=r"^data/xrays is missing, and DVC's cache does not hold what data\.dvc pins"
    ):
        project_data.bring(project, XRAYS, accept=False)
    dvc(project, "remote", "add", "-d", "shelf", str(project.parent / "shelf"))
    with pytest.raises(PedigreeError, match=r"^DVC's remote lacks 1 of the files of data .* run `dvc push` in a"):
        project_data.bring(project, XRAYS, accept=False)
    with pytest.raises(PedigreeError, match=r"^there is no data/xrays to pin: put the files there first"):
        project_data.bring(project, XRAYS, accept=True)


def test_data_that_were_never_pinned_get_instructions(new):
    write(DIGITS)(new / "data" / "digits")
    with pytest.raises(
        PedigreeError, match=r"and data\.dvc does not pin it: pin it with `pedigree data --accept digits`"
    ):
        project_data.bring(new, SET, accept=False)


def test_a_link_in_the_place_of_a_data_set_is_rejected_and_kept(new, tmp_path):
    (tmp_path / "big disk").mkdir()
    (new / "data" / "digits").symlink_to(tmp_path / "big disk")
    with pytest.raises(PedigreeError, match="data/digits is a symbolic link"):
        project_data.bring(new, SET, accept=True)
    assert (new / "data" / "digits").is_symlink()


def test_a_public_data_set_replaces_a_models_data_and_is_pinned_and_what_it_replaced_can_be_had_again(project):
    before, pin = dvc_data.pinned(project, "digits"), (project / "data.dvc").read_bytes()
    said = project_data.fetch(project, SET, "cifar10", project / "build" / "downloads")
    assert said.startswith("data/digits holds cifar10, and data.dvc pins it anew")
    assert files_below(project / "data" / "digits") == {"train/cat.png": b"cat"}
    assert (project / "build" / "downloads" / "archive.zip").exists()
    assert dvc_data.pinned(project, "digits") == dvc_data.hash_of(project / "data/digits", project) != before
    (project / "data.dvc").write_bytes(pin)  # as `git checkout` of the commit before does
    dvc_data.checkout(project, "digits")
    assert files_below(project / "data" / "digits") == {name: text.encode() for name, text in DIGITS.items()}


def test_a_public_data_set_goes_where_a_model_has_no_data_yet(new):
    project_data.fetch(new, XRAYS, "cifar10", new / "build" / "downloads")
    assert (new / "data" / "xrays" / "train" / "cat.png").exists()
    assert dvc_data.pinned(new, "xrays")


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (
            VISION,
            r"^the task image_classification has no .* 'cifar'; did you mean cifar10\?: .* of cifar10, broken$",
        ),
        (
            SPEECH,
            r"^the task spoken_words has no public data set 'cifar': put the files in data/<name>/ yourself$",
        ),
    ],
)
def test_an_unknown_public_data_set_is_rejected_with_the_known_ones(project, task, said):
    with pytest.raises(PedigreeError, match=said):
        project_data.fetch(project, replace(SET, task=task), "cifar", project / "build" / "downloads")


def test_a_fetch_that_fails_leaves_everything_as_it_was(project):
    before = visible(project)
    with pytest.raises(PedigreeError, match="the archive is damaged"):
        project_data.fetch(project, SET, "broken", project / "build" / "downloads")
    assert visible(project) == before
    assert not list((project / "data").glob(".digits*"))


@pytest.mark.parametrize("lost", ["unpinned", "uncached"])
def test_a_fetch_does_not_replace_files_that_dvc_could_not_bring_back(project, lost):
    if lost == "unpinned":
        (project / "data" / "digits" / "mine.png").write_text("mine")
    else:
        remove(project, ".dvc/cache")
    before = visible(project)
    with pytest.raises(PedigreeError, match=r"^data/digits would be lost.*pin it first"):
        project_data.fetch(project, SET, "cifar10", project / "build" / "downloads")
    assert visible(project) == before


def test_files_put_there_during_the_download_are_not_replaced(project):
    def meanwhile(folder, cache):
        write({"cat.png": "cat"})(folder)
        (project / "data" / "digits" / "mine.png").write_text("mine")

    task = SimpleNamespace(**{**vars(VISION), "public_data": {"cifar10": meanwhile}})
    with pytest.raises(PedigreeError, match="would be lost"):
        project_data.fetch(project, replace(SET, task=task), "cifar10", project / "build" / "downloads")
    assert (project / "data" / "digits" / "mine.png").read_text() == "mine"


def test_two_at_once_bring_the_data_once(project):
    remove(project, "data/digits", ".dvc/cache")
    with ThreadPoolExecutor() as pool:
        said = sorted(pool.map(lambda _: project_data.bring(project, SET, accept=False).split(" (")[0], range(2)))
    assert said == [
        "data/digits holds the embedded data, and data.dvc pins it unchanged",
        "data/digits matches data.dvc",
    ]


PINNED = [
    data for data in project_data.of_models(models.listed(models.read(ROOT))) if dvc_data.pinned(ROOT, data.name)
]
"""The embedded data sets whose bytes this project's data.dvc names."""


@pytest.mark.long
@pytest.mark.parametrize("data", [pytest.param(each, id=each.name) for each in PINNED])
def test_an_embedded_data_set_is_written_with_the_bytes_that_are_pinned(tmp_path, data):
    data.task.embedded[data.name](tmp_path)
    assert dvc_data.version_of(tmp_path, ROOT) == dvc_data.pinned_version(ROOT, data.name)
