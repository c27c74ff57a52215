"""What a person reads on MLflow's pages of a run, a version and the registry, in a real browser."""

import re

import pytest
from mlflow import MlflowClient
from playwright.sync_api import Locator, Page, expect

from components.adapters import mlflow_pages, mlflow_runs
from components.contracts import Registered
from components.trust import lineage
from tests.conftest import register_as
from tests.pages.browser import CHROMIUM, opened

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here: `apt-get install chromium` brings it"),
]


@pytest.fixture(scope="module")
def shown(chain, tmp_path_factory) -> Registered:
    """The chain's model under a name that no other test adds versions to."""
    return register_as(chain, "shown", tmp_path_factory.mktemp("shown"))


def rows(table: Locator) -> list[list[str]]:
    """The cells that a person sees in a table, row by row."""
    return [
        [cell.replace("\N{NO-BREAK SPACE}", " ").strip() for cell in row.locator("td").all_inner_texts()]
        for row in table.locator("tbody tr").all()
    ]


def table(page: Page, head: str) -> Locator:
    """The rendered table whose first column is called `head`."""
    return page.locator("table").filter(has=page.locator("th", has_text=re.compile(rf"^\s*{head}\s*$")))


def test_a_versions_page_shows_the_verdict_and_the_ancestry_as_tables(chain, shown, address, page):
    recorded = lineage.read(chain.trained.folder)
    opened(page, address, mlflow_pages.version_url("shown", shown.version))
    score = f"accuracy {chain.evaluated.metrics['accuracy']:.4g}"
    expect(page.get_by_text(f"{score} · champion: there was none before", exact=True)).to_be_visible()
    assert rows(table(page, "rule")) == [
        [rule["rule"], rule["found"], "passed" if rule["passed"] else "failed"] for rule in shown.verdict
    ]
    ancestry = dict(rows(table(page, "made from")))
    assert recorded.data.pinned == recorded.data.raw
    assert ancestry["data"] == f"digits, {recorded.data.raw[:12]}"
    assert ancestry["test split"] == recorded.data.test_split[:12]
    assert ancestry["commit"] == recorded.code.commit[:12]
    assert ancestry["params"] == f"{recorded.params_sha256[:12]}, seed {recorded.seed}"
    assert ancestry["MLflow run"] == chain.trained.run_id
    for alias in ("champion", "challenger"):
        expect(page.get_by_text(f"@ {alias}")).to_be_visible()


def test_a_versions_page_shows_whole_hashes_as_tags_and_no_json(chain, shown, address, page):
    recorded = lineage.read(chain.trained.folder)
    opened(page, address, mlflow_pages.version_url("shown", shown.version))
    for name in ("data", "git.commit", "params", "weights"):
        row = page.get_by_role("row").filter(has=page.get_by_role("cell", name=name, exact=True))
        expect(row.filter(has_text=recorded.tags()[name])).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="by the gate: champion")).to_be_visible()
    assert '{"' not in page.inner_text("body")
    page.get_by_role("row").filter(has_text="data.prepared").scroll_into_view_if_needed()


def test_a_runs_page_shows_verdict_lineage_data_parameters_and_the_score_with_its_interval(chain, address, page):
    recorded = lineage.read(chain.trained.folder)
    run = MlflowClient().get_run(chain.trained.run_id)
    name, number = run.data.tags["version"].split("/")
    opened(page, address, mlflow_runs.run_url(run.info.run_id))
    score = f"accuracy {chain.evaluated.metrics['accuracy']:.4g}"
    said = re.compile(rf"^{re.escape(score)} · {name} version {number}, ch(ampion|allenger): ")
    expect(page.get_by_text(said)).to_be_visible()
    source = page.get_by_test_id("key-value-Source")
    expect(source).to_contain_text(f"pedigree run {chain.model.name}")
    expect(source).to_contain_text(recorded.code.commit[:7])
    expect(table(page, "rule")).to_contain_text(chain.registered.verdict[0]["rule"])
    digest = chain.prepared.manifest.splits["train"].sha256[:32]
    expect(page.get_by_text(f"digits/train ({digest})")).to_be_visible()
    seen = page.inner_text("body")
    for name, value in recorded.tags().items():
        assert f"{name}\n: {value}" in seen
    for shown in ("test/accuracy", "test/accuracy_low", "test/accuracy_high", "train.optimizer.lr", "train.epochs"):
        assert f"\n{shown}" in seen


def test_the_registry_lists_the_model_with_its_newest_version_and_aliases(shown, address, page):
    page.goto(f"{address}/#/models")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="shown", exact=True))
    expect(row).to_contain_text(re.compile(r"Version \d+"))
    expect(row).to_contain_text("champion")
    assert '{"' not in page.inner_text("body")
