"""Translation of texts from one language into another, with an encoder-decoder and beam search."""

from components.contracts import Task
from components.datasets.splits import Columns
from components.tasks.translation import data, evaluate, model, pairs, prepare, serve, train
from components.tasks.translation.params import TranslationParams

TASK = Task[TranslationParams, Columns](
    name="translation",
    params=TranslationParams,
    embedded={"interface-fr": data.interface_fr},
    public_data={},
    survey=pairs.survey,
    prepare=prepare.prepare,
    load_split=prepare.load_split,
    build_model=model.build_model,
    step=train.step,
    better=train.BETTER,
    metrics=train.metrics,
    unit="tokens",
    predict=train.predict,
    outcomes=evaluate.outcomes,
    score=evaluate.score,
    further_scores=evaluate.further_scores,
    evaluate=evaluate.evaluate,
    tags=evaluate.tags,
    served=serve.served,
    load_predict=serve.load_predict,
    rows=serve.rows,
    outcomes_from=evaluate.outcomes_from,
)
