"""Where in a series of numbers are its spots? Ragged samples, some of them empty, and a score that is not a mean.

It stands for detection: samples of different sizes, with any number of objects, scored by average precision.
"""

from components.tasks.spots import task
from components.tasks.spots.params import SpotsParams

from components.contracts import Task
from components.datasets.splits import Columns

TASK = Task[SpotsParams, Columns](
    name="spots",
    params=SpotsParams,
    embedded={"spots": task.embedded},
    public_data={},
    prepare=task.prepare,
    load_split=task.load_split,
    build_model=task.build_model,
    step=task.step,
    better={"loss": "less", "f1": "more"},
    metrics=task.metrics,
    predict=task.predict,
    outcomes=task.outcomes,
    score=task.score,
    evaluate=task.evaluate,
    served=task.served,
    load_predict=task.load_predict,
)
