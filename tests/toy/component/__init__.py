"""A straight line through points: the smallest task there can be."""

from components.tasks.toy import task
from components.tasks.toy.params import ToyParams

from components.contracts import Task
from components.datasets.splits import Columns

TASK = Task[ToyParams, Columns](
    name="toy",
    params=ToyParams,
    embedded={"points": task.embedded},
    public_data={},
    prepare=task.prepare,
    load_split=task.load_split,
    build_model=task.build_model,
    step=task.step,
    better={"loss": "less"},
    predict=task.predict,
    outcomes=task.outcomes,
    score=task.score,
    evaluate=task.evaluate,
    served=task.served,
    load_predict=task.load_predict,
)
