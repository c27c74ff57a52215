"""What requirements.lock installs works together."""

import importlib

import pytest


@pytest.mark.parametrize(
    "name", ["torch", "torchvision.ops", "torchaudio", "ray.train.torch", "mlflow", "prefect", "dvc.api"]
)
def test_the_pinned_packages_import_beside_each_other(name):
    assert importlib.import_module(name)
