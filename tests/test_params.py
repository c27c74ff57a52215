"""params.yaml is checked as a whole, and every problem names its line."""

from pathlib import Path

import pytest

from components import params, tasks
from components.errors import PedigreeError
from components.tasks.image_classification.params import VisionParams

ROOT = Path(__file__).parents[1]
FILE = ROOT / "tests" / params.FILE
DIGITS = ("models", "digits")


@pytest.fixture
def values() -> params.Values:
    return params.read(FILE)


def problems(values: params.Values, *settings: str) -> str:
    for setting in settings:
        values = params.assignment(setting, DIGITS).over(values)
    with pytest.raises(PedigreeError) as caught:
        params.validate(VisionParams, values, DIGITS)
    return str(caught.value)


def write(tmp_path: Path, old: str, new: str) -> params.Values:
    text = FILE.read_text()
    assert old in text
    (tmp_path / params.FILE).write_text(text.replace(old, new))
    return params.read(tmp_path / params.FILE)


def test_a_mistyped_key_is_named_with_its_line_and_the_right_key(tmp_path):
    changed = write(tmp_path, "      epochs:", "      epohcs:")
    line = next(
        n for n, text in enumerate((tmp_path / params.FILE).read_text().splitlines(), 1) if "epohcs" in text
    )
    text = problems(changed)
    assert f"params.yaml:{line}: models.digits.train.epohcs is not a parameter; did you mean epochs?" in text
    assert "models.digits.train.epochs is missing" in text


def test_a_value_out_of_bounds_is_named_with_its_line_and_bound(tmp_path):
    changed = write(tmp_path, "val_share: 0.1", "val_share: 1.5")
    assert "params.yaml:8: models.digits.prepare.val_share = 1.5: Input should be less than 1" in problems(changed)


def test_all_problems_are_reported_at_once(values):
    text = problems(values, "train.epochs=-1", "train.optimizer.name=adam", "prepare.size=3", "evaluate.seed=x")
    assert text.startswith("4 problems with the parameters:")
    for key in ("train.epochs", "train.optimizer.name", "prepare.size", "evaluate.seed"):
        assert f"models.digits.{key} = " in text


def test_of_many_problems_twenty_are_listed_and_the_others_counted(values):
    text = problems(values, *(f"train.key{number}=1" for number in range(3000)))
    assert text.startswith("3,000 problems with the parameters:")
    assert len(text.splitlines()) == 22
    assert text.endswith("\n  and 2,980 more")


def test_a_batch_that_cannot_be_divided_among_the_workers_is_rejected(values):
    text = problems(values, "train.batch_size=100", "train.workers=3")
    assert "multiple of 3" in text


def test_nothing_is_frozen_of_a_random_start(values):
    said = problems(values, "train.init.freeze=2")
    assert "models.digits.train.init = {…}: freeze needs weights to start from: name them in `from`" in said


def test_what_parameters_of_the_type_source_name_is_found_by_its_key_and_a_random_start_is_nothing(values):
    def named(setting: str) -> dict[str, str]:
        changed = params.assignment(setting, DIGITS).over(values)
        return params.sources(params.validate(VisionParams, changed, DIGITS))

    assert named("train.epochs=1") == named("train.init.from=random") == {}
    assert named("train.init.from=resnet18.pth") == {params.INIT: "resnet18.pth"}
    assert named("train.init.from=models:/digits@champion") == {"train.init.from": "models:/digits@champion"}


def test_a_caller_who_names_nothing_has_the_sources_of_params_yaml(values):
    changed = params.assignment("train.init.from=resnet18.pth", DIGITS).over(values)
    form = params.with_defaults(VisionParams, params.validate(VisionParams, changed, DIGITS))
    assert params.sources(form()) == {params.INIT: "resnet18.pth"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: [", "is not YAML"),
        ("just words", "found none"),
        (
            "models:\n  digits: {}\n  digits: {}\n",
            r"^params\.yaml:3: duplicate key digits, first on line 2: rename or remove one of the two$",
        ),
        ("a: &a\n  b: *a\n", r"^params\.yaml:2: the anchor a is used inside itself: write out the values$"),
        ("a: &a\n  <<: *a\n", r"^params\.yaml:2: the anchor a is used inside itself"),
        ("a: &a [1, *a]\n", r"^params\.yaml:1: the anchor a is used inside itself"),
        ("a: *b\n", r"^params\.yaml:1: this is not YAML \(found undefined alias 'b'\)"),
        (
            "a:\n  <<: 3\n",
            r"^params\.yaml:2: this is not YAML \(expected a mapping or list of mappings for merging",
        ),
        ("? [a, b]\n: 1\n", r"^params\.yaml:1: this key is not a word"),
    ],
)
def test_a_file_that_is_not_parameters_is_rejected_with_a_sentence(tmp_path, text, said):
    (tmp_path / params.FILE).write_text(text)
    with pytest.raises(PedigreeError, match=said):
        params.read(tmp_path / params.FILE)


SHARED = """\
defaults:
  train: &train
    epochs: 6
    optimizer: {name: adamw, lr: 0.003}
  more: &more {epochs: 9, patience: 1}
models:
  one:
    train:
      <<: *train
      epochs: 1
  two:
    train: {<<: [*more, *train], optimizer: {name: sgd}}
  three: *train
"""


def test_merge_keys_mean_what_they_mean_to_dvc(tmp_path):
    from dvc.utils.serialize import load_yaml

    (tmp_path / params.FILE).write_text(SHARED)
    found = params.read(tmp_path / params.FILE)
    assert found.tree == load_yaml(str(tmp_path / params.FILE))
    assert found.tree["models"]["one"]["train"] == {"epochs": 1, "optimizer": {"name": "adamw", "lr": 0.003}}
    assert found.tree["models"]["two"]["train"] == {"epochs": 9, "patience": 1, "optimizer": {"name": "sgd"}}


def test_what_is_inherited_is_found_where_its_anchor_is_written(tmp_path):
    (tmp_path / params.FILE).write_text(SHARED)
    found = params.read(tmp_path / params.FILE)
    lines = {
        ("one", "train", "epochs"): 10,
        ("one", "train", "optimizer", "lr"): 4,
        ("two", "train", "patience"): 5,
        ("two", "train", "optimizer"): 12,
        ("two", "train", "optimizer", "lr"): 12,  # which is not there, and would be in this section
        ("three", "epochs"): 3,
    }
    assert {path: found.location(("models", *path)) for path in lines} == {
        path: f"params.yaml:{line}" for path, line in lines.items()
    }


def test_a_wrong_value_that_is_inherited_is_named_with_the_line_of_its_anchor(tmp_path):
    text = FILE.read_text()
    text = text.replace("models:\n", "defaults: &evaluate\n  workers: -1\n\nmodels:\n", 1)
    text = text.replace("    evaluate:\n      workers: 0\n", "    evaluate:\n      <<: *evaluate\n", 1)
    (tmp_path / params.FILE).write_text(text)
    said = problems(params.read(tmp_path / params.FILE))
    assert "params.yaml:3: models.digits.evaluate.workers = -1: Input should be greater than or equal to 0" in said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("max_rejected:", "max_refused:", r"^params\.yaml:\d+: .*prepare\.max_refused is called max_rejected now"),
        ("best_metric:", "best_mode: max\n      best_metric:", r"train\.best_mode is gone, .*: remove it$"),
        ("model: {", "model: {init: random, ", r"train\.model\.init is called train\.init\.from now: write"),
        ("model: {", "model: {checkpoint: a.pth, ", r"train\.model\.checkpoint is called train\.init\.from now"),
        ("model: {", "model: {freeze_backbone: true, ", r"freeze_backbone is called train\.init\.freeze now"),
        ("margins: {class: 0.05}", "class_margin: 0.05", r"gate\.class_margin is called margins now"),
        ("      gate:", "      name: digits\n      gate:", r"register\.name is gone, because .*: remove it$"),
    ],
)
def test_a_key_of_earlier_versions_is_one_sentence_with_the_line_and_the_new_key(tmp_path, old, new, said):
    text = FILE.read_text()
    (tmp_path / params.FILE).write_text(text.replace(old, new, 1))
    with pytest.raises(PedigreeError, match=said) as caught:
        params.validate(VisionParams, params.read(tmp_path / params.FILE), DIGITS)
    assert "\n" not in str(caught.value)


def test_a_missing_section_is_named(values):
    with pytest.raises(PedigreeError, match=r"no section models\.poetry"):
        params.validate(VisionParams, values, ("models", "poetry"))


def test_a_setting_without_an_equals_sign_is_rejected():
    with pytest.raises(PedigreeError, match=r"section\.key=value"):
        params.assignment("train.epochs", DIGITS)


@pytest.mark.parametrize("value", ["2024-13-45", "\x01", "[" * 3000, "9" * 5000, "\ud800", "!x 3", "*a"])
def test_a_setting_whose_value_yaml_cannot_read_is_rejected(value):
    with pytest.raises(PedigreeError, match=r"^--set train\.epochs=.* is not a YAML value: quote it$"):
        params.assignment(f"train.epochs={value}", DIGITS)


def test_a_caller_names_only_what_differs_from_params_yaml(values):
    train = params.validate(VisionParams, values, DIGITS).train
    model = params.with_defaults(type(train), train)
    assert model() == model.model_validate(train.model_dump(by_alias=True))
    changed = model.model_validate({"epochs": 2, "optimizer": {"lr": 0.5}})
    assert (changed.epochs, changed.optimizer.lr) == (2, 0.5)
    assert changed.optimizer.name == train.optimizer.name


@pytest.mark.parametrize("task", tasks.names())
def test_every_parameter_has_a_description_for_prefects_form(task):
    def undescribed(schema: dict) -> list[str]:
        models = [schema, *schema.get("$defs", {}).values()]
        return [
            f"{model['title']}.{name}"
            for model in models
            for name, field in model.get("properties", {}).items()
            if "description" not in field and "$ref" not in field
        ]

    assert undescribed(tasks.load(task).params.model_json_schema()) == []


def test_a_run_is_named_after_what_differs(values):
    usual = params.validate(VisionParams, values, DIGITS)
    changed = params.assignment("train.optimizer.lr=0.5", DIGITS).over(values)
    given = params.validate(VisionParams, changed, DIGITS)
    assert params.label("image_classification", usual, usual) == "image_classification"
    assert params.label("image_classification", given, usual) == "image_classification optimizer.lr=0.5"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("models: {a: \x07}", r"params\.yaml: character 12 is not allowed in YAML"),
        ("models: {day: 2001-99-99}", r"params\.yaml: this cannot be read \(month must be in 1\.\.12\)"),
        ("models: " + "[" * 1000, "params.yaml: this cannot be read"),
        (
            "".join(f"a{i}: &a{i} {{b: {f'*a{i - 1}, c: *a{i - 1}' if i else 1}}}\n" for i in range(40)),
            "100,000 keys",
        ),
        ("".join(f"a{i}: &a{i} [{f'*a{i - 1}, *a{i - 1}' if i else 1}]\n" for i in range(40)), "100,000 keys"),
        (
            "".join(f"a{i}: &a{i} {{<<: [{f'*a{i - 1}, *a{i - 1}' if i else '{b: 1}'}]}}\n" for i in range(40)),
            "100,000 keys",
        ),
    ],
    ids=["bell", "date", "brackets", "anchors", "lists", "merge keys"],
)
def test_what_yaml_cannot_say_is_rejected_with_a_sentence(tmp_path, text, what):
    (tmp_path / params.FILE).write_text(text)
    with pytest.raises(PedigreeError, match=what):
        params.read(tmp_path / params.FILE)


def test_a_batch_norm_of_one_image_is_rejected(values):
    said = problems(values, "train.batch_size=8", "train.accumulate=8")
    assert (
        "models.digits.train = {…}: batch norm needs two images in each of 8 micro-batches: batch_size 8 is too"
        in said
    )
