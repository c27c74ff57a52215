"""Few-shot classification: new classes from a few images each, with a prototypical network."""

from components.contracts import Task
from components.images.embedded import glyphs
from components.tasks.few_shot import evaluate, model, prepare, serve, teach, train
from components.tasks.few_shot.episodes import Pictures
from components.tasks.few_shot.params import FewShotParams

TASK = Task[FewShotParams, Pictures](
    name="few_shot",
    params=FewShotParams,
    embedded={"glyphs": glyphs.glyphs},
    public_data={},
    survey=prepare.find,
    prepare=prepare.prepare,
    load_split=prepare.load_split,
    build_model=model.build_model,
    initialise=model.initialise,
    train_batches=train.batches,
    eval_batches=train.eval_batches,
    augment=train.augment,
    step=train.step,
    better=train.BETTER,
    predict=train.predict,
    calibrate=train.calibrate,
    outcomes=evaluate.outcomes,
    score=evaluate.score,
    further_scores=evaluate.further_scores,
    evaluate=evaluate.evaluate,
    served=serve.served,
    load_predict=serve.load_predict,
    rows=serve.rows,
    row_params=serve.ROW_PARAMS,
    outcomes_from=evaluate.outcomes_from,
    teach=teach.taught,
    unit="queries",
)
