"""A prototypical network: an image is of the class whose prototype, a mean of embeddings, is nearest to its own.

Source: Snell et al. 2017, arXiv:1703.05175.
"""

import torch
from torch import Tensor, nn

from components.contracts import Manifest, Sources
from components.images.networks.conv4 import Conv4, dimensions
from components.images.networks.normalize import Normalize
from components.params import INIT
from components.tasks.few_shot.episodes import Pictures
from components.tasks.few_shot.params import FewShotParams
from components.tasks.few_shot.prepare import FewShotFacts
from components.weights import start_from

SCALE = 0.25
"""Factor of squared distances in logits."""
AT_ONCE = 256
"""Images that are embedded at once."""


class PrototypicalNetwork(nn.Module):
    """Maps images to embeddings, and has a prototype for each class that it knows.

    Args:
        normalize: Normalises images on the scale 0..255.
        network: Maps images (N, C, H, W) to embeddings (N, D).
        known: Number of classes K that the network knows.
        size: Number of dimensions D of an embedding.
        alone: Whether `classify` compares an image, which is of the support, with prototypes without itself.
    """

    prototypes: Tensor
    support: Tensor

    def __init__(self, normalize: nn.Module, network: nn.Module, known: int, size: int, alone: bool) -> None:
        super().__init__()
        self.normalize, self.network, self.alone = normalize, network, alone
        self.register_buffer("prototypes", torch.zeros(known, size))  # (K, D)
        self.register_buffer("support", torch.zeros(known))  # images of which each is the mean, (K,)

    def forward(self, image: Tensor) -> Tensor:
        """Map images (N, C, H, W) to embeddings (N, D)."""
        embedding: Tensor = self.network(self.normalize(image))
        return embedding

    def learn(self, embedding: Tensor, label: Tensor) -> None:
        """Make the mean embedding of each class its prototype, from embeddings (N, D) and labels (N,)."""
        count = torch.zeros_like(self.support).index_add_(0, label, torch.ones_like(label, dtype=torch.float32))
        total = torch.zeros_like(self.prototypes).index_add_(0, label, embedding.float())
        self.support.copy_(count)
        self.prototypes.copy_(total / count.clamp(min=1)[:, None])

    def classify(self, embedding: Tensor, label: Tensor | None = None) -> Tensor:
        """Return logits (N, K) for embeddings (N, D); `alone` needs their labels (N,), too."""
        logits = compare(self.prototypes, embedding)
        if not self.alone or label is None:
            return logits
        others = (self.support[label] - 1).clamp(min=1)[:, None]
        without = (self.support[label][:, None] * self.prototypes[label] - embedding) / others  # (N, D)
        own = compare(without[:, None], embedding[:, None])[:, 0]  # (N, 1)
        return logits.scatter(1, label[:, None], own)


def compare(prototypes: Tensor, embedding: Tensor) -> Tensor:
    """Return logits (..., N, K) of embeddings (..., N, D) for prototypes (..., K, D).

    They are minus the scaled squared distances, but for the norm of the embedding, which softmax cancels.
    """
    prototypes, embedding = prototypes.float(), embedding.float()
    with torch.autocast(embedding.device.type, enabled=False):
        return SCALE * (2 * embedding @ prototypes.mT - prototypes.square().sum(-1)[..., None, :])


def network(model: nn.Module) -> PrototypicalNetwork:
    """Return what `build_model` built, by its type."""
    assert isinstance(model, PrototypicalNetwork)
    return model


def build_model(params: FewShotParams, manifest: Manifest) -> PrototypicalNetwork:
    """Build a network with random weights, which knows no class yet."""
    facts = FewShotFacts.model_validate(manifest.facts)
    width = params.train.model.width
    normalize, embed = Normalize(facts.mean, facts.std), Conv4(facts.channels, width)
    size = dimensions(facts.size, width)
    return PrototypicalNetwork(normalize, embed, facts.known, size, bool(manifest.untested))


def initialise(model: nn.Module, split: Pictures, params: FewShotParams, sources: Sources) -> set[str]:
    """Load given weights; with `prepare.taught`, make the means of the support the prototypes.

    Returns:
        The names of the loaded parameters.

    Raises:
        PedigreeError: the weights are missing, unreadable, unsafe or do not fit.
    """
    loaded = start_from(model, sources[INIT]) if INIT in sources else set()
    if params.prepare.taught:
        model.eval()
        with torch.inference_mode():
            embedding = torch.cat([model(some) for some in split.image.split(AT_ONCE)])
        network(model).learn(embedding, split.label)
        model.train()
    return loaded
