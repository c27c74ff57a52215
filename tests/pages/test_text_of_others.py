"""Names from data and reasons from people are text on MLflow's and Prefect's pages: nothing is linked or loaded."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from playwright.sync_api import Page, expect
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from components import display
from components.adapters import mlflow_pages, mlflow_runs, mlflow_versions
from components.contracts import Registered
from components.runtime import processes
from components.trust import gate
from components.trust.gate import Rule
from pipelines import steps
from tests.conftest import register_as
from tests.pages.browser import CHROMIUM, awaited, opened
from tests.pages.runs import manifest
from tests.running import free_ports

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here: `apt-get install chromium` brings it"),
]
BEACON = "beacon.example"
NAMES = [
    "[click](javascript:alert(document.domain))",
    f"![x](http://{BEACON}/a.png)",
    f"<img src=http://{BEACON}/b.png onerror=alert(1)>",
    f"<iframe src=http://{BEACON}/c></iframe>",
    f"<a href=http://{BEACON}/d>e</a><script>alert(2)</script>",
    f"www.{BEACON} http://{BEACON}/f g@{BEACON} @torvalds",
    "a|b `c` **d** __e__ ~~f~~ &lt;g&gt; $h$ \\[i](j)",
]
REASON = f"challenger: class {', '.join(f'{name} lost 3 points' for name in NAMES)}"
RULES = [Rule("no class worse by more than 0", f"{name} is worse by 1", False) for name in NAMES]
METRICS = {f"recall/{name}": 0.5 for name in NAMES} | {"accuracy": 0.75}
INSIDE = f"""() => [...document.querySelectorAll("a[href], img[src], iframe[src], script[src]")]
    .map(each => each.getAttribute("href") ?? each.getAttribute("src"))
    .filter(address => /^javascript:|^mailto:|{BEACON}|torvalds/.test(address))"""
"""Returns the addresses on a page that lead where a name says."""


@contextmanager
def inert(page: Page) -> Iterator[None]:
    """Check that pages opened in the block link and load nothing that a name says, and run none of its scripts."""
    happened: list[str] = []

    def ask(request) -> None:
        if BEACON in request.url:
            happened.append(request.url)

    def alert(dialog) -> None:
        happened.append(dialog.message)
        dialog.dismiss()

    page.on("request", ask)
    page.on("dialog", alert)
    try:
        yield
        page.wait_for_timeout(500)  # for what a page loads last
        assert page.evaluate(INSIDE) == []
        assert happened == []
    finally:
        page.remove_listener("request", ask)
        page.remove_listener("dialog", alert)


def expect_literally(page: Page, *texts: str) -> None:
    """Wait until the page shows these texts as they are."""
    for text in texts:
        expect(page.get_by_text(text).first).to_be_attached()


@pytest.fixture(scope="module")
def run_id(store: Path) -> str:
    """A run of a data set with such class names, logged as the stages log one."""
    name = "text of others"
    started = mlflow_runs.start_run(name, name, NAMES[0], {"train": {"init": NAMES[1]}}, manifest(), store)
    folder = store / "build" / name
    folder.mkdir(parents=True)
    (folder / "predictions.csv").write_text("\n".join(["file,actual", *(f'a.png,"{each}"' for each in NAMES)]))
    mlflow_runs.log_evaluation(started, METRICS, folder, manifest(), folder)
    text = mlflow_pages.description("accuracy 0.75", REASON, display.markdown(NAMES[0]), gate.markdown(RULES))
    mlflow_runs.describe_run(started, text)
    return started


def test_mlflows_page_of_a_run_shows_names_from_data_as_text(run_id, address, page):
    with inert(page):
        opened(page, address, mlflow_runs.run_url(run_id))
        expect_literally(page, REASON, *(rule.found for rule in RULES))
    picture = page.screenshot()
    assert len(picture) > 20_000


@pytest.mark.parametrize("file", ["recall.json", "evaluation/predictions.csv", "manifest.json"])
def test_mlflows_pages_of_files_show_names_from_data_as_text(run_id, address, page, file):
    with inert(page):
        opened(page, address, mlflow_runs.run_url(run_id).replace("?", f"/artifacts/{file}?"))
        shown = {"recall.json": "recall", "manifest.json": '"digits"'}.get(file, NAMES[0])
        expect_literally(page, shown)


def test_mlflows_page_of_a_version_shows_verdict_and_reasons_as_text(chain, address, page, tmp_path):
    registered = register_as(chain, "reasons", tmp_path)
    version = mlflow_versions.find(f"reasons/{registered.version}")
    text = mlflow_pages.description("accuracy 0.75", REASON, gate.markdown(RULES))
    mlflow_versions.set_description(version, text)
    mlflow_versions.promote(version, "Ann Author", NAMES[5])
    with inert(page):
        opened(page, address, mlflow_pages.version_url("reasons", registered.version))
        expect_literally(page, REASON, *(rule.found for rule in RULES), f"by Ann Author: {NAMES[5]}")


def shown_at(api: str) -> list[UUID]:
    """Show results in Prefect's pages as a flow does; return the ids of the artifacts."""
    registered = Registered("others", 1, (), REASON, [vars(rule) for rule in RULES])
    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        steps.show(registered, METRICS, NAMES[0])
        return [each.id for each in client.read_artifacts()]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The addresses of Prefect's pages of what a flow run with such class names shows."""
    folder, (port,) = tmp_path_factory.mktemp("prefect"), free_ports(1)
    url = f"http://127.0.0.1:{port}"
    env = {"PREFECT_HOME": str(folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | env | {"PREFECT_UI_API_URL": f"{url}/api"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        awaited(f"{url}/api/health", server, folder / "server.log")
        with ThreadPoolExecutor(1) as thread:  # the browser's loop runs in this one, and Prefect would wait for it
            ids = thread.submit(shown_at, f"{url}/api").result()
        yield [f"{url}/artifacts/artifact/{each}" for each in ids]
    finally:
        processes.end(processes.tree(server.pid))
        server.wait()


def test_prefects_pages_of_results_show_names_from_data_as_text(artifacts, page):
    seen = ""
    for address in artifacts:
        with inert(page):
            page.goto(address)
            expect(page.get_by_role("cell").first).to_be_attached()
            seen += page.inner_text("body")
    assert len(artifacts) == 2
    assert REASON in seen
    assert NAMES[0] in seen
    for rule in RULES:
        assert rule.found in seen
