"""A registered version answers for itself: its lineage, what of it is still here, and who promoted it."""

import json
import os
import shutil

import mlflow
import pytest
from mlflow import MlflowClient

from components.adapters import mlflow_versions
from components.errors import PedigreeError
from components.stages import registry
from components.trust import lineage
from pipelines import registry as door
from tests.conftest import register_as


@pytest.fixture
def copy(chain, tmp_path):
    """Another version of the same model, under a name of its own, so that aliases may move."""

    def make(name):
        return register_as(chain, name, tmp_path)

    return make


def lines(ancestor, depth=0):
    """All lines of an ancestry, as `what: which (where)`."""
    yield f"{ancestor.what}: {ancestor.which} ({ancestor.where})"
    for each in ancestor.made_from:
        yield from lines(each, depth + 1)


def found(ancestor):
    return {line.partition(": ")[0]: line.partition(": ")[2] for line in lines(ancestor)}


def test_the_lineage_beside_the_weights_is_on_the_version_and_its_hashes_are_tags_of_version_and_run(chain):
    made = lineage.read(chain.trained.folder)
    version = mlflow_versions.find("models:/vision@champion")
    assert registry.lineage_of(version) == made
    run = MlflowClient().get_run(chain.trained.run_id)
    for name, value in made.tags().items():
        assert version.tags[name] == value == run.data.tags[name]
    assert made.data.pinned == made.tags()["data"] != "none"
    assert made.data.raw == chain.prepared.manifest.raw != "none"
    assert made.data.test_split == chain.prepared.manifest.splits["test"].sha256
    assert made.params == chain.values.model_dump(by_alias=True, mode="json")
    assert made.machine.packages["torch"]
    assert made.machine.world == 1


def test_everything_that_made_a_fresh_version_is_here(chain):
    ancestry = found(registry.trace("models:/vision@champion", chain.root))
    made = lineage.read(chain.trained.folder)
    assert ancestry["weights"] == f"{made.weights} (here)"
    assert ancestry["prepared"] == f"{made.data.prepared} (here)"
    assert ancestry["data"].endswith("(here)")
    assert ancestry["run"].startswith(f"MLflow {chain.trained.run_id}")
    assert ancestry["run"].endswith("(here)")
    assert ancestry["promoted"].endswith("by the gate: champion: there was none before ()")


def test_a_version_whose_run_was_deleted_still_knows_all(chain, copy):
    registered = copy("orphan")
    before = found(registry.trace(f"orphan/{registered.version}", chain.root))
    client = MlflowClient()
    client.delete_run(chain.trained.run_id)
    try:
        after = found(registry.trace(f"orphan/{registered.version}", chain.root))
    finally:
        client.restore_run(chain.trained.run_id)
    assert after.pop("run").endswith("(gone)")
    before.pop("run")
    assert after == before


def test_what_is_gone_is_called_gone(chain, copy, tmp_path):
    registered = copy("lost")
    empty = tmp_path / "elsewhere"
    shutil.copytree(chain.root / ".dvc", empty / ".dvc", ignore=shutil.ignore_patterns("cache"))
    shutil.copytree(chain.root / ".git", empty / ".git")
    ancestry = found(registry.trace(f"lost/{registered.version}", empty))
    assert ancestry["data"].endswith("(gone)")
    assert ancestry["prepared"].endswith("(gone)")
    assert ancestry["weights"].endswith("(here)")


def test_what_a_remote_out_of_reach_may_hold_is_not_called_gone(chain, copy, tmp_path):
    registered = copy("unknown")
    empty = tmp_path / "elsewhere"
    shutil.copytree(chain.root / ".dvc", empty / ".dvc", ignore=shutil.ignore_patterns("cache"))
    config = "[core]\n    remote = shelf\n['remote \"shelf\"']\n    url = http://127.0.0.1:9/shelf\n"
    (empty / ".dvc" / "config.local").write_text(config)
    ancestry = found(registry.trace(f"unknown/{registered.version}", empty))
    assert "(not here; DVC's remote is out of reach" in ancestry["data"]


def test_all_versions_that_data_made_are_found_by_the_beginning_of_any_of_its_hashes(chain, copy):
    registered = copy("second")
    made = lineage.read(chain.trained.folder)
    for known in (made.data.pinned, made.data.raw[:8], made.data.prepared[:12]):
        versions = {(version.name, version.version) for version, _ in registry.made_by(known)}
        assert {("vision", chain.registered.version), ("second", registered.version)} <= versions
    with pytest.raises(PedigreeError, match="no registered version was made from data abcdefg"):
        registry.made_by("abcdefg")


def test_a_person_promotes_and_takes_back_and_who_when_and_why_are_kept(chain, copy):
    first, second = copy("fought"), copy("fought")
    assert (first.aliases, second.aliases) == (("challenger", "champion"), ("challenger",))
    registry.promote("fought/2", "it is kinder", chain.root)
    assert mlflow_versions.find("fought@champion").version == 2
    assert registry.rollback("fought", "it was not", chain.root).version == 1
    assert mlflow_versions.find("fought@champion").version == 1
    steps = mlflow_versions.promotions("fought")
    assert [(step["version"], step["before"], step["why"]) for step in steps] == [
        (1, None, "champion: there was none before"),
        (2, 1, "it is kinder"),
        (1, 2, "it was not"),
    ]
    assert all(step["who"] and step["when"] for step in steps)
    with pytest.raises(
        PedigreeError, match=r"no champion of fought was before version 1: promote another one with"
    ):
        registry.rollback("fought", "again", chain.root)
    with pytest.raises(PedigreeError, match="fought version 1 is the champion already: nothing to do"):
        registry.promote("fought/1", "again", chain.root)


def test_a_rollback_goes_to_who_was_champion_just_before_whatever_the_numbers(chain, copy):
    for _ in range(3):
        copy("returned")
    for number in (3, 2, 3):
        registry.promote(f"returned/{number}", "tried", chain.root)
    assert [registry.rollback("returned", "back", chain.root).version for _ in range(3)] == [2, 3, 1]


def test_a_store_that_does_not_answer_is_no_store_without_a_champion(chain, monkeypatch):
    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    try:
        for ask in (
            lambda: mlflow_versions.version_at("vision", "champion"),
            lambda: mlflow_versions.find("vision/1"),
        ):
            with pytest.raises(PedigreeError, match=r"^MLflow at http://127.0.0.1:9 does not answer as it should"):
                ask()
    finally:
        mlflow.set_tracking_uri(before)
        os.environ.pop("MLFLOW_TRACKING_URI", None)


def test_brackets_in_a_reason_are_printed_as_they_are(chain, copy, capsys):
    copy("bracket")
    registry.promote(f"bracket/{copy('bracket').version}", "see [/docs] and [red]", chain.root)
    door.trace(chain.root, "bracket@champion", None)
    assert "see [/docs] and [red]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("vision/99", r"there is no vision/99: vision has the versions 1, .*@challenger, @champion"),
        ("models:/vision@champoin", r"there is no models:/vision@champoin: vision has the versions 1"),
        ("visoin@champion", r"there is no visoin@champion: the registered models are .*vision"),
        (
            "vision/latest",
            r"'vision/latest' names no version: write models:/<name>/<version> or models:/<name>@<alias>",
        ),
    ],
)
def test_an_address_that_names_nothing_is_a_sentence_with_what_there_is(chain, address, message):
    with pytest.raises(PedigreeError, match=message):
        mlflow_versions.find(address)


def test_a_version_that_was_registered_by_hand_has_no_lineage_and_that_is_a_sentence(chain):
    client = MlflowClient()
    client.create_registered_model("by-hand")
    client.create_model_version("by-hand", str(chain.trained.folder), chain.trained.run_id)
    with pytest.raises(PedigreeError, match=r"^by-hand version 1 was registered without a lineage"):
        registry.trace("by-hand/1", chain.root)


def test_the_verdict_stands_on_the_version(chain):
    version = mlflow_versions.find(f"vision/{chain.registered.version}")
    rules = json.loads(version.tags["verdict"])
    assert {rule["rule"] for rule in rules} >= {"accuracy at least 0", "better than the champion, 95.0% sure"}
    assert all(rule["passed"] for rule in rules)
    described = MlflowClient().get_model_version("vision", str(version.version)).description
    described = described.replace("\N{NO-BREAK SPACE}", "")  # which keeps the columns apart
    assert "| better than the champion, 95.0% sure | there is no champion | passed |" in described
