"""Parameters of text classification."""

from typing import Literal, Self

from pydantic import Field, model_validator

from components.params import FilesPrepareParams, LabelSmoothing, Section, TaskParams, TrainParams
from components.text.params import BertParams, SampleTokenizerParams


class TextPrepareParams(FilesPrepareParams):
    """How texts and their labels become arrays; the columns are those of a table, as folders of texts need none."""

    text: str = Field(
        min_length=1, description="The column of the text; without a header, the column's number, from 1"
    )
    pair: str = Field(
        description="The column of a second text, which is read with the first; empty if there is none"
    )
    label: str = Field(min_length=1, description="The column of the label")
    header: bool = Field(description="Whether the first line of a CSV or TSV names the columns")
    separator: str = Field(
        max_length=10,
        description="What separates labels in a cell if a text can have several, such as |; in JSON Lines, labels "
        "may also be a list. Empty if each text has one label",
    )
    out_of_scope: str = Field(
        max_length=200,
        description="The label of texts that belong to no class: they are not learnt, but evaluation measures how "
        "well the probability tells them apart. Empty if there is none",
    )
    longest: int = Field(
        ge=4, le=2**16, description="Most tokens of a sample, special ones included; more are cut at the end"
    )
    tokenizer: SampleTokenizerParams

    @model_validator(mode="after")
    def _columns_differ(self) -> Self:
        if len({self.text, self.pair, self.label}) < 3:
            raise ValueError("text, pair and label have to name different columns")
        return self

    @model_validator(mode="after")
    def _out_of_scope_is_a_single_label(self) -> Self:
        if self.separator and self.out_of_scope:
            raise ValueError(
                "out_of_scope is for texts with one label, and with a separator a text can have several or none: "
                "set one of them to ''"
            )
        return self


class ModelParams(Section):
    """The network that makes a vector of a text, before the linear layer that classifies it."""

    network: Literal["cnn", "lstm", "transformer", "bert"] = Field(
        description="cnn: convolutions over tokens and their largest outputs; lstm: both directions; transformer: "
        "self-attention; bert: the same in BERT's form, which can start from published weights"
    )
    size: int = Field(ge=2, le=8192, multiple_of=2, description="Features of a token's vector; bert has its own")
    filters: int = Field(ge=1, le=8192, description="cnn: filters of each width, of 3, 4 and 5 tokens")
    layers: int = Field(ge=1, le=64, description="lstm and transformer: number of layers")
    heads: int = Field(ge=1, le=256, description="transformer: heads of attention, which divide size")
    dropout: float = Field(
        ge=0, lt=1, description="Rate on vectors of tokens, between layers and on that of the text"
    )
    bert: BertParams

    @model_validator(mode="after")
    def _heads_divide_the_size(self) -> Self:
        if self.network == "transformer" and self.size % self.heads:
            raise ValueError(f"size {self.size} cannot be divided among {self.heads} heads: make it a multiple")
        return self


class TextTrainParams(TrainParams):
    """The shared training parameters, and the network of text classification."""

    label_smoothing: LabelSmoothing
    class_weights: Literal["none", "balanced"] = Field(
        description="Weights of the training samples' losses: balanced makes all classes count equally"
    )
    model: ModelParams


class TextParams(TaskParams):
    """The parameters of a model of text_classification in params.yaml."""

    prepare: TextPrepareParams
    train: TextTrainParams

    @model_validator(mode="after")
    def _bert_has_a_position_for_each_token(self) -> Self:
        positions = self.train.model.bert.positions
        if self.train.model.network == "bert" and self.prepare.longest > positions:
            raise ValueError(
                f"prepare.longest {self.prepare.longest} is more than the {positions} positions of the bert: set "
                f"it to at most {positions}"
            )
        return self
