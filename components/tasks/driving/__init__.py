"""Driving: a policy that imitates an expert's drives and is evaluated in closed loop."""

from components.contracts import Task
from components.datasets.splits import Columns
from components.tasks.driving import data, evaluate, model, prepare, serve, train
from components.tasks.driving.params import DrivingParams

TASK = Task[DrivingParams, Columns](
    name="driving",
    params=DrivingParams,
    embedded={"highway": data.highway},
    public_data={},
    survey=prepare.survey,
    prepare=prepare.prepare,
    load_split=prepare.load_split,
    build_model=model.build_model,
    step=train.step,
    better=train.BETTER,
    predict=train.predict,
    outcomes=evaluate.outcomes,
    score=evaluate.score,
    further_scores=evaluate.further_scores,
    evaluate=evaluate.evaluate,
    served=serve.served,
    load_predict=serve.load_predict,
    draw=serve.draw,
)
