"""Speech synthesis: a voice that learns from recordings and their texts."""

from components.contracts import Task
from components.datasets.splits import Columns
from components.tasks.speech_synthesis import data, evaluate, model, prepare, serve, train
from components.tasks.speech_synthesis.params import SynthesisParams

TASK = Task[SynthesisParams, Columns](
    name="speech_synthesis",
    params=SynthesisParams,
    embedded={"voice": data.voice},
    public_data={},
    survey=prepare.survey,
    prepare=prepare.prepare,
    load_split=prepare.load_split,
    build_model=model.build_model,
    step=train.step,
    better=train.BETTER,
    unit="frames",
    predict=train.predict,
    outcomes=evaluate.outcomes,
    score=evaluate.score,
    further_scores=evaluate.further_scores,
    evaluate=evaluate.evaluate,
    further_metrics=evaluate.further_metrics,
    served=serve.served,
    load_predict=serve.load_predict,
    rows=serve.rows,
    outcomes_from=evaluate.outcomes_from,
)
