"""The models of params.yaml, and what may be laid over their parameters."""

import pytest

from components import models, params
from components.errors import PedigreeError
from tests.conftest import MODELS, PARAMS, ROOT

SECTION = """\
models:
  digits: {task: image_classification, data: digits}
  deep: {task: image_classification, data: digits}
  own: {task: spoken_words}
"""


def listed(tmp_path, text: str) -> list[models.Listed]:
    (tmp_path / params.FILE).write_text(text)
    return models.listed(models.read(tmp_path))


def test_two_models_share_a_data_set_and_one_without_a_name_has_its_models(tmp_path):
    found = listed(tmp_path, SECTION)
    assert [(each.name, each.task, each.data, each.says_data) for each in found] == [
        ("digits", "image_classification", "digits", True),
        ("deep", "image_classification", "digits", True),
        ("own", "spoken_words", "own", False),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "models:\n  digits:\n    task: image_clasification\n",
            r"params\.yaml:3: there is no task 'image_clasification'; did you mean image_classification\?: the",
        ),
        (
            "models:\n  digits:\n    data: d\n",
            r"params\.yaml:2: the model digits has no `task:`: add it, one of few_shot",
        ),
        ("models:\n  digits:\n", r"params\.yaml:2: the model digits has no `key: value` lines below it: add them"),
        ("models: {}\n", "params.yaml: there is no `models:` section with at least one model: add one"),
        ("other: 1\n", "params.yaml: there is no `models:` section with at least one model: add one"),
        (
            "a: 1\ntasks:\n  vision: {}\n",
            r"params\.yaml:2: tasks is called `models` now, and each model names its `task`: rename it",
        ),
    ],
)
def test_a_list_of_models_that_is_wrong_is_one_sentence_with_its_line(tmp_path, text, said):
    with pytest.raises(PedigreeError, match=f"^{said}") as caught:
        listed(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["a/b", "../a", "a..b", "A", "a_b", "-a", "a-", "a--b", "1a", "17", "true", "é", '"a b"', '""', "null"]
)
@pytest.mark.parametrize("what", ["model", "data set"])
def test_a_name_with_other_characters_is_rejected_with_its_line(tmp_path, name, what):
    model = (
        f"{name}: {{task: image_classification}}"
        if what == "model"
        else f"m: {{task: image_classification, data: {name}}}"
    )
    with pytest.raises(
        PedigreeError, match=rf"^params\.yaml:[12]: .* cannot name a {what}: use lower-case letters, digi"
    ):
        listed(tmp_path, f"models:\n  {model}\n")


@pytest.mark.parametrize("name", sorted(models.RESERVED))
def test_a_model_does_not_have_the_name_of_a_folder_that_build_has_already(tmp_path, name):
    with pytest.raises(
        PedigreeError, match=rf"^params\.yaml:2: {name} cannot name a model, as build/{name} is reserved"
    ):
        listed(tmp_path, f"models:\n  {name}: {{task: image_classification}}\n")


def test_a_model_that_is_not_there_is_rejected_with_the_nearest(tmp_path):
    (tmp_path / params.FILE).write_text(SECTION)
    with pytest.raises(
        PedigreeError, match=r"^there is no model 'digist'; did you mean digits\?: the models of params"
    ):
        models.load(tmp_path, "digist")


def test_a_model_knows_its_folders(tmp_path):
    (tmp_path / params.FILE).write_bytes(PARAMS.read_bytes())
    model = models.load(tmp_path, "words")
    assert (model.name, model.task.name, model.data) == ("words", "spoken_words", "words")
    assert model.raw == tmp_path / "data" / "words"
    assert model.build == tmp_path / "build" / "words"


def test_without_a_file_of_its_data_set_a_model_names_the_command_that_brings_it(tmp_path):
    (tmp_path / params.FILE).write_bytes(PARAMS.read_bytes())
    model = models.load(tmp_path, "words")
    for folder in (tmp_path, model.raw / "yes"):  # there is none, and there is one without a file
        folder.mkdir(parents=True, exist_ok=True)
        with pytest.raises(
            PedigreeError, match=r"^data/words is missing: restore the data set of words with `pedigree data words`"
        ):
            model.expect_data()
    (model.raw / "yes" / "1.wav").write_text("")
    model.expect_data()


def test_a_mistyped_task_or_data_is_named_with_the_right_key(tmp_path):
    (tmp_path / params.FILE).write_text(PARAMS.read_text().replace("    data: words", "    dta: words"))
    with pytest.raises(PedigreeError, match=r"models\.words\.dta is not a parameter; did you mean data\?"):
        models.load(tmp_path, "words")


def test_the_committed_params_yaml_lists_models_and_those_of_known_names_load():
    found = models.names(ROOT)
    for name in {*found} & {*MODELS}:
        assert models.load(ROOT, name).params.train.epochs > 0


PROFILES = sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))


@pytest.fixture
def project(tmp_path):
    """A folder with the tests' params.yaml and one profile."""
    (tmp_path / params.FILE).write_bytes(PARAMS.read_bytes())
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "big.yaml").write_text(
        "task: image_classification\ntrain:\n  epochs: 50\n  model: {width: 2.0}\n"
    )
    return tmp_path


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_laid_over_the_parameters_of_a_model_of_its_task(name):
    values, profile = params.read(PARAMS), models.profile(ROOT, name)
    (model,) = (each.name for each in models.listed(values) if each.task == profile.task)
    models.from_values(values, ROOT, model, profile)
    section = values.section(("models", model))
    assert set(params.flat(profile.values.tree)) <= set(params.flat(section))


def test_settings_lie_over_the_profile_and_that_over_params_yaml(project):
    profile = models.profile(project, "big")
    model = models.load(project, "digits", profile, ["train.epochs=51"])
    usual = models.load(project, "digits")
    assert (model.params.train.epochs, model.params.train.model.width) == (51, 2.0)
    assert model.params.train.model.network == usual.params.train.model.network


def test_a_merge_key_in_a_profile_means_what_it_means_in_params_yaml(project):
    (project / "profiles" / "big.yaml").write_text(
        "task: image_classification\n"
        "train:\n  model:\n    <<: {width: 2.0, network: resnet34}\n    network: resnet18\n"
    )
    model = models.load(project, "digits", models.profile(project, "big")).params.train.model
    assert (model.width, model.network) == (2.0, "resnet18")


def test_a_profile_of_another_task_is_rejected(project):
    with pytest.raises(
        PedigreeError,
        match=r"^profiles/big\.yaml is for the task image_classification, but words has the task spoken_words",
    ):
        models.load(project, "words", models.profile(project, "big"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "train: {epochs: 1}\n",
            r"profiles/big\.yaml: a profile must name its task: write `task:`, one of few_shot",
        ),
        ("task: image_clasification\n", r"big\.yaml:1: a profile must name its task"),
        ("tasks:\n  vision: {}\n", r"profiles/big\.yaml: a profile must name its task"),
        (
            "task: image_classification\ndata: words\n",
            r"big\.yaml:2: a profile cannot change a model's data: remove this line",
        ),
    ],
)
def test_a_profile_that_is_none_is_one_sentence(project, text, said):
    (project / "profiles" / "big.yaml").write_text(text)
    with pytest.raises(PedigreeError, match=f"^{said}"):
        models.profile(project, "big")


def test_a_wrong_value_of_a_profile_is_named_with_the_profiles_line(project):
    (project / "profiles" / "big.yaml").write_text(
        "task: image_classification\ntrain:\n  epochs: -1\n  optimizer: {lrr: 1}\n"
    )
    with pytest.raises(PedigreeError) as caught:
        models.load(project, "digits", models.profile(project, "big"))
    assert "big.yaml:3: models.digits.train.epochs = -1" in str(caught.value)
    assert "big.yaml:4: models.digits.train.optimizer.lrr is not a parameter; did you mean lr?" in str(caught.value)


@pytest.mark.parametrize("setting", ["data=words", "task=speech"])
def test_a_run_changes_neither_the_task_nor_the_data_of_a_model(project, setting):
    with pytest.raises(PedigreeError, match=f"^--set {setting}: a run cannot change a model's"):
        models.load(project, "digits", settings=[setting])
