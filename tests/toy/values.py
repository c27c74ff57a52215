"""Parameters of the toy tasks `spots` and `tones`, and the tasks themselves as modules of `components.tasks`."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from components import tasks

FOLDER = Path(__file__).parent
NAMES = ("spots", "tones")

_SHARED: dict[str, Any] = {
    "prepare": {"val_share": 0.1, "test_share": 0.2, "resplit": 0},
    "train": {
        "seed": 0,
        "workers": 0,
        "epochs": 20,
        "batch_size": 12,
        "accumulate": 1,
        "precision": "fp32",
        "compile": False,
        "optimizer": {"name": "adamw", "lr": 0.05, "momentum": 0.9, "weight_decay": 0},
        "schedule": {"name": "constant", "warmup": 0},
        "clip_norm": 0,
        "average": {"name": "none", "decay": 0, "start": 0},
        "init": {"from": "random", "freeze": 0, "layer_decay": 1},
        "validation": {"every": 4, "samples": 0},
        "best_metric": "loss",
        "patience": 0,
        "checkpoint_seconds": 20,
        "retries": 0,
    },
    "evaluate": {"workers": 0, "batch_size": 4, "seed": 0},
    "register": {
        "gate": {
            "level": 0.95,
            "at_least": {},
            "at_most": {},
            "margins": {},
            "pinned": False,
            "megabytes": 1,
            "milliseconds": 1000,
        },
    },
}


def values(**train: Any) -> dict[str, Any]:
    """Return a model's sections, with changes to the training."""
    changed = deepcopy(_SHARED)
    changed["train"] |= train
    return changed


def importable() -> None:
    """Let `components.tasks.spots` and `components.tasks.tones` be imported from this folder."""
    if str(FOLDER) not in tasks.__path__:
        tasks.__path__.append(str(FOLDER))
