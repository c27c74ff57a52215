"""params.yaml is checked as a whole, and every problem names its line."""

from pathlib import Path

import pytest

from components import params
from components.errors import PedigreeError
from components.vision.params import VisionParams

ROOT = Path(__file__).parents[1]
VISION = ("tasks", "vision")


@pytest.fixture
def values() -> params.Values:
    return params.read(ROOT / params.FILE)


def problems(values: params.Values, *settings: str) -> str:
    for setting in settings:
        values = params.assignment(setting, VISION).over(values)
    with pytest.raises(PedigreeError) as caught:
        params.validate(VisionParams, values, VISION)
    return str(caught.value)


def write(tmp_path: Path, old: str, new: str) -> params.Values:
    text = (ROOT / params.FILE).read_text()
    assert old in text
    (tmp_path / params.FILE).write_text(text.replace(old, new))
    return params.read(tmp_path / params.FILE)


def test_the_params_yaml_of_the_project_is_valid(values):
    assert params.validate(VisionParams, values, VISION).train.epochs > 0


@pytest.mark.parametrize("profile", sorted((ROOT / "profiles").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_profile_lays_valid_values_over_params_yaml(values, profile):
    overlay = params.read(profile)
    params.validate(VisionParams, overlay.over(values), VISION)
    known = set(params.flat(values.tree))
    assert set(params.flat(overlay.tree)) <= known


def test_a_mistyped_key_is_named_with_its_line_and_the_right_key(tmp_path):
    changed = write(tmp_path, "      epochs:", "      epohcs:")
    line = next(
        n for n, text in enumerate((tmp_path / params.FILE).read_text().splitlines(), 1) if "epohcs" in text
    )
    text = problems(changed)
    assert f"params.yaml:{line}: tasks.vision.train.epohcs is not a parameter; did you mean epochs?" in text
    assert "tasks.vision.train.epochs is missing" in text


def test_a_value_out_of_bounds_is_named_with_its_line_and_bound(tmp_path):
    changed = write(tmp_path, "val_share: 0.1", "val_share: 1.5")
    assert "params.yaml:7: tasks.vision.prepare.val_share = 1.5: Input should be less than 1" in problems(changed)


def test_all_problems_are_told_at_once(values):
    text = problems(values, "train.epochs=0", "train.optimizer.name=adam", "prepare.size=3", "evaluate.seed=x")
    assert text.startswith("4 problems with the parameters:")
    for place in ("train.epochs", "train.optimizer.name", "prepare.size", "evaluate.seed"):
        assert f"tasks.vision.{place} = " in text


def test_a_batch_that_cannot_be_divided_among_the_workers_is_refused(values):
    text = problems(values, "train.batch_size=100", "train.workers=3")
    assert "multiple of 3" in text


def test_pretrained_weights_and_a_checkpoint_go_together(values):
    assert "give both or neither" in problems(values, "train.model.init=pretrained")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tasks: [", "is not YAML"),
        ("just words", "found none"),
        ("tasks:\n  vision: {}\n  vision: {}\n", "is not YAML"),
    ],
)
def test_a_file_that_is_not_parameters_is_refused_with_a_sentence(tmp_path, text, said):
    (tmp_path / params.FILE).write_text(text)
    with pytest.raises(PedigreeError, match=said):
        params.read(tmp_path / params.FILE)


def test_a_missing_section_is_named(values):
    with pytest.raises(PedigreeError, match=r"no section tasks\.poetry"):
        params.validate(VisionParams, values, ("tasks", "poetry"))


def test_a_setting_without_an_equals_sign_is_refused():
    with pytest.raises(PedigreeError, match=r"section\.key=value"):
        params.assignment("train.epochs", VISION)


def test_a_caller_names_only_what_differs_from_params_yaml(values):
    train = params.validate(VisionParams, values, VISION).train
    model = params.with_defaults(type(train), train)
    assert model() == model.model_validate(train.model_dump())
    changed = model.model_validate({"epochs": 2, "optimizer": {"lr": 0.5}})
    assert (changed.epochs, changed.optimizer.lr) == (2, 0.5)
    assert changed.optimizer.name == train.optimizer.name


def test_every_parameter_has_a_description_for_prefects_form(values):
    def undescribed(schema: dict) -> list[str]:
        models = [schema, *schema.get("$defs", {}).values()]
        return [
            f"{model['title']}.{name}"
            for model in models
            for name, field in model.get("properties", {}).items()
            if "description" not in field and "$ref" not in field
        ]

    assert undescribed(VisionParams.model_json_schema()) == []


def test_a_run_is_named_after_what_differs(values):
    usual = params.validate(VisionParams, values, VISION)
    changed = params.assignment("train.optimizer.lr=0.5", VISION).over(values)
    given = params.validate(VisionParams, changed, VISION)
    assert params.label("vision", usual, usual) == "vision"
    assert params.label("vision", given, usual) == "vision optimizer.lr=0.5"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("tasks: {a: \x07}", r"params\.yaml: character 11 is not one that YAML may have"),
        ("tasks: {day: 2001-99-99}", r"params\.yaml: this cannot be read \(month must be in 1\.\.12\)"),
        ("tasks: " + "[" * 1000, "params.yaml: this cannot be read"),
        (
            "".join(f"a{i}: &a{i} {{b: {f'*a{i - 1}, c: *a{i - 1}' if i else 1}}}\n" for i in range(40)),
            "10,000 keys",
        ),
    ],
    ids=["bell", "date", "brackets", "anchors"],
)
def test_what_yaml_cannot_say_is_refused_with_a_sentence(tmp_path, text, what):
    (tmp_path / params.FILE).write_text(text)
    with pytest.raises(PedigreeError, match=what):
        params.read(tmp_path / params.FILE)


@pytest.mark.parametrize("setting", ["train.accumulate=2", "train.workers=2"])
def test_to_compile_what_adds_up_gradients_is_refused(values, setting):
    said = problems(values, "train.compile=true", setting)
    assert "tasks.vision.train = {…}: compile: true needs one worker and accumulate: 1" in said


def test_a_batch_norm_of_one_image_is_refused(values):
    said = problems(values, "train.batch_size=8", "train.accumulate=8")
    assert "tasks.vision.train = {…}: batch norm needs two images in each of 8 pieces: batch_size 8 is too" in said
