"""Classification of texts, or of pairs of texts, with convolutions, an LSTM, a Transformer or a BERT."""

from components.classification import loss
from components.contracts import Task
from components.datasets.splits import Columns
from components.tasks.text_classification import data, evaluate, model, prepare, serve, texts, train
from components.tasks.text_classification.params import TextParams

TASK = Task[TextParams, Columns](
    name="text_classification",
    params=TextParams,
    embedded={"topics": data.topics},
    public_data={},
    survey=texts.survey,
    prepare=prepare.prepare,
    load_split=prepare.load_split,
    build_model=model.build_model,
    initialise=model.initialise,
    train_batches=train.batches,
    step=train.step,
    better=loss.BETTER,
    unit="texts",
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
