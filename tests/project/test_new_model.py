"""A model more: its section, its data and its pin are there together, or nothing is."""

import os
import shutil
import subprocess
from itertools import product

import pytest

from components import models, params
from components.adapters import dvc_cache, dvc_data
from components.errors import PedigreeError
from components.project import new_model
from tests import dvc_program
from tests.conftest import ROOT
from tests.dvc_program import dvc

PARAMS = """\
# Ours.
defaults:
  train: &train {seed: 0, workers: 1, epochs: 6, batch_size: 64, accumulate: 1, precision: auto, compile: false,
    optimizer: {name: adamw, lr: 3.0e-3, momentum: 0.9, weight_decay: 0.05},
    schedule: {name: one_cycle, warmup: 0.25}, clip_norm: 1.0, label_smoothing: 0.1,
    average: {name: ema, decay: 0.99, start: 0}, init: {from: random, freeze: 0, layer_decay: 1.0},
    validation: {every: 0, samples: 0}, best_metric: accuracy, patience: 0, checkpoint_seconds: 20, retries: 2}
  evaluate: &evaluate {workers: 0, batch_size: 256, seed: 0}

models:
  digits:  # the first one
    task: image_classification
    data: digits
    prepare: {seed: 0, val_share: 0.1, test_share: 0.2, resplit: 0, max_rejected: 0.05, size: auto, channels: auto,
      max_megapixels: 64, format: auto, positive: "", score: accuracy}
    train:
      <<: *train
      # small
      model: {network: resnet18, width: 0.25, stem: auto,
        mirror: false, members: 1}
      class_weights: none
      augment: {crop: 2, flip: false, mix: none, mix_alpha: 0.2}
    evaluate: *evaluate
    register:
      gate: {at_least: {}, at_most: {}, level: 0.9, margins: {}, pinned: true, megabytes: 1, milliseconds: 1}  # lax

# The end.
other: 1
"""
PIN = f"{'ab' * 16}.dir"
PROFILE = """\
task: image_classification
train:
  epochs: 50
  optimizer: {lr: 1.0e-5}
  model: {network: whitened}
"""


@pytest.fixture(scope="module", autouse=True)
def _without_settings(tmp_path_factory):
    with dvc_program.without_settings(tmp_path_factory):
        yield


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    root = tmp_path_factory.mktemp("template") / "project"
    for folder in ("data", "profiles"):
        (root / folder).mkdir(parents=True)
    (root / "params.yaml").write_text(PARAMS)
    (root / "profiles" / "big.yaml").write_text(PROFILE)
    (root / ".gitignore").write_text("/build/\n/data/\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    dvc(root, "init")
    return root


@pytest.fixture
def project(template, tmp_path):
    """A project with one model."""
    return shutil.copytree(template, tmp_path / "project")


@pytest.fixture
def folder(tmp_path):
    """Somebody's raw files."""
    for split, name in product(("train", "test"), ("lung", "skin")):
        (tmp_path / "raw" / split / name).mkdir(parents=True)
        (tmp_path / "raw" / split / name / "1.png").write_bytes(b"one")
    return tmp_path / "raw"


def visible(root):
    files = (path for path in root.rglob("*") if path.is_file())
    left = (".dvc/", ".git/", "build/.dvc-repro", "build/.processes")
    named = {path.relative_to(root).as_posix(): path.read_bytes() for path in files}
    return {name: content for name, content in named.items() if not name.startswith(left)}


def write_section(root, name, like, folder, profile=None):
    """Write what is planned for params.yaml, and not the data, whose pin takes DVC a second."""
    (root / "params.yaml").write_text(new_model.plan(root, name, like, folder, profile).text)


def added_lines(root):
    before, after = PARAMS.splitlines(), (root / "params.yaml").read_text().splitlines()
    return [line for line in after if line not in before], [line for line in before if line not in after]


def test_a_new_model_inherits_all_but_its_data_and_no_other_line_changes(project, folder):
    new_model.add(new_model.plan(project, "xrays", "digits", folder, None), {"prefect.yaml": "name: pedigree\n"})
    assert added_lines(project) == (
        ["  digits: &digits  # the first one", "  xrays:", "    <<: *digits", "    data: xrays"],
        ["  digits:  # the first one"],
    )
    assert (project / "params.yaml").read_text().endswith("    data: xrays\n\n# The end.\nother: 1\n")
    like, new = models.load(project, "digits"), models.load(project, "xrays")
    assert new.params == like.params
    assert (new.task, new.data) == (like.task, "xrays")
    assert (project / "data" / "xrays" / "train" / "lung" / "1.png").read_bytes() == b"one"
    assert dvc_data.pinned(project, "xrays") == dvc_data.hash_of(project / "data" / "xrays", project)
    assert dvc_cache.holds(project, dvc_data.pinned(project, "xrays"))
    assert (project / "prefect.yaml").read_text() == "name: pedigree\n"


def test_what_a_profile_changes_is_written_out_and_the_rest_is_inherited(project, folder):
    write_section(project, "xrays", "digits", folder, "big")
    profile = models.profile(project, "big")
    assert models.load(project, "xrays").params == models.load(project, "digits", profile).params
    lines, _ = added_lines(project)
    assert "      epochs: 50" in lines
    assert "      model: {network: whitened, width: 0.25, stem: auto" in "\n".join(lines)
    assert not [line for line in lines if "register" in line or "evaluate" in line]


def test_single_parameters_are_written_out_over_those_of_the_profile(project, folder):
    settings = ["train.epochs=7", "train.optimizer.name=sgd"]
    text = new_model.plan(project, "xrays", "digits", folder, "big", settings).text
    (project / "params.yaml").write_text(text)
    profile = models.profile(project, "big")
    assert models.load(project, "xrays").params == models.load(project, "digits", profile, settings).params
    with pytest.raises(PedigreeError, match=r"a run cannot change a model's data: add a model instead"):
        new_model.plan(project, "others", "digits", folder, None, ["data=digits"])


def test_a_third_model_is_like_the_second_one(project, folder):
    for name, like in (("a", "digits"), ("b", "a"), ("c", "a")):
        write_section(project, name, like, folder)
    assert models.names(project) == ["digits", "a", "b", "c"]
    assert models.load(project, "c").params == models.load(project, "digits").params
    assert (project / "params.yaml").read_text().count("&a") == 1


@pytest.mark.parametrize("profile", [None, "big"])
def test_a_new_model_is_tested_on_its_own_test_split_where_the_other_ones_data_were_split_anew(
    project, folder, profile
):
    (project / "params.yaml").write_text(PARAMS.replace("resplit: 0", "resplit: 3"))
    (project / "profiles" / "big.yaml").write_text(f"{PROFILE}prepare: {{size: 32}}\n")
    write_section(project, "xrays", "digits", folder, profile)
    like, new = models.load(project, "digits"), models.load(project, "xrays")
    assert (like.params.prepare.resplit, new.params.prepare.resplit) == (3, 0)
    assert new.params.prepare.val_share == like.params.prepare.val_share


@pytest.mark.parametrize(
    ("old", "changed"),
    [
        ("  train: &train {", "  train: &digits {"),  # the anchor that it would get is another's
        ("  digits:  # the first one", "  digits: &one  # the first one"),
        ("\n# The end.\nother: 1\n", ""),
        ("  # lax\n\n# The end.\nother: 1\n", ""),  # no line end at all
    ],
)
def test_the_section_is_right_however_the_file_is_written(project, folder, old, changed):
    text = PARAMS.replace(old, changed)
    (project / "params.yaml").write_text(text.replace("*train", "*digits") if "&digits {" in changed else text)
    write_section(project, "xrays", "digits", folder)
    assert models.load(project, "xrays").params == models.load(project, "digits").params


def test_it_is_added_to_the_projects_own_params_yaml_as_it_is_committed(tmp_path):
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    before = models.read(tmp_path).tree["models"]
    name = next(iter(before))
    text = new_model._with_section(tmp_path, (tmp_path / "params.yaml").read_text(), "one-more", name, None)
    (tmp_path / "params.yaml").write_text(text)
    after = params.read(tmp_path / "params.yaml").tree["models"]
    gate = before[name]["register"]["gate"] | {"at_least": {}, "at_most": {}}
    assert after == before | {"one-more": before[name] | {"data": "one-more", "register": {"gate": gate}}}


BOUNDED = "gate: {at_least: {accuracy: 0.9}, at_most: {brier: 0.2}, level: 0.9,"


@pytest.mark.parametrize(
    ("profile", "at_least"), [("", {}), ("register: {gate: {at_least: {f1: 0.5}}}\n", {"f1": 0.5})]
)
def test_a_new_model_has_no_bounds_for_metrics_but_those_of_its_profile(project, folder, profile, at_least):
    (project / "params.yaml").write_text(PARAMS.replace("gate: {at_least: {}, at_most: {}, level: 0.9,", BOUNDED))
    (project / "profiles" / "big.yaml").write_text(PROFILE + profile)
    write_section(project, "xrays", "digits", folder, "big")
    like, new = (models.load(project, name).params.register_.gate for name in ("digits", "xrays"))
    assert (like.at_least, like.at_most) == ({"accuracy": 0.9}, {"brier": 0.2})
    assert (new.at_least, new.at_most) == (at_least, {})
    assert new.model_copy(update={"at_least": like.at_least, "at_most": like.at_most}) == like


@pytest.mark.parametrize(
    ("name", "like", "profile", "said"),
    [
        ("digits", "digits", None, r"params\.yaml:\d+: the model digits already exists: choose another name"),
        ("x/y", "digits", None, "NAME: 'x/y' cannot name a model: use lower-case letters"),
        ("X", "digits", None, "NAME: 'X' cannot name a model"),
        ("runs", "digits", None, "NAME: runs cannot name a model, as build/runs is reserved"),
        ("xrays", "digist", None, r"there is no model 'digist'; did you mean digits\?"),
        ("xrays", "digits", "bigg", r"there is no profiles/bigg\.yaml; did you mean big\?"),
    ],
)
def test_a_model_that_cannot_be_added_is_one_sentence_and_changes_nothing(
    project, folder, name, like, profile, said
):
    before = visible(project)
    with pytest.raises(PedigreeError, match=f"^{said}"):
        new_model.plan(project, name, like, folder, profile)
    assert visible(project) == before


def test_a_folder_without_files_and_data_that_are_there_or_pinned_are_rejected(project, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for wrong in (tmp_path / "empty", tmp_path / "nowhere", folder / "train" / "lung" / "1.png"):
        with pytest.raises(PedigreeError, match=r"is not a folder with files: name the folder of the data$"):
            new_model.plan(project, "xrays", "digits", wrong, None)
    (project / "data" / "xrays").mkdir()
    with pytest.raises(PedigreeError, match=r"^data/xrays already exists: choose another name, or move it away"):
        new_model.plan(project, "xrays", "digits", folder, None)
    (project / "data" / "xrays").rmdir()
    (project / "data.dvc").write_text(f"outs:\n- md5: {PIN}\n  nfiles: 1\n  path: data/xrays\n")
    with pytest.raises(PedigreeError, match=r"^data\.dvc already pins data/xrays: choose another name$"):
        new_model.plan(project, "xrays", "digits", folder, None)


def test_data_that_the_task_cannot_read_and_sources_that_do_not_exist_are_rejected_before_anything_is_written(
    project, folder
):
    (project / "profiles" / "tuned.yaml").write_text("task: image_classification\ntrain: {init: {from: a.pth}}\n")
    before = visible(project)
    for data, profile, said in (
        (
            folder,
            "tuned",
            r"train\.init\.from names a\.pth, which does not exist: get it first \(docs/tutorial\.md",
        ),
        (folder / "train" / "lung", None, "there are no images: "),
    ):
        with pytest.raises(PedigreeError, match=f"^xrays was not added, as it could not be trained: .*{said}"):
            new_model.plan(project, "xrays", "digits", data, profile)
    assert visible(project) == before
    (project / "a.pth").write_bytes(b"weights")
    assert new_model.plan(project, "xrays", "digits", folder, "tuned").name == "xrays"


def test_a_folder_with_links_out_of_it_is_rejected_before_it_is_copied(project, folder):
    lung = folder / "train" / "lung"
    (lung / "passwd.png").symlink_to("/etc/passwd")
    os.mkfifo(lung / "pipe.png")
    said = r"train/lung/passwd\.png \(a link to /etc/passwd\), train/lung/pipe\.png \(a named pipe\): remove them"
    with pytest.raises(PedigreeError, match=said):
        new_model.plan(project, "xrays", "digits", folder, None)


@pytest.mark.long
def test_a_folder_may_be_named_by_a_link_and_links_inside_it_become_copies(project, folder):
    lung = folder / "train" / "lung"
    (lung / "2.png").symlink_to("1.png")
    (lung / "3.png").symlink_to(lung / "1.png")
    (folder.parent / "a link").symlink_to(folder)
    new_model.add(new_model.plan(project, "xrays", "digits", folder.parent / "a link", None), {})
    copies = list((project / "data" / "xrays" / "train" / "lung").iterdir())
    assert {file.name: file.read_bytes() for file in copies} == dict.fromkeys(("1.png", "2.png", "3.png"), b"one")
    assert not any(file.is_symlink() for file in copies)


def test_when_dvc_rejects_the_data_nothing_is_left_behind_and_other_pins_stay(project, folder):
    (project / "data.dvc").write_text(f"outs:\n- md5: {PIN}\n  nfiles: 1\n  path: data/mine\n")
    (folder / ".dvcignore").write_text("*.tmp")
    before = visible(project)
    assert "path: data/mine" in before["data.dvc"].decode()
    with pytest.raises(PedigreeError, match=r"\.dvcignore"):
        new_model.add(new_model.plan(project, "xrays", "digits", folder, None), {"prefect.yaml": "name: other\n"})
    assert visible(project) == before
    assert not list((project / "data").glob(".*xrays*"))


def test_when_params_yaml_cannot_be_written_nothing_is_left_behind(project, folder, monkeypatch):
    (project / "prefect.yaml").write_text("name: mine\n")
    before, write = visible(project), new_model.files.write_text

    def full(path, text):
        if path.name == "params.yaml":
            raise OSError(28, "No space left on device", str(path))
        write(path, text)

    monkeypatch.setattr(new_model.files, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        new_model.add(new_model.plan(project, "xrays", "digits", folder, None), {"prefect.yaml": "name: other\n"})
    assert visible(project) == before


@pytest.mark.parametrize("when", ["before", "during"])
def test_an_edit_of_params_yaml_since_the_check_is_not_overwritten(project, folder, monkeypatch, when):
    plan, add = new_model.plan(project, "xrays", "digits", folder, None), new_model.dvc_data.add

    def edit(*_):
        params = project / "params.yaml"
        params.write_text(params.read_text() + "# mine\n")

    if when == "before":
        edit()
    else:
        monkeypatch.setattr(new_model.dvc_data, "add", lambda *pinned: (add(*pinned), edit()))
    with pytest.raises(PedigreeError, match=r"^params\.yaml was edited meanwhile: run the same command again$"):
        new_model.add(plan, {})
    assert (project / "params.yaml").read_text().endswith("# mine\n")
    assert not (project / "data" / "xrays").exists()
    assert not (project / "data.dvc").exists(), "as before"
