"""A registered version answers for itself: its lineage, what of it is still here, and who promoted it."""

import json
import logging
import os
import re
import shutil
from dataclasses import replace

import mlflow
import pytest
from mlflow import MlflowClient

from components.adapters import mlflow_versions
from components.errors import PedigreeError
from components.registry import promote, trace
from components.registry import versions as registered
from components.trust import lineage
from pipelines import versions
from tests.conftest import register_as


@pytest.fixture
def copy(chain, tmp_path):
    """Another version of the same model, under a name of its own, so that aliases may move."""

    def make(name):
        return register_as(chain, name, tmp_path)

    return make


@pytest.fixture(scope="module")
def known(chain, tmp_path_factory):
    """Another version, which one test shares with the next."""
    return register_as(chain, "known", tmp_path_factory.mktemp("known"))


def lines(ancestor, depth=0):
    """All lines of an ancestry, as `what: which (where)`."""
    yield f"{ancestor.what}: {ancestor.which} ({ancestor.where})"
    for each in ancestor.parents:
        yield from lines(each, depth + 1)


def found(ancestor):
    return {line.partition(": ")[0]: line.partition(": ")[2] for line in lines(ancestor)}


def test_the_lineage_beside_the_weights_is_on_the_version_and_its_hashes_are_tags_of_version_and_run(chain):
    recorded = lineage.read(chain.trained.folder)
    version = mlflow_versions.find("models:/digits@champion")
    assert trace.lineage_of(version) == recorded
    run = MlflowClient().get_run(chain.trained.run_id)
    for name, value in recorded.tags().items():
        assert version.tags[name] == value == run.data.tags[name]
    assert recorded.data.pinned == recorded.tags()["data"] != "none"
    assert recorded.data.raw == chain.prepared.manifest.raw != "none"
    assert recorded.data.test_split == chain.prepared.manifest.splits["test"].sha256
    assert recorded.params == chain.values.model_dump(by_alias=True, mode="json")
    assert recorded.machine.packages["torch"]
    assert recorded.machine.world == 1


def test_everything_that_made_a_fresh_version_is_here(chain):
    ancestry = found(trace.trace("models:/digits@champion", chain.root))
    recorded = lineage.read(chain.trained.folder)
    assert ancestry["weights"] == f"{recorded.weights} (here)"
    assert ancestry["prepared"] == f"{recorded.data.prepared} (here)"
    assert ancestry["data"].endswith("(here)")
    assert ancestry["run"].startswith(f"MLflow {chain.trained.run_id}")
    assert ancestry["run"].endswith("(here)")
    assert ancestry["promoted"].endswith("by the gate: champion: there was none before ()")


def test_a_version_whose_run_was_deleted_still_knows_all(chain, known):
    before = found(trace.trace("known/1", chain.root))
    client = MlflowClient()
    client.delete_run(chain.trained.run_id)
    try:
        after = found(trace.trace("known/1", chain.root))
    finally:
        client.restore_run(chain.trained.run_id)
    assert after.pop("run").endswith("(gone)")
    before.pop("run")
    assert after == before


def test_what_is_gone_is_called_gone(chain, known, tmp_path):
    empty = tmp_path / "elsewhere"
    shutil.copytree(chain.root / ".dvc", empty / ".dvc", ignore=shutil.ignore_patterns("cache"))
    shutil.copytree(chain.root / ".git", empty / ".git")
    ancestry = found(trace.trace("known/1", empty))
    assert ancestry["data"].endswith("(gone)")
    assert ancestry["prepared"].endswith("(gone)")
    assert ancestry["weights"].endswith("(here)")


def test_what_a_remote_out_of_reach_may_hold_is_not_called_gone(chain, known, tmp_path):
    empty = tmp_path / "elsewhere"
    shutil.copytree(chain.root / ".dvc", empty / ".dvc", ignore=shutil.ignore_patterns("cache"))
    config = "[core]\n    remote = shelf\n['remote \"shelf\"']\n    url = http://127.0.0.1:9/shelf\n"
    (empty / ".dvc" / "config.local").write_text(config)
    ancestry = found(trace.trace("known/1", empty))
    assert "(not here; DVC's remote is unreachable" in ancestry["data"]


def test_all_versions_that_data_made_are_found_by_the_beginning_of_any_of_its_hashes(chain, known):
    recorded = lineage.read(chain.trained.folder)
    for beginning in (recorded.data.pinned, recorded.data.raw[:8], recorded.data.prepared[:12]):
        versions = {(version.name, version.version) for version, _ in trace.trained_on(beginning)}
        assert {("digits", chain.registered.version), ("known", known.version)} <= versions
    with pytest.raises(PedigreeError, match="no registered version was trained on data abcdefg"):
        trace.trained_on("abcdefg")


def test_a_person_promotes_and_takes_back_and_who_when_and_why_are_kept(chain, copy):
    first, second = copy("fought"), copy("fought")
    assert (first.aliases, second.aliases) == (("challenger", "champion"), ("challenger",))
    promote.promote("fought/2", "it is kinder", chain.root)
    assert mlflow_versions.find("fought@champion").version == 2
    assert promote.rollback("fought", "it was not", chain.root).version == 1
    assert mlflow_versions.find("fought@champion").version == 1
    steps = mlflow_versions.promotions("fought")
    assert [(step["version"], step["before"], step["why"]) for step in steps] == [
        (1, None, "champion: there was none before"),
        (2, 1, "it is kinder"),
        (1, 2, "it was not"),
    ]
    assert all(step["who"] and step["when"] for step in steps)
    said = [(each.what, each.which.partition(" by ")[2]) for each in trace.trace("fought/1", chain.root).parents]
    assert [what for what, _ in said] == ["promoted", "rolled back to", "weights"]
    assert said[1][1].endswith(": it was not")
    back = found(trace.trace("fought/2", chain.root))["rolled back"]
    assert (back[:13], back[-15:]) == ("to version 1,", ": it was not ()")
    newest, oldest = registered.rows("fought")
    assert (newest.version, newest.aliases, oldest.aliases) == (2, ("challenger",), ("champion",))
    assert re.fullmatch(r"rolled back by .+: it was not", newest.why)
    assert re.fullmatch(r"rolled back to by .+: it was not", oldest.why)
    with pytest.raises(
        PedigreeError, match=r"fought had no champion before version 1: promote another version with"
    ):
        promote.rollback("fought", "again", chain.root)
    with pytest.raises(PedigreeError, match="fought version 1 is already the champion: nothing to do"):
        promote.promote("fought/1", "again", chain.root)


def test_a_rollback_goes_to_who_was_champion_just_before_whatever_the_numbers(chain, copy):
    for _ in range(3):
        copy("returned")
    for number in (3, 2, 3):
        promote.promote(f"returned/{number}", "tried", chain.root)
    assert [promote.rollback("returned", "back", chain.root).version for _ in range(3)] == [2, 3, 1]


def test_a_store_that_does_not_answer_is_no_store_without_a_champion(chain, monkeypatch):
    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    try:
        for ask in (
            lambda: mlflow_versions.version_at("digits", "champion"),
            lambda: mlflow_versions.find("digits/1"),
        ):
            with pytest.raises(PedigreeError, match=r"^MLflow at http://127.0.0.1:9 returned an error"):
                ask()
    finally:
        mlflow.set_tracking_uri(before)
        os.environ.pop("MLFLOW_TRACKING_URI", None)


def test_brackets_in_a_reason_are_printed_as_they_are(chain, known, capsys):
    mlflow_versions.promote(mlflow_versions.find("known/1"), "ann", "see [/docs] and [red]")
    versions.trace(chain.root, "known@champion", None)
    assert "see [/docs] and [red]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("digits/99", r"there is no digits/99: digits has the versions 1, .*@challenger, @champion"),
        ("models:/digits@champoin", r"there is no models:/digits@champoin: digits has the versions 1"),
        ("digist@champion", r"there is no digist@champion: the registered models are .*digits"),
        (
            "digits/latest",
            r"'digits/latest' names no version: write models:/<name>/<version> or models:/<name>@<alias>",
        ),
    ],
)
def test_an_address_that_names_nothing_is_a_sentence_with_what_there_is(chain, address, message):
    with pytest.raises(PedigreeError, match=message):
        mlflow_versions.find(address)


def test_without_a_champion_a_run_ends_with_why_and_what_to_do_and_so_does_asking_for_it(chain, tmp_path, caplog):
    gate = chain.values.register_.gate.model_copy(update={"megabytes": 0.001})
    register_ = chain.values.register_.model_copy(update={"gate": gate})
    strict = replace(chain, model=chain.having(chain.values.model_copy(update={"register_": register_})))
    with caplog.at_level(logging.INFO, "pedigree.register"):
        register_as(strict, "strict", tmp_path)
    ways = (
        r"strict has no champion, as version 1 failed the gate \(the weights take [\d.]+ MB, more than 0\.001\): "
        r"name strict@challenger or strict/1 instead, promote it with `pedigree promote strict 1 --why …`, or "
        r"change the bounds in register\.gate of strict in params\.yaml and run it again"
    )
    assert re.search(ways, caplog.text)
    for address in ("strict", "models:/strict@champion"):
        with pytest.raises(PedigreeError, match=f"^{ways}$"):
            mlflow_versions.find(address)
    assert mlflow_versions.find("strict@challenger").version == 1


def test_a_version_that_was_registered_by_hand_has_no_lineage_and_that_is_a_sentence(chain):
    client = MlflowClient()
    client.create_registered_model("by-hand")
    client.create_model_version("by-hand", str(chain.trained.folder), chain.trained.run_id)
    with pytest.raises(PedigreeError, match=r"^by-hand version 1 was registered without a lineage"):
        trace.trace("by-hand/1", chain.root)
    mlflow_versions.check(mlflow_versions.find("by-hand/1"))  # there is no hash that it could contradict


def test_the_verdict_stands_on_the_version(chain):
    version = mlflow_versions.find(f"digits/{chain.registered.version}")
    rules = json.loads(version.tags["verdict"])
    assert {rule["rule"] for rule in rules} >= {"accuracy at least 0", "better than the champion"}
    assert all(rule["passed"] for rule in rules)
    described = MlflowClient().get_model_version("digits", str(version.version)).description
    described = described.replace("\N{NO-BREAK SPACE}", "")  # which keeps the columns apart
    assert "| better than the champion | there is no champion | passed |" in described
