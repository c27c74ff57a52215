"""The network: one that makes a vector of a text, and a linear layer that classifies it."""

from typing import cast

from torch import Tensor, nn

from components.classification.decision import Decision
from components.contracts import Manifest, Sources
from components.datasets.splits import Columns
from components.params import INIT
from components.tasks.text_classification.params import TextParams
from components.tasks.text_classification.prepare import TextFacts
from components.text.networks import bert_folder, pooled
from components.text.networks.bert import Bert
from components.text.networks.pooled import TextCnn, TextLstm
from components.text.networks.transformer import Encoder


class Classifier(nn.Module):
    """Maps the tokens of a text, or of two, to the logits of the classes.

    Args:
        encoder: Makes a vector of a text, or one of each token, of which it is then the mean.
        features: Features of that vector.
        classes: Number of classes.
        dropout: Rate on the vector of a text.
        several: Whether a text can have several labels, whose thresholds the network then carries.
    """

    tokenizer = ""
    """Content of the tokenizer.json of the prepared texts, which that of initial weights must equal."""

    def __init__(self, encoder: nn.Module, features: int, classes: int, dropout: float, several: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, classes)
        if several:
            self.decision = Decision(None, classes)

    def forward(self, token: Tensor, length: Tensor, first: Tensor) -> Tensor:
        """Return logits (B, classes).

        Args:
            token: Ids, int64 (B, T); padding at the ends changes nothing.
            length: Number of each sample's tokens, int64 (B,), at least 1.
            first: How many of them belong to its first text, int64 (B,).
        """
        if isinstance(self.encoder, Bert):
            vector = pooled.mean(self.encoder(token, length, first), length)
        elif isinstance(self.encoder, Encoder):
            vector = pooled.mean(self.encoder(token, length), length)
        else:
            vector = self.encoder(token, length)
        return cast(Tensor, self.head(self.dropout(vector)))

    @property
    def embedding(self) -> nn.Embedding:
        """The vectors of the tokens."""
        inner = self.encoder.embedding if isinstance(self.encoder, Encoder) else self.encoder
        return cast(nn.Embedding, inner.tokens)


def build_model(params: TextParams, manifest: Manifest) -> nn.Module:
    """Build a randomly initialised network for the prepared texts."""
    facts, chosen = TextFacts.model_validate(manifest.facts), params.train.model
    size, dropout, vocabulary = chosen.size, chosen.dropout, facts.vocabulary
    encoder: nn.Module
    if chosen.network == "cnn":
        encoder, features = TextCnn(vocabulary, size, chosen.filters, dropout), chosen.filters * len(pooled.WIDTHS)
    elif chosen.network == "lstm":
        encoder, features = TextLstm(vocabulary, size, chosen.layers, dropout), size
    elif chosen.network == "transformer":
        encoder = Encoder(vocabulary, size, chosen.heads, 4 * size, chosen.layers, dropout)
        features = size
    else:
        encoder, features = Bert(chosen.bert, vocabulary, dropout), chosen.bert.hidden
    network = Classifier(encoder, features, len(facts.classes), dropout, facts.several)
    network.tokenizer = facts.tokenizer
    return network


def initialise(model: nn.Module, split: Columns, params: TextParams, sources: Sources) -> set[str]:
    """Load initial weights into a network from `build_model`: a BERT's folder, or those of another such network.

    Returns:
        The names of the parameters that were loaded.

    Raises:
        PedigreeError: the weights are missing, unreadable, unsafe or do not fit.
    """
    if INIT not in sources:
        return set()
    assert isinstance(model, Classifier), "from build_model"
    return bert_folder.start(model, params.train.model.bert, model.tokenizer, sources[INIT])
