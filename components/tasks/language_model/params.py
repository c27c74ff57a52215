"""Parameters of language modelling."""

from pydantic import Field

from components.params import LabelSmoothing, Section, TaskParams, TrainParams
from components.text.params import Cell, DropoutParams, TextPrepareParams, TokenizerParams


class LanguagePrepareParams(TextPrepareParams):
    """How text files become token ids."""

    tokenizer: TokenizerParams


class ModelParams(Section):
    """Embedding, recurrent layers, vocabulary."""

    cell: Cell = Field(description="rnn is the plain unit of textbooks; it is slow")
    embedding: int = Field(ge=1, le=65536, description="Size of a token's vector")
    hidden: int = Field(ge=1, le=65536, description="Size of a layer's state")
    layers: int = Field(ge=1, le=64, description="Recurrent layers")
    tie: bool = Field(description="Share the embedding's weights with the output; the last layer then has its size")
    orthogonal: bool = Field(description="Initialise each gate's hidden-to-hidden matrix as orthogonal")
    forget_bias: float = Field(
        ge=-100, le=100, description="Initial bias of the LSTM's forget gate; 1 favours remembering"
    )


class LanguageTrainParams(TrainParams):
    """The shared training parameters, and language's network, windows and dropout."""

    label_smoothing: LabelSmoothing
    window: int = Field(ge=1, le=65536, description="Tokens per step of back-propagation; the state carries over")
    random_window: bool = Field(description="Draw each window's length around this length, as AWD-LSTM does")
    model: ModelParams
    dropout: DropoutParams


class LanguageParams(TaskParams):
    """The parameters of a model of language_model in params.yaml."""

    prepare: LanguagePrepareParams
    train: LanguageTrainParams
