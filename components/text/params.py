"""Parameters of text preparation and of language models' dropout."""

from typing import Literal, Self

from pydantic import Field, model_validator

from components.params import PrepareParams, Section

Cell = Literal["lstm", "gru", "rnn"]


class TokenizerParams(Section):
    """How text becomes tokens."""

    name: Literal["char", "word", "bpe"] = Field(
        description="char: characters; word: words and punctuation marks; bpe: learnt byte pairs, lossless"
    )
    vocabulary: int = Field(ge=2, le=2**20, description="Maximum number of tokens of word and bpe; char has all")
    min_count: int = Field(ge=1, description="Words and characters that are rarer in training become <unk>")

    @model_validator(mode="after")
    def _bytes_have_tokens(self) -> Self:
        if self.name == "bpe" and self.vocabulary < 256:
            raise ValueError(
                f"bpe has a token for each of the 256 bytes: vocabulary {self.vocabulary} is too small"
            )
        return self


class TextPrepareParams(PrepareParams):
    """How text files are divided into splits."""

    test_share: float = Field(
        ge=0,
        lt=1,
        description="Share for testing if there is no test.txt, or if it is split anew; 0 tests on validation data",
    )

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> Self:
        if self.val_share + self.test_share >= 1:
            raise ValueError(
                f"val_share {self.val_share} and test_share {self.test_share} leave nothing to train on"
            )
        return self


class DropoutParams(Section):
    """The dropout rates of AWD-LSTM (Merity et al. 2018, arXiv:1708.02182)."""

    embedding: float = Field(ge=0, lt=1, description="Rate for entire words of the vocabulary, fixed in a window")
    input: float = Field(ge=0, lt=1, description="Rate for the embedded input, the same at every position")
    hidden: float = Field(ge=0, lt=1, description="Rate between layers, the same at every position")
    output: float = Field(ge=0, lt=1, description="Rate for the last layer's output, the same at every position")
    weight: float = Field(ge=0, lt=1, description="Rate for hidden-to-hidden weights, fixed in a window")
