"""The network: one that makes a vector of each token, and a linear layer that finds the answer's ends."""

from typing import cast

import torch
from torch import Tensor, nn

from components.contracts import Manifest, Sources
from components.datasets.splits import Columns
from components.params import INIT
from components.tasks.question_answering.params import QuestionParams
from components.tasks.question_answering.prepare import QuestionFacts
from components.tasks.question_answering.windows import NONE
from components.text.networks import bert_folder
from components.text.networks.attentive import AttentiveLstm
from components.text.networks.bert import Bert


class Reader(nn.Module):
    """Maps a window to the logits of the first and the last token of the answer (Devlin et al. 2019, section 4.2).

    Args:
        encoder: Makes a vector of each token.
        features: Features of that vector.
        dropout: Rate on it.
        abstains: Whether contexts may lack an answer; the network then carries the threshold of saying so.
    """

    tokenizer = ""
    """Content of the tokenizer.json of the prepared questions, which that of initial weights must equal."""
    threshold: Tensor | None
    """By how much the score of no answer has to exceed the best one's, float64; None if there always is one."""

    def __init__(self, encoder: nn.Module, features: int, dropout: float, abstains: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, 2)
        self.register_buffer("threshold", torch.zeros((), dtype=torch.float64) if abstains else None)

    def forward(self, token: Tensor, length: Tensor, first: Tensor) -> Tensor:
        """Return logits in fp32, (2, B, T): of the first token and of the last.

        Positions that are neither of the context nor NONE, which stands for no answer, have -inf.

        Args:
            token: Ids, int64 (B, T); padding at the ends changes nothing.
            length: Number of each window's tokens, int64 (B,).
            first: How many of them are the question's, int64 (B,).
        """
        vectors = self.encoder(token, length, first)
        logits = self.head(self.dropout(vectors)).float().permute(2, 0, 1)  # (2, B, T)
        positions = torch.arange(token.shape[1], device=token.device)
        context = (positions >= first[:, None]) & (positions < length[:, None] - 1)  # all but the last [SEP]
        impossible = (context | (positions == NONE)).logical_not()  # (B, T)
        return cast(Tensor, logits.masked_fill(impossible, -torch.inf))


def build_model(params: QuestionParams, manifest: Manifest) -> nn.Module:
    """Build a randomly initialised network for the prepared questions."""
    facts, chosen = QuestionFacts.model_validate(manifest.facts), params.train.model
    encoder: nn.Module
    if chosen.network == "lstm":
        encoder = AttentiveLstm(facts.vocabulary, chosen.size, chosen.layers, chosen.dropout)
        features = 2 * chosen.size
    else:
        encoder, features = Bert(chosen.bert, facts.vocabulary, chosen.dropout), chosen.bert.hidden
    network = Reader(encoder, features, chosen.dropout, facts.abstains)
    network.tokenizer = facts.tokenizer
    return network


def initialise(model: nn.Module, split: Columns, params: QuestionParams, sources: Sources) -> set[str]:
    """Load initial weights into a network from `build_model`: a BERT's folder, or those of another such network.

    Returns:
        The names of the parameters that were loaded.

    Raises:
        PedigreeError: the weights are missing, unreadable, unsafe or do not fit.
    """
    if INIT not in sources:
        return set()
    assert isinstance(model, Reader), "from build_model"
    return bert_folder.start(model, params.train.model.bert, model.tokenizer, sources[INIT])
