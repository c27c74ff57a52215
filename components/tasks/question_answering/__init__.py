"""Answers to questions as pieces of a given context, found by LSTMs with attention or by a BERT."""

from components.contracts import Task
from components.datasets.splits import Columns
from components.tasks.question_answering import data, evaluate, model, prepare, questions, serve, train
from components.tasks.question_answering.params import QuestionParams

TASK = Task[QuestionParams, Columns](
    name="question_answering",
    params=QuestionParams,
    embedded={"docstring-qa": data.docstring_qa},
    public_data={},
    survey=questions.survey,
    prepare=prepare.prepare,
    load_split=prepare.load_split,
    build_model=model.build_model,
    initialise=model.initialise,
    step=train.step,
    better=train.BETTER,
    unit="windows",
    predict=train.predict,
    calibrate=train.calibrate,
    outcomes=evaluate.outcomes,
    score=evaluate.score,
    further_scores=evaluate.further_scores,
    evaluate=evaluate.evaluate,
    served=serve.served,
    load_predict=serve.load_predict,
    rows=serve.rows,
    outcomes_from=evaluate.outcomes_from,
)
