"""python .ci/audit.py: check requirements.lock for known vulnerabilities; skip the check if no service answers.

pip-audit alone ends with a traceback without a network, and reports "No known vulnerabilities found" if the index
has no vulnerability data. Further arguments go to pip-audit.
"""

import json
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
            print(f"pip-audit: no network, skipped ({reason[:80]}…)")
            return 0
        print(done.stderr, file=sys.stderr)
        return 1
    known = [package for package in packages if "vulns" in package]
    if not known:
        print(f"pip-audit: no network, skipped (the index has data on none of the {len(packages)} packages)")
        return 0
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
