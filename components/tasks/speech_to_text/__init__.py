"""Speech to text: the words of recordings, with connectionist temporal classification."""

from components.contracts import Task
from components.datasets.splits import Columns
from components.tasks.speech_to_text import data, evaluate, model, prepare, serve, train
from components.tasks.speech_to_text.params import RecognitionParams

TASK = Task[RecognitionParams, Columns](
    name="speech_to_text",
    params=RecognitionParams,
    embedded={"commands": data.commands},
    public_data={},
    survey=prepare.survey,
    prepare=prepare.prepare,
    load_split=prepare.load_split,
    build_model=model.build_model,
    attach=model.attach,
    augment=train.augment,
    step=train.step,
    better=train.BETTER,
    unit="tokens",
    predict=train.predict,
    outcomes=evaluate.outcomes,
    score=evaluate.score,
    further_scores=evaluate.further_scores,
    evaluate=evaluate.evaluate,
    served=serve.served,
    load_predict=serve.load_predict,
    rows=serve.rows,
    outcomes_from=evaluate.outcomes_from,
)
