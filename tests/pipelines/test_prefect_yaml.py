"""prefect.yaml has a deployment for each model, and keeps what people have written into it."""

import pytest
from ruamel.yaml import YAML

from components.errors import PedigreeError
from components.models import Listed
from pipelines import flow, prefect_yaml

MODELS = [Listed(name, "image_classification", name, True) for name in ("xrays", "xrays-deep", "build")]


def deployments(text: str) -> list[dict]:
    return YAML(typ="safe").load(text)["deployments"]


def test_each_model_has_a_deployment_whose_flow_no_other_has(tmp_path):
    found = deployments(prefect_yaml.text(tmp_path, MODELS))
    entrypoints = [each["entrypoint"] for each in found]
    assert entrypoints == [f"pipelines/flow.py:model_{name}" for name in ("xrays", "xrays_deep", "build")]
    assert not [name for name in vars(flow) if name.startswith("model_")]


def test_deployments_and_comments_of_people_stay(tmp_path):
    own = "# Ours.\nname: pedigree\ndeployments:\n  - name: nightly\n    entrypoint: ours.py:night  # at night\n"
    (tmp_path / "prefect.yaml").write_text(own)
    text = prefect_yaml.text(tmp_path, MODELS[:1])
    assert text.startswith(own)
    assert [each["name"] for each in deployments(text)] == ["nightly", "pool"]
    (tmp_path / "prefect.yaml").write_text(text)
    assert prefect_yaml.text(tmp_path, MODELS[:1]) == text
    assert deployments(prefect_yaml.text(tmp_path, [])) == deployments(own)


def test_a_difference_to_the_models_is_noticed(tmp_path):
    (tmp_path / "prefect.yaml").write_text(prefect_yaml.text(tmp_path, MODELS))
    assert not prefect_yaml.differs(tmp_path, MODELS)
    assert prefect_yaml.differs(tmp_path, MODELS[:2])
    (tmp_path / "prefect.yaml").unlink()
    assert prefect_yaml.differs(tmp_path, MODELS)


@pytest.mark.parametrize("text", ["deployments: [", "- a list\n", "deployments: {a: 1}\n"])
def test_a_file_that_is_no_prefect_yaml_is_a_sentence(tmp_path, text):
    (tmp_path / "prefect.yaml").write_text(text)
    with pytest.raises(PedigreeError, match=r"^prefect\.yaml .*: restore it from git$"):
        prefect_yaml.text(tmp_path, MODELS)
