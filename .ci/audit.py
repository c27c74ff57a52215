"""python .ci/audit.py: check requirements.lock for known vulnerabilities; skip the check if no service answers.

With AUDIT=required in the environment, as in `make check AUDIT=required`, a skipped check fails.

pip-audit alone ends with a traceback without a network, and reports "No known vulnerabilities found" if the index
has no vulnerability data. Further arguments go to pip-audit.
"""

import json
import os
import re
import subprocess
import sys

AUDIT = (
    "pip-audit --progress-spinner off --format json --require-hashes --disable-pip --requirement requirements.lock"
)
UNREACHABLE = re.compile(
    r"^requests\.exceptions\.(\w*Timeout|ProxyError|SSLError|ConnectionError)|Could not connect"
)


def main(more: list[str]) -> int:
    """Return the exit code."""
    done = subprocess.run([*AUDIT.split(), *more], capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        if UNREACHABLE.search(reason):
            return _skipped(f"{reason[:80]}…")
        print(done.stderr, file=sys.stderr)
        return 1
    known = [package for package in packages if "vulns" in package]
    if not known:
        return _skipped(f"the index has data on none of the {len(packages)} packages")
    for package in known:
        for vulnerability in package["vulns"]:
            remedy = ", ".join(vulnerability["fix_versions"]) or "no version yet"
            print(
                f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in {remedy}",
                file=sys.stderr,
            )
    found = sum(len(package["vulns"]) for package in known)
    print(f"pip-audit: {found} known vulnerabilities; {len(known)} of {len(packages)} packages were checked")
    return 1 if found else 0


def _skipped(reason: str) -> int:
    """Say why nothing was checked; return the exit code."""
    if os.environ.get("AUDIT") == "required":
        print(
            f"pip-audit: no network ({reason}): run it with a network, or unset AUDIT",
            file=sys.stderr,
        )
        return 1
    print(f"pip-audit: no network, skipped ({reason})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
