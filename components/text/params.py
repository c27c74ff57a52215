"""Parameters of text preparation and of language models' dropout."""

from typing import Literal, Self

from pydantic import Field, model_validator

from components.params import PrepareParams, Section, Source

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


class RecurrentParams(Section):
    """The network of a language model: embedding, recurrent layers, vocabulary."""

    cell: Cell = Field(description="rnn is the plain unit of textbooks; it is slow")
    embedding: int = Field(ge=1, le=65536, description="Size of a token's vector")
    hidden: int = Field(ge=1, le=65536, description="Size of a layer's state")
    layers: int = Field(ge=1, le=64, description="Recurrent layers")
    tie: bool = Field(description="Share the embedding's weights with the output; the last layer then has its size")
    orthogonal: bool = Field(description="Initialise each gate's hidden-to-hidden matrix as orthogonal")
    forget_bias: float = Field(
        ge=-100, le=100, description="Initial bias of the LSTM's forget gate; 1 favours remembering"
    )


class SampleTokenizerParams(Section):
    """How texts that are samples become tokens."""

    name: Literal["word", "bpe", "wordpiece"] = Field(
        description="word: words and punctuation marks; bpe: learnt byte pairs, lossless; wordpiece: the tokenizer "
        "of a BERT, read from a file"
    )
    vocabulary: int = Field(ge=2, le=2**20, description="Maximum number of tokens of word and bpe")
    min_count: int = Field(ge=1, description="Words that are rarer in training become <unk>")
    lowercase: bool = Field(description="Whether word and bpe read all letters as small ones")
    from_: Source = Field(
        alias="from", description="The tokenizer.json or vocab.txt of wordpiece; empty for the other names"
    )

    @model_validator(mode="after")
    def _has_what_its_name_needs(self) -> Self:
        if self.name == "wordpiece" and not self.from_:
            raise ValueError("wordpiece is read from a file: name a tokenizer.json or vocab.txt in `from`")
        if self.name != "wordpiece" and self.from_:
            raise ValueError(f"{self.name} is learnt from the training texts: set from to '', or name to wordpiece")
        if self.name != "wordpiece":
            self.learnt  # noqa: B018 (its own rules hold, too)
        return self

    @property
    def learnt(self) -> TokenizerParams:
        """The parameters of a tokenizer that is learnt."""
        assert self.name != "wordpiece", "its file has all"
        return TokenizerParams(name=self.name, vocabulary=self.vocabulary, min_count=self.min_count)


class BertParams(Section):
    """The size of a BERT, as in its config.json (Devlin et al. 2019, arXiv:1810.04805)."""

    layers: int = Field(ge=1, le=64, description="num_hidden_layers")
    hidden: int = Field(ge=1, le=65536, description="hidden_size: size of a token's vector")
    heads: int = Field(ge=1, le=1024, description="num_attention_heads")
    intermediate: int = Field(ge=1, le=2**20, description="intermediate_size: size inside a feed-forward layer")
    positions: int = Field(ge=2, le=2**16, description="max_position_embeddings: most tokens of a sample")

    @model_validator(mode="after")
    def _heads_divide_the_vectors(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} cannot be divided among {self.heads} heads")
        return self
