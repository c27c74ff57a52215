"""Segmentation: the class of each pixel of an image, with a U-Net."""

from components.contracts import Task
from components.datasets.splits import Columns
from components.tasks.segmentation import data, evaluate, model, prepare, serve, train
from components.tasks.segmentation.params import SegmentationParams

TASK = Task[SegmentationParams, Columns](
    name="segmentation",
    params=SegmentationParams,
    embedded={"scenes": data.scenes},
    public_data={},
    survey=prepare.survey,
    prepare=prepare.prepare,
    load_split=prepare.load_split,
    build_model=model.build_model,
    initialise=model.initialise,
    augment=train.augment,
    step=train.step,
    better=train.BETTER,
    metrics=train.metrics,
    predict=train.predict,
    outcomes=evaluate.outcomes,
    score=evaluate.score,
    further_scores=evaluate.further_scores,
    evaluate=evaluate.evaluate,
    served=serve.served,
    load_predict=serve.load_predict,
    rows=serve.rows,
    outcomes_from=evaluate.outcomes_from,
    draw=serve.draw,
    unit="pixels",
)
