"""Parameters of translation."""

from typing import Literal, Self

from pydantic import Field, model_validator

from components.params import EvaluateParams, FilesPrepareParams, LabelSmoothing, Section, TaskParams, TrainParams


class BleuParams(Section):
    """What BLEU compares, which is a fact of the data: scores of different conventions cannot be compared."""

    case: Literal["mixed", "lc"] = Field(description="lc compares in lower case")
    tokenizer: Literal["13a", "none"] = Field(
        description="13a separates punctuation marks as WMT does; none is for texts that are tokenised already"
    )


class TranslationPrepareParams(FilesPrepareParams):
    """How pairs of texts become token ids."""

    source: str = Field(
        min_length=1,
        description="What is translated: the suffix of parallel files, such as en in train.en, or the column of a "
        "table; without a header, the column's number",
    )
    target: str = Field(min_length=1, description="What it is translated into, named likewise")
    header: bool = Field(description="Whether the first line of a CSV or TSV names the columns")
    vocabulary: int = Field(
        ge=300, le=2**16, description="Maximum number of byte pairs, learnt from both languages together"
    )
    longest: int = Field(
        ge=1, le=100_000, description="Most characters of a text; a pair with a longer one is rejected"
    )
    bleu: BleuParams

    @model_validator(mode="after")
    def _languages_differ(self) -> Self:
        if self.source == self.target:
            raise ValueError(f"source and target are both {self.source}: name two languages or columns")
        return self


class ModelParams(Section):
    """The encoder-decoder."""

    network: Literal["transformer", "gru"] = Field(
        description="gru is smaller and recurrent; it ignores heads and inner"
    )
    size: int = Field(ge=2, le=8192, multiple_of=2, description="Features of a position, and of a token's vector")
    heads: int = Field(ge=1, le=256, description="Heads of attention, which divide size")
    inner: int = Field(ge=1, le=65536, description="Size of the inner layer of the feed-forward networks")
    layers: int = Field(ge=1, le=64, description="Layers of the encoder, and of the decoder")
    dropout: float = Field(ge=0, lt=1, description="Rate on embeddings and on what each layer adds")

    @model_validator(mode="after")
    def _heads_divide_the_size(self) -> Self:
        if self.size % self.heads:
            raise ValueError(f"size {self.size} cannot be divided among {self.heads} heads: make it a multiple")
        return self


class TranslationTrainParams(TrainParams):
    """The shared training parameters, and translation's network."""

    label_smoothing: LabelSmoothing
    model: ModelParams


class SearchParams(Section):
    """How far to search for the likeliest translation."""

    beam: int = Field(
        ge=1, le=1000, description="Hypotheses that are followed; 1 takes the likeliest token each time"
    )
    length_penalty: float = Field(
        ge=0,
        le=10,
        description="Power of the length by which log-probabilities are divided: 0 favours short translations",
    )


class TranslationEvaluateParams(EvaluateParams):
    """Evaluation, and the search that a registered version answers with."""

    search: SearchParams


class TranslationParams(TaskParams):
    """The parameters of a model of translation in params.yaml."""

    prepare: TranslationPrepareParams
    train: TranslationTrainParams
    evaluate: TranslationEvaluateParams
