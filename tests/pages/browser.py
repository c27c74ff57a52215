"""MLflow's pages of a project's store, as `pedigree ui` serves them, and Debian's Chromium in front of them."""

import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from components.runtime import processes
from tests.running import PEDIGREE, free_ports

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox",  # which root cannot have
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",  # this and the next two: no calls to its maker's hosts
    "--disable-component-update",
    "--disable-sync",
]
SEEN_BEFORE = """
localStorage.setItem("_mlflow_model_registry_promo_modal_dismissed_v1", "true");
"""
"""What MLflow stores in the browser of a person who has closed its advertisement, and chosen nothing."""


@contextmanager
def mlflow_ui(root: Path, log: Path) -> Iterator[str]:
    """Run `pedigree ui` on a project's store, as a person does; give its address, and end it with its children."""
    (port,) = free_ports(1)
    command = [sys.executable, *PEDIGREE, "ui", "--port", str(port)]
    with log.open("w") as out:
        server = subprocess.Popen(command, cwd=root, stdout=out, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        awaited(f"{address}/health", server, log)
        yield address
    finally:
        processes.end(processes.tree(server.pid))
        server.wait()


def awaited(url: str, server: subprocess.Popen[bytes], log: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except OSError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        else:
            return


@contextmanager
def chromium(its_login: str, *arguments: str) -> Iterator[Page]:
    """Give an empty page of a headless Chromium that has typed this user:password wherever it was asked for one."""
    user, _, password = its_login.partition(":")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, *arguments])
        page = browser.new_page(
            viewport={"width": 1400, "height": 1000}, http_credentials={"username": user, "password": password}
        )
        page.add_init_script(SEEN_BEFORE)
        yield page
        browser.close()


def opened(page: Page, address: str, url: str) -> Page:
    """Open a page of MLflow's, at the server that the test runs instead of the one that `url` names."""
    page.goto(address + url[url.index("/#/") :])
    return page
