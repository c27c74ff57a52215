"""What a person reads while a model trains."""

import pytest

from components.tasks import image_classification, language_model
from components.training import progress
from components.training.meter import Speed

UNITS = {image_classification: "samples", language_model: "tokens"}


@pytest.mark.parametrize("task", UNITS)
def test_speed_has_the_unit_of_the_task_in_metrics_and_lines(task):
    unit = task.TASK.unit
    assert unit == UNITS[task]
    speed = Speed(unit, flops_each=2.0, peak=10_000.0).of(5000, 2.0)
    assert speed == {f"speed/{unit}_per_second": 2500, "speed/share_of_peak": 0.5}
    validated = {"epochs": 8, "metrics": {"epoch": 3, "train/loss": 0.61, "val/loss": 0.41, **speed}}
    assert progress.validation_line(validated, unit) == (
        f"epoch 3/8  train/loss 0.6100  val/loss 0.4100  2,500 {unit}/s"
    )
    kept = {"epochs": 0, "metrics": {"epoch": 0.0, "val/loss": 0.41}}
    assert progress.validation_line(kept, unit) == "epoch 0/0  val/loss 0.4100", "no speed without an update"
    within = {"epoch": 3, "epochs": 8, "loss": 0.5, "per_second": 2500.0, "seconds_left": 61.0}
    assert progress.progress_line(within, unit) == f"epoch 3/8  loss 0.5000  2,500 {unit}/s  00:01:01 left"
