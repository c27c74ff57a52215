"""Object detection: boxes with classes in images, by an anchor-free network."""

from components.contracts import Task
from components.datasets.splits import Columns
from components.tasks.object_detection import data, evaluate, model, prepare, serve, train
from components.tasks.object_detection.params import DetectionParams

TASK = Task[DetectionParams, Columns](
    name="object_detection",
    params=DetectionParams,
    embedded={"scenes": data.scenes},
    public_data={},
    survey=prepare.survey,
    prepare=prepare.prepare,
    load_split=prepare.load_split,
    build_model=model.build_model,
    initialise=model.initialise,
    eval_batches=train.eval_batches,
    augment=train.augment,
    step=train.step,
    better=train.BETTER,
    metrics=train.metrics,
    predict=train.predict,
    calibrate=train.calibrate,
    outcomes=evaluate.outcomes,
    score=evaluate.score,
    further_scores=evaluate.further_scores,
    evaluate=evaluate.evaluate,
    served=serve.served,
    load_predict=serve.load_predict,
    rows=serve.rows,
    row_params=serve.ALL,
    outcomes_from=evaluate.outcomes_from,
    draw=serve.draw,
    unit="boxes",
)
