"""FID: its network is loaded from a file of the genuine structure, and its distance is that of pytorch-fid."""

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
import torchvision

from components.errors import PedigreeError
from components.tasks.image_generation import inception


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """Torchvision's network with random weights and FID's number of classes."""
    torch.manual_seed(0)
    return torchvision.models.inception_v3(num_classes=1008, aux_logits=False, init_weights=False).eval()


@pytest.fixture(scope="module")
def file(network, tmp_path_factory) -> Path:
    """A file with the names and shapes of the published one."""
    path = tmp_path_factory.mktemp("inception") / inception.PUBLISHED
    torch.save(network.state_dict(), path)
    return path


def test_the_features_are_torchvisions_with_means_that_leave_padding_out_and_a_maximum_in_the_last_block(
    network, file, monkeypatch, caplog
):
    image = torch.randint(256, (1, 1, 28, 28), dtype=torch.uint8)
    pooled = []

    class Patched:
        def __getattr__(self, name):
            return getattr(F, name)

        def avg_pool2d(self, x, kernel_size, stride, padding):
            pooled.append(x.shape[1])
            if len(pooled) == 9:
                return F.max_pool2d(x, kernel_size, stride, padding)
            return F.avg_pool2d(x, kernel_size, stride, padding, count_include_pad=False)

    found = inception.features(inception.load(file), image, "test")
    assert f"{file.name} is not the published {inception.PUBLISHED}" in caplog.text, "its hash differs"
    monkeypatch.setattr(torchvision.models.inception, "F", Patched())
    outputs = []
    network.avgpool.register_forward_hook(lambda *given: outputs.append(given[2]))
    pixels = F.interpolate(image.expand(1, 3, 28, 28) / 255, size=(299, 299), mode="bilinear")
    with torch.inference_mode():
        network(2 * pixels - 1)
    assert pooled == [192, 256, 288, 768, 768, 768, 768, 1280, 2048]
    assert found.shape == (1, 2048)
    np.testing.assert_allclose(found, outputs[0].flatten(1).double(), rtol=1e-3, atol=1e-5)


def test_a_file_without_numbers_of_batches_as_torch_once_wrote_it_is_loaded(network):
    tensors = {name: each for name, each in network.state_dict().items() if "num_batches" not in name}
    assert inception.Inception(tensors).network.Mixed_7c.branch_pool.conv.weight.shape == (192, 2048, 1, 1)


@pytest.mark.parametrize("tensors", [{}, {"fc.weight": torch.zeros(1000, 2048)}])
def test_another_network_is_rejected_with_the_name_of_the_right_file(tmp_path, tensors):
    torch.save(tensors, tmp_path / "other.pth")
    with pytest.raises(PedigreeError, match=r"^\S+/other\.pth is not the Inception network of FID: get pt_inc"):
        inception.load(tmp_path / "other.pth")
    with pytest.raises(PedigreeError, match=r"is not the Inception network of FID"):
        inception.load(tmp_path)


def test_the_distance_is_the_formula_with_a_square_root_of_a_matrix():
    random = np.random.default_rng(0)
    one = random.normal(size=(300, 40)) @ random.normal(size=(40, 40))
    other = random.normal(size=(200, 40)) @ random.normal(size=(40, 40)) + 0.5
    (mean, covariance), (mean2, covariance2) = ((x.mean(0), np.cov(x, rowvar=False)) for x in (one, other))
    root = scipy.linalg.sqrtm(covariance @ covariance2).real
    expected = ((mean - mean2) ** 2).sum() + np.trace(covariance + covariance2 - 2 * root)
    assert inception.distance(one, other) == pytest.approx(expected, rel=1e-9)
    assert inception.distance(one, one) == pytest.approx(0, abs=1e-8)
    few = random.normal(size=(10, 40))
    assert 0 < inception.distance(few, one) < np.inf, "fewer images than features"
