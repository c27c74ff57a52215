"""What training starts from: a file, a folder or a registered version; found, hashed, and used as it was."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file
from torch import Tensor

from components import params
from components.adapters import mlflow_versions
from components.contracts import Trained
from components.errors import DamagedError, PedigreeError
from components.jobs import job, sources
from components.models import Model
from components.params import INIT
from components.registry import promote, trace
from components.registry import reproduce as again
from components.runtime import files
from components.stages import register, train
from components.training import inference, model_files
from components.trust import lineage
from pipelines import versions
from tests.conftest import Chain

STILL = {
    "epochs": 1,
    "optimizer": {"name": "sgd", "lr": 1e-30, "momentum": 0, "weight_decay": 0},
    "average": {"name": "none"},
}
"""A training whose updates change no weight."""
NETWORK = "models:/began"
"""A registered model of the test's own: version 1 is the chain's, and version 2 another network."""


def model_from(chain: Chain, named: str | Path, freeze: int = 0, **changes: object) -> Model:
    """Return the chain's model with another start."""
    train_params = STILL | {"init": {"from": str(named), "freeze": freeze}} | changes
    tree = params.Values({"train": train_params}, {}).over(
        params.Values(chain.values.model_dump(by_alias=True), {})
    )
    return chain.having(chain.task.params.model_validate(tree.tree))


def parameters(chain: Chain, folder: Path) -> dict[str, Tensor]:
    """Return the weights that are learnt, and not what batch norm counts."""
    names = {name for name, _ in chain.task.build_model(chain.values, chain.prepared.manifest).named_parameters()}
    return {name: tensor for name, tensor in load_file(folder / model_files.WEIGHTS).items() if name in names}


def expect_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-20, msg=name)


def key_of(model: Model, chain: Chain) -> str:
    return job.key(model, chain.prepared.manifest, "code", sources.identify(model.params, model.root))


def register_from(chain: Chain, model: Model, trained: Trained, folder: Path) -> str:
    # With the chain's evaluation, as one of its own draws figures for seconds.
    registered = register.register(model, chain.prepared, trained, chain.evaluated, folder / "registered.json")
    return f"models:/{registered.name}/{registered.version}"


@pytest.fixture(scope="module")
def other(chain, tmp_path_factory) -> Trained:
    """Another network, and with the chain's the two versions of NETWORK, whose champion is the first."""
    folder = tmp_path_factory.mktemp("other")
    model = replace(model_from(chain, params.RANDOM, seed=5), name=NETWORK.removeprefix(sources.VERSION))
    parts = (chain.prepared, chain.trained, chain.evaluated)
    register.register(replace(chain.model, name=model.name), *parts, folder / "registered.json")
    trained = train.train(model, chain.prepared, folder / "model")
    assert register_from(chain, model, trained, folder) == f"{NETWORK}/2"
    return trained


def file(chain: Chain, folder: Path) -> Path:
    return Path(shutil.copyfile(chain.trained.folder / model_files.WEIGHTS, folder / "start.safetensors"))


def state_dict(chain: Chain, folder: Path) -> Path:
    torch.save(load_file(chain.trained.folder / model_files.WEIGHTS), folder / "start.pt")
    return folder / "start.pt"


def whole_folder(chain: Chain, folder: Path) -> Path:
    return Path(shutil.copytree(chain.trained.folder, folder / "start"))


@pytest.mark.parametrize("make", [file, state_dict, whole_folder])
def test_training_starts_from_what_a_file_or_folder_holds_and_the_lineage_has_its_hash(chain, tmp_path, make):
    named = make(chain, tmp_path)
    sha256 = files.sha256(named) if named.is_file() else lineage.digest(files.listing(named))
    trained = train.train(model_from(chain, named), chain.prepared, tmp_path / "model")
    expect_same(parameters(chain, trained.folder), parameters(chain, chain.trained.folder))
    expected = lineage.Source(named=str(named), exact=str(named), sha256=sha256)
    ancestry = lineage.read(trained.folder)
    assert ancestry.sources == {INIT: expected}
    assert f"{INIT} | {named}, `{sha256[:12]}`" in ancestry.markdown()


@pytest.mark.usefixtures("other")
def test_an_alias_is_resolved_to_its_version_and_the_lineage_has_the_hash_of_that_versions_weights(chain, tmp_path):
    model = model_from(chain, f"{NETWORK}@champion")
    trained = train.train(model, chain.prepared, tmp_path / "model")
    expect_same(parameters(chain, trained.folder), parameters(chain, chain.trained.folder))
    weights = files.sha256(chain.trained.folder / model_files.WEIGHTS)
    assert lineage.read(trained.folder).sources == {
        INIT: lineage.Source(named=f"{NETWORK}@champion", exact=f"{NETWORK}/1", sha256=weights)
    }


def test_two_versions_are_two_starts(chain, other, tmp_path):
    trained = train.train(model_from(chain, f"{NETWORK}/2"), chain.prepared, tmp_path / "model")
    expect_same(parameters(chain, trained.folder), parameters(chain, other.folder))
    assert not torch.equal(*(load_file(t.folder / model_files.WEIGHTS)[FIRST] for t in (trained, chain.trained)))


FIRST, HEAD = "network.conv1.weight", "network.fc.weight"


def test_a_trained_network_needs_its_start_no_more(chain, tmp_path):
    named = file(chain, tmp_path)
    model = model_from(chain, named)
    trained = train.train(model, chain.prepared, tmp_path / "model")
    named.unlink()
    assert not (trained.folder / model_files.SOURCES).exists()
    network = model_files.rebuild(model.task, trained.folder, model.params)
    split = model.task.load_split(chain.prepared.folder, "test")
    predicted = inference.predict(model.task, model.params, network, split, torch.device("cpu"), tmp_path)
    labels = torch.cat([batch["label"] for batch in predicted])
    assert len(labels) == chain.prepared.manifest.splits["test"].samples


def headless(chain: Chain, folder: Path) -> Path:
    """Write the chain's weights without those of the head, as for another set of classes."""
    body = {
        n: t for n, t in load_file(chain.trained.folder / model_files.WEIGHTS).items() if "network.fc." not in n
    }
    save_file(body, folder / "body.safetensors")
    return folder / "body.safetensors"


@pytest.mark.parametrize("epochs", [1, 2])
def test_what_came_from_elsewhere_is_frozen_for_as_many_epochs_as_asked_and_learns_then(chain, tmp_path, epochs):
    at_the_end = {"every": 1_000_000, "samples": 0}  # so the weights of the last epoch are the best
    learning = {"epochs": epochs, "optimizer": {"name": "sgd", "lr": 0.05}, "validation": at_the_end}
    model = model_from(chain, headless(chain, tmp_path), freeze=1, **learning)
    trained = train.train(model, chain.prepared, tmp_path / "model")
    (row,) = model_files.read_history(trained.folder)
    assert row["epoch"] == epochs
    after, before = (load_file(t.folder / model_files.WEIGHTS) for t in (trained, chain.trained))
    moved = {name for name in before if not torch.equal(after[name], before[name])}
    assert HEAD in moved
    assert (FIRST in moved) == (epochs == 2)
    if epochs == 1:  # what batch norm counts is frozen, too
        assert moved == {"network.fc.weight", "network.fc.bias"}


def test_to_freeze_all_there_is_to_train_is_rejected(chain, tmp_path):
    model = model_from(chain, file(chain, tmp_path), freeze=1)
    with pytest.raises(
        PedigreeError, match=r"^train\.init\.freeze 1: all of this network's weights come from .*: set it to 0$"
    ):
        train.train(model, chain.prepared, tmp_path / "model")


MISSING = r"there is no models:/digits@champoin: digits has the versions 1"


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (
            "no-such-file.safetensors",
            r"train\.init\.from names no-such-file\.safetensors, which does not exist: get it first .*, or "
            r"name another file or folder, or a registered version such as models:/NAME@champion, or set "
            r"train\.init\.from=random and train\.init\.freeze=0$",
        ),
        ("models:/digits@champoin", rf"train\.init\.from: {MISSING}"),
        ("models:/digits/99", r"train\.init\.from: there is no models:/digits/99: digits has the versions 1"),
        ("models:/digist@champion", r"train\.init\.from: there is no models:/digist@champion: the registered"),
        ("models:/", r"train\.init\.from: 'models:/' names no version: write models:/<name>/<version> or"),
    ],
)
def test_a_source_that_is_not_there_is_one_sentence_and_costs_nothing(chain, tmp_path, named, said):
    out = tmp_path / "model"
    shutil.copytree(chain.trained.folder, out)
    before, runs = files.listing(out), count_runs()
    with pytest.raises(PedigreeError, match=f"^{said}") as caught:
        train.train(model_from(chain, named), chain.prepared, out)
    assert "\n" not in str(caught.value)
    assert files.listing(out) == before
    assert {path.name for path in tmp_path.iterdir()} == {"model"}
    assert count_runs() == runs


def count_runs() -> int:
    client = MlflowClient()
    return len(client.search_runs([client.get_experiment_by_name("digits").experiment_id]))


def test_a_version_that_was_registered_by_hand_is_no_start(chain):
    client = MlflowClient()
    client.create_registered_model("handmade")
    client.create_model_version("handmade", str(chain.trained.folder), chain.trained.run_id)
    with pytest.raises(
        PedigreeError,
        match=r"^train\.init\.from: models:/handmade/1 was registered without a lineage, .* or a file$",
    ):
        sources.identify(model_from(chain, "models:/handmade/1").params, chain.root)


def test_weights_that_do_not_fit_are_called_by_the_name_that_was_given(chain, tmp_path):
    save_file({"encoder.weight": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"no tensors")
    for name, said in (
        ("foreign", "has no weights that match this network by name and shape (encoder.weight (3,) in the file"),
        ("damaged", "cannot be read and seems damaged: get another copy"),
    ):
        named = tmp_path / f"{name}.safetensors"
        with pytest.raises(PedigreeError) as caught:
            train.train(model_from(chain, named), chain.prepared, tmp_path / "model")
        assert str(caught.value).startswith(f"{named} {said}")


def test_a_random_start_names_no_source(chain):
    assert sources.identify(model_from(chain, params.RANDOM).params, chain.root) == {}


def test_a_training_of_another_content_under_the_same_name_is_another_one(chain, tmp_path):
    named, folder = tmp_path / "start.bin", tmp_path / "start"
    folder.mkdir()
    for target, content in ((named, named), (folder, folder / "weights.safetensors")):
        keys = []
        for text in (b"one", b"two", b"two"):
            content.write_bytes(text)
            keys.append(key_of(model_from(chain, target), chain))
        assert keys[0] != keys[1] == keys[2]


@pytest.mark.usefixtures("other")
def test_a_training_from_an_alias_is_another_one_when_the_alias_has_moved(chain):
    alias, number = (model_from(chain, f"{NETWORK}{which}") for which in ("@champion", "/1"))
    before = key_of(alias, chain), key_of(number, chain)
    promote.promote(f"{NETWORK}/2", "to move it", chain.root)
    try:
        assert key_of(alias, chain) != before[0]
        assert key_of(number, chain) == before[1]
        assert sources.identify(alias.params, chain.root)[INIT].exact == f"{NETWORK}/2"
    finally:
        promote.rollback("began", "to move it back", chain.root)
    assert key_of(alias, chain) == before[0]


def test_a_source_that_changes_between_question_and_training_is_not_used(chain, tmp_path):
    named = file(chain, tmp_path)
    found = sources.identify(model_from(chain, named).params, chain.root)
    named.write_bytes(b"other weights")
    with pytest.raises(
        DamagedError, match=rf"^{named}, which train\.init\.from names, has changed .* run the same"
    ):
        sources.fetch(found, chain.root, tmp_path / "copies")
    assert not list((tmp_path / "copies").iterdir())


def test_a_training_goes_on_from_its_own_copy_whatever_becomes_of_the_source(chain, tmp_path):
    folder = whole_folder(chain, tmp_path)
    found = sources.identify(model_from(chain, folder).params, chain.root)
    local = sources.fetch(found, chain.root, tmp_path / "copies")
    before = files.listing(local[INIT])
    with (folder / model_files.WEIGHTS).open("r+b") as opened:  # in place, where a second name would change, too
        opened.write(b"other weights")
    assert sources.fetch(found, chain.root, tmp_path / "copies") == local
    assert files.listing(local[INIT]) == before


@dataclass(frozen=True)
class Started:
    """A version that started from a file, and one that started from a version."""

    file: Path
    from_file: str
    from_version: str


@pytest.fixture(scope="module")
def started(chain, other, tmp_path_factory) -> Started:
    folder, addresses = tmp_path_factory.mktemp("started"), []
    named = Path(shutil.copyfile(other.folder / model_files.WEIGHTS, folder / "start.safetensors"))
    for name, start in (("from-file", named), ("from-version", f"{NETWORK}/2")):
        # So that a second training cannot come to the same weights from any other start.
        model = replace(model_from(chain, start, optimizer={"lr": 1e-3}), name=name)
        trained = train.train(model, chain.prepared, folder / name / "model")
        addresses.append(register_from(chain, model, trained, folder / name))
    return Started(named, *addresses)


@pytest.fixture
def both(started):
    """Puts the file back as it was."""
    content = started.file.read_bytes()
    yield started
    started.file.write_bytes(content)


def source_in_trace(chain: Chain, address: str) -> tuple[str, str]:
    (weights,) = (each for each in trace.trace(address, chain.root).parents if each.what == "weights")
    (found,) = (each for each in weights.parents if each.what == INIT)
    return found.which, found.where


def test_a_trace_names_the_start_and_whether_it_is_still_what_it_was(chain, other, both):
    sha256 = files.sha256(other.folder / model_files.WEIGHTS)
    assert source_in_trace(chain, both.from_version) == (f"{NETWORK}/2 {sha256}", "here")
    assert source_in_trace(chain, both.from_file) == (f"{both.file} {sha256}", "here")
    both.file.write_bytes(b"other weights")
    assert source_in_trace(chain, both.from_file) == (f"{both.file} {sha256}", "changed")
    both.file.unlink()
    assert source_in_trace(chain, both.from_file) == (f"{both.file} {sha256}", "gone")


def test_two_lineages_differ_in_their_sources_by_content_and_not_by_name(started):
    one, two = (trace.lineage_of(mlflow_versions.find(a)) for a in (started.from_file, started.from_version))
    assert one.sources[INIT].exact != two.sources[INIT].exact
    assert "sources" not in {change.what for change in lineage.changes(one, two)}
    moved = two.model_copy(update={"sources": {INIT: two.sources[INIT].model_copy(update={"sha256": "f00"})}})
    (change,) = lineage.changes(two, moved)
    assert change == ("sources", f"{INIT} {two.sources[INIT].sha256}", f"{INIT} f00")


@pytest.mark.parametrize("which", ["from_file", "from_version"])
def test_a_version_is_trained_again_from_a_copy_of_the_very_start_it_had(chain, other, both, monkeypatch, which):
    """Only what is asked before anything is trained, for that takes seconds."""
    seen = []

    def look(name: str, stage: str, workspace: Path, source: Path, names: object) -> None:
        named = json.loads((workspace / params.FILE).read_text())["models"][name]["train"]["init"]["from"]
        assert not Path(named).is_absolute()
        start = workspace / named
        seen.append(files.sha256(start / model_files.WEIGHTS if start.is_dir() else start))
        raise PedigreeError("seen enough")

    monkeypatch.setattr(again, "_run", look)
    with pytest.raises(PedigreeError, match="seen enough"):
        again.reproduce(getattr(both, which), chain.root, here=True)
    assert seen == [files.sha256(other.folder / model_files.WEIGHTS)]


def test_a_version_whose_start_has_changed_or_is_gone_is_not_trained_again_from_another(chain, both):
    both.file.write_bytes(b"other weights")
    remedy = "restore what the version started from$"
    named = rf"^{both.file}, which train\.init\.from names,"
    with pytest.raises(
        DamagedError, match=rf"{named} has changed \(its SHA-256 started with [0-9a-f]{{12}}\): {remedy}"
    ):
        again.reproduce(both.from_file, chain.root, here=True)
    both.file.unlink()
    with pytest.raises(PedigreeError, match=rf"{named} is gone: {remedy}"):
        again.reproduce(both.from_file, chain.root, here=True)
    assert not list(chain.root.glob("build/reproduced/from-file*"))


@pytest.mark.long
def test_a_version_whose_starting_version_was_deleted_says_so(chain, tmp_path):
    parts = (chain.prepared, chain.trained, chain.evaluated)
    register.register(replace(chain.model, name="passing"), *parts, tmp_path / "registered.json")
    model = replace(model_from(chain, "models:/passing@champion"), name="from-passing")
    trained = train.train(model, chain.prepared, tmp_path / "model")
    address = register_from(chain, model, trained, tmp_path)
    MlflowClient().delete_registered_model("passing")
    with pytest.raises(
        PedigreeError, match=r"^train\.init\.from: there is no models:/passing/1: the registered mod"
    ):
        again.reproduce(address, chain.root, here=True)
    assert source_in_trace(chain, address)[1] == "gone"


@pytest.mark.long
@pytest.mark.parametrize("which", ["from_file", "from_version"])
def test_a_version_trained_again_from_the_same_start_has_bitwise_the_same_weights(chain, started, capsys, which):
    assert versions.reproduce(chain.root, getattr(started, which), here=True)
    said = capsys.readouterr().out
    assert "identical: " in said
    assert "changed" not in said, "nothing of the two lineages differs"
