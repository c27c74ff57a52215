import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from components.adapters import dvc_data
from components.errors import PedigreeError
from components.stages import data as stage


def write(texts):
    """Return a function that writes these files, as `default_data` and the values of `public_data` do."""

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


DIGITS = {"train/1.png": "one", "train/2.png": "two"}
TASKS = {
    "vision": SimpleNamespace(
        default_data=write(DIGITS),
        public_data={"cifar10": write({"train/cat.png": "cat"}), "broken": broken},
    ),
    "language": SimpleNamespace(default_data=write({"train.txt": "words"}), public_data={"shakespeare": write({})}),
}
OTHER_TASKS = TASKS | {"language": SimpleNamespace(default_data=write({"train.txt": "Words"}), public_data={})}


@pytest.fixture(scope="module", autouse=True)
def _nothing_of_the_user(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        yield


def dvc(root, *arguments):
    subprocess.run([sys.executable, "-m", "dvc", *arguments, "-q"], cwd=root, check=True)


@pytest.fixture(scope="module")
def new_template(tmp_path_factory):
    root = tmp_path_factory.mktemp("new") / "project"
    root.mkdir()
    (root / ".gitignore").write_text("/build/\n/data/\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    dvc(root, "init")
    dvc(root, "config", "core.autostage", "false")
    return root


@pytest.fixture(scope="module")
def template(new_template, tmp_path_factory):
    root = shutil.copytree(new_template, tmp_path_factory.mktemp("pinned") / "project")
    stage.bring(root, TASKS, accept=True)
    return root


@pytest.fixture
def new(new_template, tmp_path):
    """A project with neither data/ nor data.dvc."""
    return shutil.copytree(new_template, tmp_path / "project")


@pytest.fixture
def project(template, tmp_path):
    """A project whose data/ is the tasks' embedded data, pinned and in DVC's cache."""
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


def test_data_that_is_what_data_dvc_pins_is_left_alone(project):
    before = visible(project)
    assert stage.bring(project, TASKS, accept=False).endswith("nothing to do")
    assert visible(project) == before


def test_missing_data_comes_back_from_the_cache(project):
    before = visible(project)
    remove(project, "data")
    assert "came from DVC's cache" in stage.bring(project, OTHER_TASKS, accept=False)
    assert visible(project) == before


def test_missing_data_is_pulled_when_there_is_a_remote(project, tmp_path):
    dvc(project, "remote", "add", "-d", "shelf", str(tmp_path / "shelf"))
    dvc(project, "push")
    before = visible(project)
    remove(project, "data", ".dvc/cache")
    assert "came from DVC's remote" in stage.bring(project, OTHER_TASKS, accept=False)
    assert visible(project) == before


@pytest.mark.parametrize("empty", [False, True])
def test_without_cache_and_remote_the_embedded_data_is_rebuilt_and_data_dvc_stays_as_it_was(project, empty):
    before = visible(project)
    remove(project, "data", ".dvc/cache")
    if empty:
        (project / "data" / "vision").mkdir(parents=True)
    assert "data.dvc pins it unchanged" in stage.bring(project, TASKS, accept=False)
    assert visible(project) == before  # the cache, too: a later checkout finds the data there
    assert dvc_data.holds(project)


def test_rebuilt_data_with_another_hash_is_refused_and_removed(project):
    remove(project, "data", ".dvc/cache")
    before = visible(project)
    with pytest.raises(PedigreeError, match=r"requirements\.lock, or .* `pedigree data --accept`") as caught:
        stage.bring(project, OTHER_TASKS, accept=False)
    assert f"data.dvc pins {dvc_data.pinned(project)}" in str(caught.value)
    assert visible(project) == before
    assert not list(project.glob("*data*new*")) + list(project.glob(".data*"))


def test_rebuilt_data_with_another_hash_is_pinned_when_accepted(project):
    before = dvc_data.pinned(project)
    remove(project, "data", ".dvc/cache")
    stage.bring(project, OTHER_TASKS, accept=True)
    assert (project / "data/language/train.txt").read_text() == "Words"
    assert dvc_data.pinned(project) == dvc_data.hash_of(project / "data", project) != before


def test_changed_data_is_refused_with_both_hashes_and_nothing_is_touched(project):
    (project / "data" / "vision" / "mine.png").write_text("mine")
    before = visible(project)
    here, pinned = dvc_data.hash_of(project / "data", project), dvc_data.pinned(project)
    with pytest.raises(PedigreeError) as caught:
        stage.bring(project, TASKS, accept=False)
    assert f"data/ has 4 files with the hash {here} but data.dvc pins 3 files with the hash {pinned}" in str(
        caught.value
    )
    assert "`pedigree data --accept`" in str(caught.value)
    assert "`dvc checkout data.dvc`" in str(caught.value)
    assert visible(project) == before


def test_changed_data_is_not_sent_to_a_cache_that_lacks_the_pinned_version(project):
    (project / "data" / "vision" / "mine.png").write_text("mine")
    remove(project, ".dvc/cache")
    with pytest.raises(PedigreeError, match="moving data/ away and running `pedigree data`"):
        stage.bring(project, TASKS, accept=False)


def test_accepted_changes_become_the_pinned_version(project):
    (project / "data" / "vision" / "mine.png").write_text("mine")
    assert "commit data.dvc to git" in stage.bring(project, TASKS, accept=True)
    assert dvc_data.pinned(project) == dvc_data.hash_of(project / "data", project)
    assert dvc_data.holds(project)


def test_a_project_with_neither_data_nor_data_dvc_is_told_what_to_do(new):
    with pytest.raises(PedigreeError, match="`pedigree data --accept` builds the embedded data"):
        stage.bring(new, TASKS, accept=False)


def test_data_that_was_never_pinned_is_told_how_to_be(new):
    write(DIGITS)(new / "data" / "vision")
    with pytest.raises(PedigreeError, match=r"there is no data\.dvc: pin it with `pedigree data --accept`"):
        stage.bring(new, TASKS, accept=False)


def test_a_link_in_the_place_of_data_is_refused_and_kept(new, tmp_path):
    (tmp_path / "big disk").mkdir()
    (new / "data").symlink_to(tmp_path / "big disk")
    with pytest.raises(PedigreeError, match="data is a symbolic link"):
        stage.bring(new, TASKS, accept=True)
    assert (new / "data").is_symlink()


def test_a_public_data_set_takes_the_place_of_its_tasks_folder_and_is_pinned(project):
    before = dvc_data.pinned(project)
    said = stage.fetch(project, TASKS, "cifar10", project / "build" / "downloads")
    assert said.startswith("data/ holds cifar10 in data/vision, and data.dvc pins it anew")
    assert files_below(project / "data") == {"vision/train/cat.png": b"cat", "language/train.txt": b"words"}
    assert (project / "build" / "downloads" / "archive.zip").exists()
    assert dvc_data.pinned(project) == dvc_data.hash_of(project / "data", project) != before


def test_what_a_public_data_set_replaced_can_be_had_again(project):
    old_pin = (project / "data.dvc").read_bytes()
    stage.fetch(project, TASKS, "cifar10", project / "build" / "downloads")
    (project / "data.dvc").write_bytes(old_pin)  # as `git checkout` of the commit before does
    dvc_data.checkout(project)
    assert files_below(project / "data" / "vision") == {name: text.encode() for name, text in DIGITS.items()}


def test_in_a_fresh_clone_a_public_data_set_joins_the_other_tasks_data(project):
    remove(project, "data", ".dvc/cache")
    stage.fetch(project, TASKS, "cifar10", project / "build" / "downloads")
    assert files_below(project / "data") == {"vision/train/cat.png": b"cat", "language/train.txt": b"words"}


def test_an_unknown_public_data_set_is_refused_with_the_nearest_and_all_known(project):
    with pytest.raises(PedigreeError, match=r"'cifar'; did you mean cifar10\?: .* cifar10, broken, shakespeare$"):
        stage.fetch(project, TASKS, "cifar", project / "build" / "downloads")


def test_a_fetch_that_fails_leaves_everything_as_it_was(project):
    before = visible(project)
    with pytest.raises(PedigreeError, match="the archive is damaged"):
        stage.fetch(project, TASKS, "broken", project / "build" / "downloads")
    assert visible(project) == before
    assert not list(project.glob(".data*"))


@pytest.mark.parametrize("lost", ["unpinned", "uncached"])
def test_a_fetch_does_not_replace_files_that_dvc_could_not_bring_back(project, lost):
    if lost == "unpinned":
        (project / "data" / "vision" / "mine.png").write_text("mine")
    else:
        remove(project, ".dvc/cache")
    before = visible(project)
    with pytest.raises(PedigreeError, match=r"^data/vision would be lost.*pin it first"):
        stage.fetch(project, TASKS, "cifar10", project / "build" / "downloads")
    assert visible(project) == before


def test_files_put_there_during_the_download_are_not_replaced(project):
    def meanwhile(folder, cache):
        write({"cat.png": "cat"})(folder)
        (project / "data" / "vision" / "mine.png").write_text("mine")

    tasks = TASKS | {"vision": SimpleNamespace(default_data=write(DIGITS), public_data={"cifar10": meanwhile})}
    with pytest.raises(PedigreeError, match="would be lost"):
        stage.fetch(project, tasks, "cifar10", project / "build" / "downloads")
    assert (project / "data" / "vision" / "mine.png").read_text() == "mine"


def test_a_task_without_data_gets_a_public_set_whatever_the_others_hold(project):
    remove(project, "data/vision")
    (project / "data" / "language" / "mine.txt").write_text("mine")
    stage.fetch(project, TASKS, "cifar10", project / "build" / "downloads")
    assert (project / "data" / "vision" / "train" / "cat.png").exists()
    assert (project / "data" / "language" / "mine.txt").exists()


def test_two_at_once_bring_the_data_once(project):
    remove(project, "data", ".dvc/cache")
    with ThreadPoolExecutor() as pool:
        said = sorted(pool.map(lambda _: stage.bring(project, TASKS, accept=False).split(" (")[0], range(2)))
    assert said == ["data/ holds the embedded data, and data.dvc pins it unchanged", "data/ is what data.dvc pins"]
