"""Recurrent language models."""

from components.contracts import Task
from components.datasets.splits import Columns
from components.tasks.language_model import data, evaluate, model, prepare, serve, train
from components.tasks.language_model.params import LanguageParams
from components.text import corpus

TASK = Task[LanguageParams, Columns](
    name="language_model",
    params=LanguageParams,
    embedded={"docstrings": data.docstrings},
    public_data={"wikitext2": data.wikitext2},
    survey=corpus.survey,
    prepare=prepare.prepare,
    load_split=prepare.load_split,
    build_model=model.build_model,
    train_batches=train.windows,
    eval_batches=train.segments,
    subset=train.beginning,
    step=train.step,
    better=train.BETTER,
    metrics=train.metrics,
    unit="tokens",
    predict=train.predict,
    outcomes=evaluate.outcomes,
    score=evaluate.score,
    evaluate=evaluate.evaluate,
    served=serve.served,
    load_predict=serve.load_predict,
    rows=serve.rows,
    row_params=serve.ROW_PARAMS,
    outcomes_from=evaluate.outcomes_from,
)
