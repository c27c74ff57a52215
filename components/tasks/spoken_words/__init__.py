"""Recognition of spoken words with a CNN-LSTM."""

from components.classification import loss
from components.contracts import Task
from components.datasets.splits import Columns
from components.tasks.spoken_words import data, evaluate, model, prepare, serve, train, words
from components.tasks.spoken_words.params import SpeechParams

TASK = Task[SpeechParams, Columns](
    name="spoken_words",
    params=SpeechParams,
    embedded={"words": data.espeak},
    public_data={"speech_commands": data.speech_commands},
    survey=words.survey,
    prepare=prepare.prepare,
    load_split=prepare.load_split,
    build_model=model.build_model,
    augment=train.augment,
    step=train.step,
    better=loss.BETTER,
    predict=train.predict,
    outcomes=evaluate.outcomes,
    score=evaluate.score,
    evaluate=evaluate.evaluate,
    served=serve.served,
    load_predict=serve.load_predict,
    rows=serve.rows,
    outcomes_from=evaluate.outcomes_from,
)
