"""The tests mirror the project's folders. What stands here holds before anything of it, or torch, is imported."""

import os

# Nothing that the tests start may reach a store or server of the person who runs them.
for variable in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "RAY_ADDRESS", "RAY_worker_niceness", "PREFECT_PROFILE"):
    os.environ.pop(variable, None)
for server in ("PREFECT", "MLFLOW", "SERVE"):
    os.environ.pop(f"PEDIGREE_{server}_PORT", None)

# Two threads for matrices this small wait for each other more than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")
