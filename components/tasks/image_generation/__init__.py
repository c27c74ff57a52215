"""Generation of images of a class by rectified flow."""

from components.contracts import Task
from components.datasets.splits import Columns
from components.images.embedded import digits
from components.images.labels import folders
from components.tasks.image_generation import evaluate, model, prepare, serve, train
from components.tasks.image_generation.params import FlowParams

TASK = Task[FlowParams, Columns](
    name="image_generation",
    params=FlowParams,
    embedded={"digits": digits.digits},
    public_data={},
    survey=folders.survey,
    prepare=prepare.prepare,
    load_split=prepare.load_split,
    build_model=model.build_model,
    augment=train.augment,
    step=train.step,
    better=train.BETTER,
    snapshot=train.snapshot,
    predict=train.predict,
    outcomes=evaluate.outcomes,
    score=evaluate.score,
    tags=evaluate.tags,
    evaluate=evaluate.evaluate,
    further_metrics=evaluate.further_metrics,
    served=serve.served,
    load_predict=serve.load_predict,
    rows=serve.rows,
    outcomes_from=evaluate.outcomes_from,
)
