"""A straight line through points: the smallest task there can be."""

from components.toy import evaluate, model, prepare, register, train
from components.toy.params import ToyParams

from components.batches import in_order, shuffled
from components.contracts import Task

TASK = Task(
    name="toy",
    params=ToyParams,
    default_data=prepare.default_data,
    public_data={},
    prepare=prepare.prepare,
    build_model=model.build_model,
    initialise=model.initialise,
    load_split=prepare.load_split,
    train_batches=shuffled,
    eval_batches=in_order,
    augment=train.augment,
    step=train.step,
    metrics=train.metrics,
    predict=train.predict,
    evaluate=evaluate.evaluate,
    outcomes=evaluate.outcomes,
    scale=float,
    readable=frozenset(),
    score="squared_error",
    better="less",
    served=register.served,
    load_predict=register.load_predict,
)
