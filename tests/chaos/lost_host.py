"""One of two hosts is lost during training and returns: Ray restarts the workers, with the same results."""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.results import Result
from tests.chaos.storage import prepared, steps, updates, weights
from tests.team.hosts import Host, two_hosts, why_not

EPOCHS = 60
MOST_SECONDS = 400
TRAIN = [sys.executable, "-m", "components", "digits", "train"]


def inject_hosts(times: int, seed: int) -> Result:
    """Lose the second host of a training of two workers, `times` times, each in a new training."""
    if reason := why_not():
        return Result(0, f"not tried here: {reason}")
    chance = random.Random(seed)
    os.environ["RAY_health_check_timeout_ms"] = "2000"  # noqa: SIM112 - Ray's default is a minute
    failures: list[str] = []
    took: list[float] = []
    with tempfile.TemporaryDirectory(prefix="pedigree-hosts-") as scratch:
        folder = Path(scratch) / "project"
        expected = prepared(folder, workers=2)
        with two_hosts() as (first, second):
            for number in range(times):
                own = Path(scratch) / f"{number}"
                shutil.copytree(folder, own, symlinks=True)
                began = time.monotonic()
                wrong = _lost(first, second, own, chance)
                took.append(time.monotonic() - began)
                if not wrong:
                    wrong = [] if weights(own) == expected else ["other weights"]
                    wrong += steps(own / "mlflow.db")
                failures += [f"{number}: {each}" for each in wrong]
                print(f"  {number + 1} of {times}, {took[-1]:.0f} s, {wrong or 'passed'}", flush=True)
    summary = (
        f"resumed; weights bitwise those of two uninterrupted workers; one MLflow run each; no step "
        f"duplicated or missing; finished in {min(took):.0f} to {max(took):.0f} s"
    )
    return Result(times, summary, failures)


def _lost(first: Host, second: Host, folder: Path, chance: random.Random) -> list[str]:
    """Train, losing the second host for a while; return what went wrong."""
    log = folder / "stderr.log"
    training = first.popen(TRAIN, folder, log, PYTHONPATH=str(folder))
    try:
        _await_updates(folder, training, log, 5 + chance.randrange(60))
        second.kill()
        time.sleep(chance.random() * 10)
        second.start()
        code = training.wait(MOST_SECONDS)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        return [f"{error}: {log.read_text()[-500:]}"]
    finally:
        if training.poll() is None:
            training.kill()
    return [] if code == 0 else [f"exit code {code}: {log.read_text()[-500:]}"]


def _await_updates(folder: Path, training: subprocess.Popen[bytes], log: Path, number: int) -> None:
    end = time.monotonic() + MOST_SECONDS
    while updates(folder) < number:
        assert training.poll() is None, "it ended too early"
        assert time.monotonic() < end, "no checkpoint"
        time.sleep(0.05)
