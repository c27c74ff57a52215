"""Parameters of speech to text."""

from typing import Literal, Self

from pydantic import Field, model_validator

from components.params import EvaluateParams, Section, Source, TaskParams, TrainParams
from components.sound.params import FeatureParams, RecordingsPrepareParams
from components.text.params import TokenizerParams


class TokensParams(Section):
    """What the network writes."""

    name: Literal["char", "bpe"] = Field(description="char: characters; bpe: byte pairs, learnt from training")
    vocabulary: int = Field(ge=256, le=2**16, description="Maximum number of byte pairs; char has all characters")

    @property
    def learnt(self) -> TokenizerParams:
        """The parameters of the tokenizer."""
        return TokenizerParams(name=self.name, vocabulary=self.vocabulary, min_count=1)


class NgramParams(Section):
    """The language model of words that beam search weighs texts with."""

    order: int = Field(
        ge=0, le=5, description="Longest run of words that is counted in the training transcripts; 0 has no model"
    )
    from_: Source = Field(
        alias="from", description="A file in the ARPA format to use in place of counting; empty counts"
    )

    @model_validator(mode="after")
    def _file_has_an_order(self) -> Self:
        if self.from_ and not self.order:
            raise ValueError("from names a model and order is 0, which uses none: set order to the file's")
        return self


class RecognitionPrepareParams(RecordingsPrepareParams):
    """How recordings and transcripts become arrays."""

    tokens: TokensParams
    ngrams: NgramParams
    features: FeatureParams


class ModelParams(Section):
    """The network after the two convolutions that make one frame of four."""

    network: Literal["lstm", "conformer"] = Field(
        description="lstm reads in both directions; conformer is torchaudio's; heads and inner are the conformer's"
    )
    size: int = Field(ge=2, le=4096, multiple_of=2, description="Features of a frame")
    layers: int = Field(ge=1, le=64, description="Layers of the LSTM or the Conformer")
    heads: int = Field(ge=1, le=256, description="Heads of attention, which divide size")
    inner: int = Field(ge=1, le=65536, description="Size of the inner layer of the feed-forward networks")
    batch_norm: bool = Field(description="Normalise after each convolution")
    dropout: float = Field(ge=0, lt=1, description="Rate between layers")

    @model_validator(mode="after")
    def _heads_divide_the_size(self) -> Self:
        if self.network == "conformer" and self.size % self.heads:
            raise ValueError(f"size {self.size} cannot be divided among {self.heads} heads: make it a multiple")
        return self


class AugmentParams(Section):
    """Random changes of training recordings, on the training device; of cepstra, only the tempo and the masks."""

    speed: float = Field(
        ge=0,
        lt=0.9,
        description="Largest change of speed, and so of pitch: 0.1 is 90 to 110 %; of cepstra, of the tempo alone",
    )
    snr: float | None = Field(
        ge=-20, le=60, description="Lowest signal-to-noise ratio in dB of the noise added; null adds none"
    )
    frequency_mask: int = Field(ge=0, le=128, description="Maximum mel bands under each of SpecAugment's two masks")
    time_mask: int = Field(ge=0, le=1000, description="Maximum frames under each of SpecAugment's two masks")


class RecognitionTrainParams(TrainParams):
    """The shared training parameters, and the network, augmentation and the search's language model."""

    model: ModelParams
    augment: AugmentParams
    language_model: Source = Field(
        description="A registered language model of characters that beam search weighs texts with in place of "
        "n-grams, such as models:/NAME@champion; empty has none"
    )


class SearchParams(Section):
    """How texts are found in what the network says of each frame."""

    beam: int = Field(
        ge=1,
        le=1000,
        description="Beginnings of texts that are followed; 1 takes the likeliest path of tokens, without n-grams",
    )
    weight: float = Field(
        ge=0, le=100, description="Weight of the log-probability of the n-grams or the language model"
    )
    word_score: float = Field(
        ge=-100, le=100, description="Added for each word, in nats, where a language model is weighed"
    )


class RecognitionEvaluateParams(EvaluateParams):
    """Evaluation, and the search that a registered version answers with."""

    search: SearchParams


class RecognitionParams(TaskParams):
    """The parameters of a model of speech_to_text in params.yaml."""

    prepare: RecognitionPrepareParams
    train: RecognitionTrainParams
    evaluate: RecognitionEvaluateParams

    @model_validator(mode="after")
    def _characters_are_weighed_by_characters(self) -> Self:
        if self.train.language_model and self.prepare.tokens.name != "char":
            raise ValueError(
                f"train.language_model weighs characters and prepare.tokens.name is {self.prepare.tokens.name}: "
                "set it to char, or language_model to ''"
            )
        return self
