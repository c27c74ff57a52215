"""What a flow run was started with. Its later attempts use it again, whatever params.yaml says by then."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components import models, params, tasks
from components.errors import PedigreeError, first_line
from components.models import Model
from components.params import Values, flat
from components.trust import imports

SHOWN = 5
"""Most changed parameters that a line names."""


class Start(BaseModel):
    """A model with its parameters, as they were at the first attempt of a flow run."""

    model_config = ConfigDict(frozen=True)

    model: str = Field(description="Name of the model")
    task: str = Field(description="Name of its task")
    data: str = Field(description="Name of its data set")
    params: dict[str, Any] = Field(description="All its parameters")
    label: str = Field(description="Name of its MLflow run")
    training_code: str = Field(description="Hash of the training code")
    raw: str = Field(default="", description="Hash of the raw data that it prepared; empty until then")

    @classmethod
    def of(cls, model: Model, label: str) -> Self:
        """Return the start of a flow run of this model."""
        return cls(
            model=model.name,
            task=model.task.name,
            data=model.data,
            params=model.params.model_dump(by_alias=True, mode="json"),
            label=label,
            training_code=imports.of_training(model.task).sha256,
        )

    def load(self, root: Path) -> Model:
        """Return the model with the parameters of the start.

        Raises:
            PedigreeError: the code has changed since and has no such task or parameters.
        """
        task = tasks.load(self.task)
        try:
            return Model(self.model, task, task.params.model_validate(self.params), self.data, root)
        except ValidationError as error:
            details = error.errors()[0]
            name = ".".join(map(str, details["loc"]))
            raise PedigreeError(
                f"the code was changed after this flow run of {self.model} was started, and no longer accepts its "
                f"parameters ({name}: {details['msg']}): start a new flow run"
            ) from None

    def changes(self, root: Path, given: Mapping[str, Any]) -> list[str]:
        """Return a sentence for each way in which a new flow run, given the same parameters, would differ."""
        sentences = []
        if differences := self._differences(root, given):
            more = f" and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
            sentences.append(
                f"{self.model} keeps the parameters that this flow run was started with, although {params.FILE} "
                f"now differs: {', '.join(differences[:SHOWN])}{more}"
            )
        if self.training_code != imports.of_training(tasks.load(self.task)).sha256:
            sentences.append(
                f"the training code of {self.model} was changed after this flow run was started: it uses the code "
                "as it is now, and does not resume a training of the earlier code"
            )
        return sentences

    def _differences(self, root: Path, given: Mapping[str, Any]) -> list[str]:
        try:
            now = models.load(root, self.model)
        except PedigreeError as error:
            return [first_line(error)]
        if now.task.name != self.task:
            return [f"task was {self.task}, is {now.task.name}"]
        usual = now.params.model_dump(by_alias=True, mode="json")
        before = flat({"data": self.data, **self.params})
        after = flat({"data": now.data, **Values(dict(given), {}).over(Values(usual, {})).tree})
        keys = [key for key in before | after if before.get(key) != after.get(key)]
        return [f"{key} was {before.get(key, 'not set')}, is {after.get(key, 'not set')}" for key in keys]
