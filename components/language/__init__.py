"""Recurrent language models."""

from components.contracts import Task
from components.language import data, evaluate, model, prepare, register, train
from components.language.params import LanguageParams

TASK = Task(
    name="language",
    params=LanguageParams,
    default_data=data.docstrings,
    public_data={"wikitext2": data.wikitext2},
    prepare=prepare.prepare,
    build_model=model.build_model,
    initialise=model.initialise,
    load_split=prepare.load_split,
    train_batches=train.windows,
    eval_batches=train.segments,
    augment=train.augment,
    step=train.step,
    metrics=train.metrics,
    predict=train.predict,
    evaluate=evaluate.evaluate,
    outcomes=evaluate.outcomes,
    scale=evaluate.perplexity,
    readable=frozenset({"tokenizer"}),
    score="perplexity",
    better="less",
    served=register.served,
    load_predict=register.load_predict,
)
