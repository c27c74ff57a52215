"""The tests mirror the project's folders. What stands here holds before anything of it, or torch, is imported."""

import os

# Nothing that the tests start may reach a store or server of the person who runs them.
for variable in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "RAY_ADDRESS", "PREFECT_PROFILE"):
    os.environ.pop(variable, None)

# Two threads for matrices this small wait for each other more than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Ray's workers stand back for whatever else runs (nice 15): here for the tests on the other core.
os.environ.setdefault("RAY_worker_niceness", "0")
