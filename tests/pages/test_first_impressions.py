"""What people see who open MLflow's pages for the first time: training runs, and the score before all else."""

import urllib.error
import urllib.request

import pytest
from mlflow import MlflowClient
from playwright.sync_api import Page, expect

from components.adapters import mlflow_pages, mlflow_runs
from tests.pages.browser import CHROMIUM, opened
from tests.pages.runs import CLASSES, COMMAND, COMMIT, UPDATES, USER, manifest
from tests.running import basic

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here: `apt-get install chromium` brings it"),
]
AGENT_PAGES = ("Judges", "Sessions", "Prompts")
"""What MLflow's menu offers for agents alone."""


def expect_training_pages(page: Page) -> None:
    expect(page.get_by_role("link", name="Model registry")).to_be_visible()
    for name in AGENT_PAGES:
        expect(page.get_by_role("link", name=name, exact=True)).to_have_count(0)


def expect_columns(page: Page, *names: str) -> None:
    """Wait until the list of runs shows these columns from left to right: it moves them after it has drawn them."""
    page.wait_for_function(
        """names => {
            const heads = [...document.querySelectorAll("[role=columnheader]")];
            const at = names.map(name => heads.find(head => head.innerText.trim() === name));
            const left = at.map(head => head ? head.getBoundingClientRect().left : NaN);
            return left.every((x, i) => i === 0 ? x >= 0 : x > left[i - 1]);
        }""",
        arg=names,
        timeout=60_000,
    )


def test_an_experiments_address_opens_its_training_runs_with_the_score_as_first_column(address, three, page):
    opened(page, address, mlflow_pages.experiment_url(three.experiment_id))
    for score in three.scores:
        expect(page.get_by_role("gridcell", name=str(score), exact=True)).to_be_visible()
    expect_training_pages(page)
    expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    expect_columns(
        page, "Run Name", "Created", "score", "val/loss", "train/loss", "User", "Source", "Version", "Models"
    )


def test_mlflows_assistant_stays_closed_on_the_first_visit(address, three, page):
    opened(page, address, mlflow_pages.experiment_url(three.experiment_id))
    expect_training_pages(page)
    assert page.evaluate("localStorage.getItem('mlflow.assistant.panelOpen_v1')") != "true"


def test_who_comes_by_mlflows_own_links_comes_to_training_runs(address, three, page):
    page.goto(f"{address}/#/experiments")
    page.get_by_role("link", name="three", exact=True).click()
    expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    expect_training_pages(page)


def test_an_html_artifact_is_served_as_it_was_logged(address, three, store):
    report = "<html><head></head><body>a report</body></html>"
    MlflowClient().log_text(three.ids[0], report, "report.html")
    url = f"{address}/get-artifact?run_uuid={three.ids[0]}&path=report.html"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": basic(store)})) as answer:
        assert answer.read().decode() == report


def test_the_pages_store_no_file_that_somebody_sends_for_no_run(address, store):
    for api in ("api", "ajax-api"):
        url = f"{address}/{api}/2.0/mlflow-artifacts/artifacts/sent"
        request = urllib.request.Request(url, data=b"a file", method="PUT", headers={"authorization": basic(store)})
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(request)
    assert not (store / "mlartifacts").exists()


def test_an_experiment_made_earlier_opens_its_training_runs_once_a_run_was_started(address, store, page):
    client = MlflowClient()
    experiment_id = client.create_experiment("made earlier")
    mlflow_runs.start_run("a job", "made earlier", "a later run", {}, manifest(), store)
    assert client.get_experiment(experiment_id).tags["mlflow.experimentKind"] == "custom_model_development"
    opened(page, address, mlflow_pages.experiment_url(experiment_id))
    expect(page.get_by_role("link", name="a later run")).to_be_visible()
    expect_training_pages(page)
    expect_columns(page, "Created", "score", "User")


def test_the_kind_that_someone_chose_for_an_experiment_stays(store):
    client = MlflowClient()
    experiment_id = client.create_experiment("chosen", tags={"mlflow.experimentKind": "finetuning"})
    mlflow_runs.start_run("a job", "chosen", "a run", {}, manifest(), store)
    assert client.get_experiment(experiment_id).tags["mlflow.experimentKind"] == "finetuning"


def test_an_experiments_charts_begin_with_the_score_and_show_a_point_for_each_validation(address, three, page):
    opened(page, address, f"{mlflow_pages.experiment_url(three.experiment_id)}&compareRunsMode=CHART")
    cards = page.get_by_test_id("experiment-view-compare-runs-card")
    curve = cards.filter(has=page.get_by_role("heading", name="val/accuracy", exact=True))
    expect(curve.locator("path.point")).to_have_count(len(UPDATES) * len(three.ids))
    expect(curve.get_by_text("Step", exact=True)).to_be_visible()
    expect(curve.get_by_text(str(UPDATES[-1]), exact=True)).to_be_visible()
    assert page.get_by_role("heading", level=4).all_inner_texts()[:3] == ["score", "val/accuracy", "val/loss"]
    expect(cards.first.get_by_text("0.94", exact=True)).to_be_visible()


def test_the_comparison_of_three_runs_opens_on_the_score_and_lists_it_first(address, three, page):
    runs = ",".join(f'"{run_id}"' for run_id in three.ids)
    page.goto(f'{address}/#/compare-runs?runs=[{runs}]&experiments=["{three.experiment_id}"]')
    expect(page.get_by_text("Comparing 3 Runs from 1 Experiment")).to_be_visible()
    axes = page.locator(".pcp-plot .axis-title")
    expect(axes).to_have_text(["train.optimizer.lr", "score"])
    listed = page.get_by_title("Plot chart")
    expect(listed.first).to_have_text("score")
    names = [name.strip() for name in listed.all_inner_texts()]
    assert names == sorted(names)


def test_a_runs_page_says_who_made_it_by_which_command_from_which_commit(address, three, page):
    opened(page, address, mlflow_runs.run_url(three.ids[0]))
    expect(page.get_by_role("link", name=USER)).to_be_visible()
    expect(page.get_by_text(COMMAND)).to_be_visible()
    expect(page.get_by_text(COMMIT[:7])).to_be_visible()
    expect_training_pages(page)


def test_a_runs_page_begins_with_score_and_verdict(address, three, page):
    opened(page, address, mlflow_runs.run_url(three.ids[0]))
    expect(page.get_by_text("accuracy 0.75 · challenger: not better than version 1")).to_be_visible()
    expect(page.get_by_text("Synthetic data.")).to_be_visible()
    ours = page.get_by_role("row").filter(has_text="Model metrics").locator("xpath=following-sibling::*")
    expect(ours.first).to_contain_text("score")


def test_a_run_that_has_no_score_yet_shows_none(address, store, page):
    run_id = mlflow_runs.start_run("a job", "unfinished", "a run", {}, manifest(), store)
    mlflow_runs.log_metrics(run_id, {"val/loss": 0.5})
    opened(page, address, mlflow_runs.run_url(run_id))
    expect(page.get_by_role("link", name="val/loss")).to_be_visible()
    expect(page.get_by_text("score", exact=True)).to_have_count(0)
    experiment_id = MlflowClient().get_run(run_id).info.experiment_id
    for sign in ("<", ">", "="):
        assert MlflowClient().search_runs([experiment_id], f"metrics.score {sign} 0") == []


def test_numbers_of_classes_are_a_table_among_a_runs_artifacts_and_no_metrics(address, three, page):
    client, run_id = MlflowClient(), three.ids[0]
    table = client.load_table(three.experiment_id, "precision_recall.json", [run_id])
    assert table.to_dict("list") == {"group": [*CLASSES], "precision": [0.375] * 3, "recall": [0.375] * 3}
    table = client.load_table(three.experiment_id, "accuracy_by_speaker.json", [run_id])
    assert table.to_dict("records") == [{"group": "ann", "accuracy_by_speaker": 0.25}]
    logged = {name for name in client.get_run(run_id).data.metrics if name.startswith("test/")}
    assert logged == {"test/accuracy", "test/loss"}
    opened(page, address, mlflow_runs.run_url(run_id).replace("?", "/artifacts/precision_recall.json?"))
    for head in ("group", "precision", "recall"):
        expect(page.get_by_role("columnheader", name=head)).to_be_visible()
    expect(page.get_by_role("cell", name=CLASSES[2], exact=True)).to_be_visible()
