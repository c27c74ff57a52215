"""The task's usual parameters, and others made from them."""

from components.params import Values, assignment, validate
from components.speech.params import SpeechParams

USUAL = Values(
    {
        "tasks": {
            "speech": {
                "prepare": {
                    "seed": 0,
                    "val_share": 0.1,
                    "max_refused": 0.05,
                    "test_share": 0.2,
                    "rate": 16000,
                    "seconds": 1.0,
                    "max_seconds": 30,
                    "max_clipped": 0.1,
                    "speaker": r"^(?P<speaker>.+?)(_nohash)?_\d+$",
                },
                "train": {
                    "seed": 0,
                    "workers": 1,
                    "epochs": 8,
                    "batch_size": 64,
                    "accumulate": 1,
                    "precision": "bf16",
                    "optimizer": {"name": "adamw", "lr": 3.0e-3, "momentum": 0.9, "weight_decay": 0.05},
                    "schedule": {"name": "one_cycle", "warmup": 0.25},
                    "clip_norm": 1.0,
                    "label_smoothing": 0.1,
                    "average": {"name": "ema", "decay": 0.99, "start": 0},
                    "best_metric": "accuracy",
                    "best_mode": "max",
                    "patience": 0,
                    "features": {"mels": 40, "window": 0.025, "hop": 0.01},
                    "model": {
                        "batch_norm": True,
                        "hidden": 128,
                        "layers": 1,
                        "pool": "attention",
                        "dropout": 0.2,
                    },
                    "augment": {"shift": 0.1, "speed": 0.1, "snr": 10, "frequency_mask": 8, "time_mask": 20},
                },
                "evaluate": {"workers": 0, "batch_size": 256, "bootstrap": 2000, "seed": 0},
                "register": {"name": "speech"},
            }
        }
    },
    {},
)


def parameters(*settings: str) -> SpeechParams:
    """Return the usual parameters with settings like `train.epochs=3` laid over them."""
    values = USUAL
    for setting in settings:
        values = assignment(setting, ("tasks", "speech")).over(values)
    return validate(SpeechParams, values, ("tasks", "speech"))
