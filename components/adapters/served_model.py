"""The model as MLflow loads it ("models from code"): no pickle, just this file, `components` and the weights."""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from components import tasks
from components.errors import PedigreeError
from components.training import saved


class ServedModel(PythonModel):
    """Answers for whichever task the saved network was trained on."""

    def load_context(self, context: PythonModelContext) -> None:
        """Rebuild the network from its files."""
        folder = Path(context.artifacts["model"])
        described = saved.load_saved(folder)
        task = tasks.load(described.task)
        self._predict = task.load_predict(saved.rebuild(task, folder), described.manifest)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return one row of answers for each row of inputs."""
        rows = model_input.to_dict("records")
        try:
            answers = self._predict([{str(k): v for k, v in row.items()} for row in rows], params or {})
        except PedigreeError as error:  # as MLflow's own, its sentence is what the caller of the server reads
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return pd.DataFrame(answers)


mlflow.models.set_model(ServedModel())
