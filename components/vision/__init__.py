"""Image classification with residual networks, or with a small one that learns quickly."""

from components.batches import in_order
from components.contracts import Task
from components.vision import data, evaluate, model, prepare, register, train
from components.vision.params import VisionParams

TASK = Task(
    name="vision",
    params=VisionParams,
    default_data=data.digits,
    public_data={"cifar10": data.cifar10},
    prepare=prepare.prepare,
    build_model=model.build_model,
    initialise=model.initialise,
    load_split=prepare.load_split,
    train_batches=train.batches,
    eval_batches=in_order,
    augment=train.augment,
    step=train.step,
    metrics=train.metrics,
    predict=train.predict,
    evaluate=evaluate.evaluate,
    outcomes=evaluate.outcomes,
    scale=float,
    readable=frozenset({"classes", "size", "channels"}),
    score="accuracy",
    better="more",
    served=register.served,
    load_predict=register.load_predict,
)
