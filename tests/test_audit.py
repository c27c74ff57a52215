"""`make check` asks for known vulnerabilities, and tells no answer from a good one."""

import http.server
import json
import os
import runpy
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import ROOT


def audit(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / ".ci" / "audit.py", *arguments],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **env},
        capture_output=True,
        text=True,
        check=False,
    )


UNREACHABLE = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}


def test_without_a_network_the_audit_says_that_it_was_skipped():
    done = audit(**UNREACHABLE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("pip-audit: no network, skipped (requests.exceptions.ProxyError")


@pytest.mark.long
def test_an_audit_that_is_required_fails_without_a_network():
    done = audit(**UNREACHABLE, AUDIT="required")
    assert done.returncode == 1
    assert done.stderr.startswith("pip-audit: no network (requests.exceptions.ProxyError")


@pytest.mark.parametrize("required", [False, True])
def test_an_index_without_data_on_any_package_is_a_skipped_audit_and_fails_a_required_one(
    monkeypatch, capsys, required
):
    monkeypatch.setenv("AUDIT", "required" if required else "")
    packages = [{"name": name, "skip_reason": "not found on the index"} for name in ("jinja2", "torch")]
    answer = SimpleNamespace(stdout=json.dumps({"dependencies": packages}), stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    assert runpy.run_path(str(ROOT / ".ci" / "audit.py"))["main"]([]) == required
    said = capsys.readouterr()
    assert "the index has data on none of the 2 packages" in (said.err if required else said.out)
    assert ("skipped" in said.out) != required


def test_a_failure_that_is_not_the_networks_fails_the_check():
    done = audit("--no-such-option")
    assert done.returncode == 1
    assert "no-such-option" in done.stderr


@pytest.fixture
def service():
    """Answers as osv.dev does: of jinja2 it knows a vulnerability, of nothing else."""

    class Service(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            name = asked["package"]["name"]
            events = [{"introduced": "0"}, {"fixed": "99.1"}]
            affected = [
                {
                    "package": {"name": name, "ecosystem": "PyPI"},
                    "ranges": [{"type": "ECOSYSTEM", "events": events}],
                }
            ]
            known = {"id": "PYSEC-1", "summary": "an example", "aliases": [], "affected": affected}
            body = json.dumps({"vulns": [known]} if name == "jinja2" else {}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.long
def test_a_known_vulnerability_fails_the_check_with_its_remedy(service):
    done = audit("--vulnerability-service", "osv", "--osv-url", service)
    assert done.returncode == 1, done.stderr
    assert "PYSEC-1, fixed in 99.1" in done.stderr
    assert done.stderr.startswith("jinja2 ")
    assert done.stdout.startswith("pip-audit: 1 known vulnerabilities; ")
