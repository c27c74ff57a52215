"""Parameters of language modelling."""

from pydantic import Field

from components.params import LabelSmoothing, TaskParams, TrainParams
from components.text.params import DropoutParams, RecurrentParams, TextPrepareParams, TokenizerParams


class LanguagePrepareParams(TextPrepareParams):
    """How text files become token ids."""

    tokenizer: TokenizerParams


class LanguageTrainParams(TrainParams):
    """The shared training parameters, and language's network, windows and dropout."""

    label_smoothing: LabelSmoothing
    window: int = Field(ge=1, le=65536, description="Tokens per step of back-propagation; the state carries over")
    random_window: bool = Field(description="Draw each window's length around this length, as AWD-LSTM does")
    model: RecurrentParams
    dropout: DropoutParams


class LanguageParams(TaskParams):
    """The parameters of a model of language_model in params.yaml."""

    prepare: LanguagePrepareParams
    train: LanguageTrainParams
