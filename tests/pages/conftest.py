"""One server for all tests of pages, a browser for each module, and three runs that differ in what is compared."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from components.adapters import mlflow_store
from components.runtime import login
from tests.pages.browser import chromium, mlflow_ui
from tests.pages.runs import Three, make_three

expect.set_options(timeout=60_000)  # a page's first visit on a busy machine


@pytest.fixture(scope="session")
def store(project: Path) -> Path:
    """A project whose MLflow store this process uses."""
    mlflow_store.connect(project)
    return project


@pytest.fixture(scope="session")
def three(store: Path) -> Three:
    """Three runs of one experiment, logged by the adapter."""
    return make_three("three", store)


@pytest.fixture(scope="session")
def address(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where MLflow's own server shows the project's store."""
    with mlflow_ui(store, tmp_path_factory.mktemp("ui") / "ui.log") as url:
        yield url


@pytest.fixture(scope="module")  # a process can have one Playwright at a time
def browser(store: Path) -> Iterator[Page]:
    """A browser that has seen none of these pages before, and knows the login."""
    with chromium(login.of(store)) as page:
        yield page


@pytest.fixture
def page(browser: Page, tmp_path: Path) -> Iterator[Page]:
    """A page that leaves a picture of how the test left it."""
    browser.goto("about:blank")  # from one address of an application to another, a browser loads nothing
    yield browser
    picture = tmp_path / "page.png"
    browser.screenshot(path=picture)
    assert picture.stat().st_size > 20_000  # an empty page is smaller
