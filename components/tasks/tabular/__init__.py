"""Classes and quantities predicted from the rows of tables."""

from components.contracts import Task
from components.datasets.splits import Columns
from components.tables import facts
from components.tasks.tabular import data, evaluate, model, prepare, serve, train
from components.tasks.tabular.params import TabularParams

TASK = Task[TabularParams, Columns](
    name="tabular",
    params=TabularParams,
    embedded={"disease": data.disease, "credit": data.credit, "fraud": data.fraud},
    public_data={},
    survey=prepare.survey,
    prepare=prepare.prepare,
    load_split=facts.load_split,
    build_model=model.build_model,
    augment=train.augment,
    step=train.step,
    better=train.BETTER,
    unit="rows",
    predict=train.predict,
    calibrate=train.calibrate,
    outcomes=evaluate.outcomes,
    score=evaluate.score,
    further_scores=evaluate.further_scores,
    baselines=evaluate.baselines,
    evaluate=evaluate.evaluate,
    served=serve.served,
    load_predict=serve.load_predict,
    rows=serve.rows,
    outcomes_from=evaluate.outcomes_from,
)
