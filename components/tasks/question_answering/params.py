"""Parameters of question answering."""

from typing import Literal, Self

from pydantic import Field, model_validator

from components.params import EvaluateParams, FilesPrepareParams, Section, Source, TaskParams, TrainParams
from components.text.params import BertParams

SPECIAL = 3
"""Tokens of a window that belong neither to the question nor to the context."""


class PiecesParams(Section):
    """The pieces of words that questions and contexts become (WordPiece, as of a BERT)."""

    vocabulary: int = Field(ge=8, le=2**20, description="Most pieces, if they are learnt from the training texts")
    from_: Source = Field(
        alias="from", description="The tokenizer.json or vocab.txt of a BERT; empty to learn them"
    )


class QuestionPrepareParams(FilesPrepareParams):
    """How questions and contexts become windows of tokens."""

    longest: int = Field(ge=8, le=2**16, description="Most tokens of a window, question and special ones included")
    longest_question: int = Field(ge=1, le=2**15, description="Most tokens of a question; more are cut at the end")
    overlap: int = Field(
        ge=0, le=2**15, description="Tokens that successive windows of one context share, if it needs several"
    )
    tokenizer: PiecesParams

    @model_validator(mode="after")
    def _windows_advance(self) -> Self:
        room = self.longest - self.longest_question - SPECIAL
        if room <= self.overlap:
            raise ValueError(
                f"a window of longest {self.longest} tokens has room for {room} of the context beside a question "
                f"of longest_question {self.longest_question}, which has to be more than overlap {self.overlap}: "
                "raise longest"
            )
        return self


class ModelParams(Section):
    """The network that makes a vector of each token, before the linear layer that finds the answer's ends."""

    network: Literal["lstm", "bert"] = Field(
        description="lstm: both directions, with attention to the question; bert: self-attention in BERT's form, "
        "which can start from published weights"
    )
    size: int = Field(ge=2, le=8192, multiple_of=2, description="lstm: features of a token's vector")
    layers: int = Field(ge=1, le=64, description="lstm: number of layers")
    dropout: float = Field(ge=0, lt=1, description="Rate on vectors of tokens and between layers")
    bert: BertParams


class QuestionTrainParams(TrainParams):
    """The shared training parameters, and the network of question answering."""

    model: ModelParams


class QuestionEvaluateParams(EvaluateParams):
    """The shared evaluation parameters, and which answers are considered."""

    longest_answer: int = Field(ge=1, le=2**15, description="Most tokens of an answer")


class QuestionParams(TaskParams):
    """The parameters of a model of question_answering in params.yaml."""

    prepare: QuestionPrepareParams
    train: QuestionTrainParams
    evaluate: QuestionEvaluateParams

    @model_validator(mode="after")
    def _bert_has_a_position_for_each_token(self) -> Self:
        positions = self.train.model.bert.positions
        if self.train.model.network == "bert" and self.prepare.longest > positions:
            raise ValueError(
                f"prepare.longest {self.prepare.longest} is more than the {positions} positions of the bert: set "
                f"it to at most {positions}"
            )
        return self
