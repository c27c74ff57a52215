"""python -m tests.chaos [ROW ...] [--times N] [--seed N]: deal blows, and write docs/reliability.md."""

import argparse
import sys

from components import interrupts
from tests.chaos import corruption, everything, fuzz, kills, lost_host, parameters, storage
from tests.chaos.results import Row, deal

ROWS = {
    "kills": Row(
        "SIGKILL of a training worker, of the driver, of the serving process, of Prefect's server, of the raylet, "
        "at random moments of all four stages, all three tasks",
        60,
        kills.blow_kills,
    ),
    "fuzz": Row("corrupt raw files from a fuzzer (images, audio, text, yaml)", 10_000, fuzz.blow_files),
    "parameters": Row("parameters from hypothesis, valid and not", 2_000, parameters.blow_parameters),
    "corruption": Row(
        "checkpoint, manifest, array, params, lock, database truncated or with a flipped byte",
        200,
        corruption.blow_files,
    ),
    "hosts": Row("a host of two lost and back (network namespaces)", 5, lost_host.blow_hosts),
    "storage": Row("broken storage: servers away, disks full, locks, closed folders", 8, storage.blow_storage),
    "everything": Row("everything at once for 20 minutes", 1, everything.blow_everything),
}
"""A blow is added by a line here."""


def main() -> int:
    """Return 1 where something happened that should not."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], metavar="ROW", help=f"of {', '.join(ROWS)}; or all")
    parser.add_argument("--times", type=int, help="how often, instead of what the table says")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with interrupts.interruptible(seconds=60):  # servers are taken down
        return 0 if deal(ROWS, given.rows, given.times, given.seed) else 1


if __name__ == "__main__":
    sys.exit(main())
