"""What adding a task takes, as anybody would do it: a folder, a section of params.yaml, raw data."""

import shutil
from pathlib import Path

SECTION = """
  line:
    task: toy
    data: points
    prepare: {val_share: 0.1, test_share: 0.2, resplit: 0}
    train:
      seed: 0
      workers: 0
      epochs: 30
      batch_size: 8
      accumulate: 1
      precision: fp32
      compile: false
      optimizer: {name: sgd, lr: 0.1, momentum: 0.9, weight_decay: 0}
      schedule: {name: constant, warmup: 0}
      clip_norm: 0
      average: {name: none, decay: 0, start: 0}
      init: {from: random, freeze: 0, layer_decay: 1.0}
      validation: {every: 0, samples: 0}
      best_metric: loss
      patience: 0
      checkpoint_seconds: 20
      retries: 0
    evaluate: {workers: 0, batch_size: 4, seed: 0}
    register:
      gate: {at_least: {}, at_most: {}, level: 0.95, margins: {}, pinned: false, megabytes: 1, milliseconds: 1000}
"""


def add(project: Path) -> None:
    """Add the toy task, and a model of it called `line`, to a project whose params.yaml ends with its models."""
    shutil.copytree(Path(__file__).parent / "component", project / "components" / "tasks" / "toy")
    with (project / "params.yaml").open("a") as file:
        file.write(SECTION)
    raw = project / "data" / "points"
    raw.mkdir()
    (raw / "points.csv").write_text("".join(f"{x / 20},{3 * x / 20 - 1}\n" for x in range(40)))
