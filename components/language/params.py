"""What a user turns in language modelling."""

from typing import Literal, Self

from pydantic import Field, model_validator

from components.params import PrepareParams, Section, TaskParams, TrainParams


class TokenizerParams(Section):
    """How text becomes tokens."""

    name: Literal["char", "word", "bpe"] = Field(
        description="char: each character; word: between spaces; bpe: learnt pieces of bytes, lossless"
    )
    vocabulary: int = Field(ge=2, le=2**20, description="Most tokens that word and bpe may have; char has all")
    min_count: int = Field(ge=1, description="Words and characters that are rarer in training become <unk>")

    @model_validator(mode="after")
    def _bytes_have_tokens(self) -> Self:
        if self.name == "bpe" and self.vocabulary < 256:
            raise ValueError(
                f"bpe has a token for each of the 256 bytes: vocabulary {self.vocabulary} is too small"
            )
        return self


class LanguagePrepareParams(PrepareParams):
    """How text files become token ids."""

    test_share: float = Field(
        ge=0, lt=1, description="Part at the end taken for testing where the data has none; 0 tests on validation's"
    )
    tokenizer: TokenizerParams

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> Self:
        if self.val_share + self.test_share >= 1:
            raise ValueError(
                f"val_share {self.val_share} and test_share {self.test_share} leave nothing to train on"
            )
        return self


class ModelParams(Section):
    """Embedding, recurrent layers, vocabulary."""

    cell: Literal["lstm", "gru", "rnn"] = Field(description="rnn is the plain unit of textbooks, slow: for study")
    embedding: int = Field(ge=1, le=65536, description="Size of a token's vector")
    hidden: int = Field(ge=1, le=65536, description="Size of a layer's state")
    layers: int = Field(ge=1, le=64, description="Recurrent layers")
    tie: bool = Field(description="Output weights are the embedding's; the last layer then has its size")
    orthogonal: bool = Field(description="Start from orthogonal hidden-to-hidden matrices, gate by gate")
    forget_bias: float = Field(
        ge=-100, le=100, description="First bias of the LSTM's forget gate; 1 keeps what is there"
    )


class DropoutParams(Section):
    """Shares of what training leaves out, as AWD-LSTM does (Merity et al. 2018, arXiv:1708.02182)."""

    embedding: float = Field(ge=0, lt=1, description="Of the vocabulary: whole words, for a window")
    input: float = Field(ge=0, lt=1, description="Of the embedded input, the same at every position")
    hidden: float = Field(ge=0, lt=1, description="Between layers, the same at every position")
    output: float = Field(ge=0, lt=1, description="Of the last layer's output, the same at every position")
    weight: float = Field(ge=0, lt=1, description="Of the hidden-to-hidden weights, for a window (DropConnect)")


class LanguageTrainParams(TrainParams):
    """The shared training parameters, and language's network, windows and dropout."""

    window: int = Field(ge=1, le=65536, description="Tokens that the gradient goes back through; the state goes on")
    random_window: bool = Field(description="Draw each window's length round that, as AWD-LSTM does")
    model: ModelParams
    dropout: DropoutParams


class LanguageParams(TaskParams):
    """tasks.language in params.yaml."""

    prepare: LanguagePrepareParams
    train: LanguageTrainParams
