"""python -m tests.chaos [ROW ...] [--times N] [--seed N]: inject faults, and write docs/reliability.md."""

import argparse
import sys

from components.runtime import interrupts
from tests.chaos import corruption, everything, fuzz, kills, lineage, lost_host, parameters, storage
from tests.chaos.results import Row, inject

ROWS = {
    "kills": Row(
        "SIGKILL of a training worker, of the driver, of the serving process, of Prefect's server, of the raylet, "
        "at random moments of all four stages, all three tasks",
        60,
        kills.inject_kills,
    ),
    "fuzz": Row("corrupt raw files from a fuzzer (images, audio, text, yaml)", 10_000, fuzz.inject_files),
    "parameters": Row("parameters from hypothesis, valid and not", 2_000, parameters.inject_parameters),
    "corruption": Row(
        "checkpoint, manifest, array, params, lock, database truncated or with a flipped byte",
        200,
        corruption.inject_files,
    ),
    "lineage": Row(
        "random sequences of preparing, editing, pinning, training, registering, links and moved folders",
        300,
        lineage.inject_lineage,
    ),
    "hosts": Row("one of two hosts lost and brought back (network namespaces)", 5, lost_host.inject_hosts),
    "storage": Row("broken storage: servers away, disks full, locks, closed folders", 8, storage.inject_storage),
    "everything": Row("everything at once for 20 minutes", 1, everything.inject_everything),
}
"""All faults by name; a new one needs an entry here."""


def main() -> int:
    """Inject faults; return 1 if there was a failure."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], metavar="ROW", help=f"of {', '.join(ROWS)}; or all")
    parser.add_argument("--times", type=int, help="number of injections, instead of the row's own")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with interrupts.interruptible(seconds=60):  # time to stop servers
        return 0 if inject(ROWS, given.rows, given.times, given.seed) else 1


if __name__ == "__main__":
    sys.exit(main())
