"""Image classification with residual networks, or with a small one that learns quickly."""

from components.classification import loss
from components.contracts import Task
from components.datasets.splits import Columns
from components.images.embedded import digits
from components.tasks.image_classification import data, evaluate, model, prepare, serve, train
from components.tasks.image_classification.params import VisionParams

TASK = Task[VisionParams, Columns](
    name="image_classification",
    params=VisionParams,
    embedded={"digits": digits.digits, "lesions": data.lesions},
    public_data={"cifar10": data.cifar10},
    survey=prepare.find,
    prepare=prepare.prepare,
    load_split=prepare.load_split,
    build_model=model.build_model,
    initialise=model.initialise,
    train_batches=train.batches,
    augment=train.augment,
    step=train.step,
    better=loss.BETTER,
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
