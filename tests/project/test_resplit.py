"""The next draw is a number in params.yaml, for all models of a data set and for no other."""

import shutil
from collections import Counter

import pytest
from typer.testing import CliRunner

from components import models, params
from components.errors import PedigreeError
from components.project import resplit
from pipelines import cli
from tests.conftest import PARAMS, ROOT

OTHERS = """
  deep:  # shares the data of digits
    <<: *digits
    data: digits
  xrays: {<<: *digits, data: xrays}
  scans:
    <<: *digits
    data: scans
    prepare: {<<: *of-digits, size: 32}
  photos:
    <<: *digits
    data: photos
    prepare: *of-digits

# The end.
"""


@pytest.fixture
def project(tmp_path):
    """Four more models that inherit from digits in different ways."""
    text = PARAMS.read_text().replace("  digits:\n", "  digits: &digits\n", 1)
    text = text.replace("    prepare:\n", "    prepare: &of-digits  # ours\n", 1)
    (tmp_path / params.FILE).write_text(text.rstrip("\n") + OTHERS)
    return tmp_path


def numbers(project):
    values = models.read(project)
    return {
        name: models.from_values(values, project, name).params.prepare.resplit for name in models.names(project)
    }


def changed_lines(project, before):
    after = (project / params.FILE).read_text().splitlines()
    before = before.splitlines()
    return [line for line in after if line not in before], [line for line in before if line not in after]


def test_all_models_of_a_data_set_get_the_next_number_and_those_of_others_keep_theirs(project):
    others = numbers(project)
    for number in (1, 2):
        said = list(resplit.draw_anew(project, "deep"))
        assert numbers(project) == others | {"digits": number, "deep": number}
    assert said[0].startswith(
        "params.yaml has resplit: 2 for digits, deep, which read data/digits: the next test split"
    )
    assert "`pedigree run deep` or `dvc repro register@deep`" in said[1]
    assert "`pedigree promote deep VERSION" in said[2]
    assert len(said) == 3


def test_the_command_writes_the_number_and_prints_what_to_do_next(project, monkeypatch):
    monkeypatch.chdir(project)
    done = CliRunner().invoke(cli.app, ["data", "words", "--resplit"])
    assert done.exit_code == 0
    assert (
        "params.yaml has resplit: 1 for words, which reads data/words: the next test split is drawn" in done.stdout
    )
    assert "`pedigree run words` or `dvc repro register@words`; commit params.yaml" in done.stdout
    assert numbers(project)["words"] == 1


def test_only_the_number_changes_where_a_model_has_its_own(project):
    before = (project / params.FILE).read_text()
    list(resplit.draw_anew(project, "words"))
    assert (project / params.FILE).read_text() == before.replace(
        "      resplit: 0\n      max_rejected: 0.05\n      rate:",
        "      resplit: 1\n      max_rejected: 0.05\n      rate:",
    )


@pytest.mark.parametrize(
    ("name", "added", "removed"),
    [
        (
            "xrays",
            ["  xrays: {prepare: {<<: *of-digits, resplit: 1}, <<: *digits, data: xrays}"],
            ["  xrays: {<<: *digits, data: xrays}"],
        ),
        (
            "scans",
            ["    prepare: {resplit: 1, <<: *of-digits, size: 32}"],
            ["    prepare: {<<: *of-digits, size: 32}"],
        ),
        ("photos", ["    prepare: {<<: *of-digits, resplit: 1}"], ["    prepare: *of-digits"]),
    ],
)
def test_a_model_that_inherits_keeps_inheriting_all_but_the_number(project, name, added, removed):
    before, earlier = (project / params.FILE).read_text(), models.read(project).tree
    list(resplit.draw_anew(project, name))
    assert changed_lines(project, before) == (added, removed)
    after = models.read(project).tree
    expected = earlier["models"][name]
    assert after["models"] == earlier["models"] | {
        name: expected | {"prepare": expected["prepare"] | {"resplit": 1}}
    }


def test_an_anchor_is_added_where_the_inherited_section_has_none(project):
    text = (project / params.FILE).read_text().replace("prepare: &of-digits  # ours", "prepare:  # ours")
    head, _, _ = text.partition("  scans:\n")
    (project / params.FILE).write_text(head)
    list(resplit.draw_anew(project, "xrays"))
    assert changed_lines(project, head) == (
        [
            "    prepare: &digits-prepare  # ours",
            "  xrays: {prepare: {<<: *digits-prepare, resplit: 1}, <<: *digits, data: xrays}",
        ],
        ["    prepare:  # ours", "  xrays: {<<: *digits, data: xrays}"],
    )
    assert numbers(project)["digits"] == 0


@pytest.mark.long  # all models are checked after each change
def test_the_projects_own_params_yaml_is_written_as_it_is_committed(tmp_path):
    shutil.copyfile(ROOT / params.FILE, tmp_path / params.FILE)
    before = numbers(tmp_path)
    data = {each.name: each.data for each in models.listed(models.read(tmp_path))}
    for name in before:
        list(resplit.draw_anew(tmp_path, name))
    sharing = Counter(data.values())
    assert numbers(tmp_path) == {name: number + sharing[data[name]] for name, number in before.items()}


def test_a_params_yaml_that_this_cannot_follow_is_left_alone_with_the_remedy(project):
    text = (project / params.FILE).read_text()
    before = text.replace("resplit: 0", "resplit: &zero 0", 1).replace("resplit: 0", "resplit: *zero", 1)
    (project / params.FILE).write_text(before)
    with pytest.raises(
        PedigreeError, match=r"^params\.yaml: its anchors are too intricate .* to 1 yourself for digits, deep$"
    ):
        list(resplit.draw_anew(project, "deep"))
    assert (project / params.FILE).read_text() == before


def test_line_ends_stay_as_they_are(project):
    text = (project / params.FILE).read_text() + "  slides:\n    <<: *digits\n    data: slides"
    (project / params.FILE).write_text(text, newline="\r\n")
    list(resplit.draw_anew(project, "slides"))
    expected = text + "\n    prepare: {<<: *of-digits, resplit: 1}\n"
    assert (project / params.FILE).read_bytes() == expected.replace("\n", "\r\n").encode()


def test_each_model_of_the_data_set_that_starts_from_weights_is_named_with_the_danger(project):
    section = (
        "    train: {<<: *of-training, init: {from: 'models:/digits@champion', freeze: 0, layer_decay: 1.0}}\n"
    )
    text = (project / params.FILE).read_text().replace("    train:\n", "    train: &of-training\n", 1)
    (project / params.FILE).write_text(
        text.replace("*digits\n    data: digits\n", f"*digits\n    data: digits\n{section}")
    )
    (warning,) = list(resplit.draw_anew(project, "digits"))[3:]
    assert warning.startswith(
        "train.init.from of deep is models:/digits@champion: if these weights were trained on the same data, deep "
        "looks too good on the new test split: set it to random, or"
    )
