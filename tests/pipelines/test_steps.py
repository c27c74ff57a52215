"""The stages as a flow runs them."""

import logging
import threading
import time
from dataclasses import replace

import pytest
from filelock import FileLock

from components.adapters import dvc_data
from components.errors import PedigreeError
from components.runtime import files
from components.stages import prepare
from pipelines import steps


@pytest.fixture
def busy(chain):
    """Somebody else's DVC command, such as a `dvc repro` that trains for hours."""
    lock = dvc_data._lock(chain.root)
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock, thread_local=False, is_singleton=False):
        yield


def test_a_flow_prepares_without_dvc_while_dvc_is_busy(chain, busy, tmp_path, caplog):
    caplog.set_level(logging.INFO, "pedigree.flow")
    prepared = steps.prepare.fn(chain.model, tmp_path / "prepared")
    assert prepared.manifest == chain.prepared.manifest
    assert "uses DVC: preparing digits without it" in caplog.text


def test_two_preparations_of_one_model_wait_for_each_other(chain, busy, tmp_path, caplog):
    caplog.set_level(logging.INFO, "pedigree.lock")
    events: list[str] = []

    def watched(raw, out, params):
        number = out.parent.name
        events.append(f"{number} begins")
        if number == "first":
            second.start()
            while "waiting for the preparation of digits" not in caplog.text:
                assert second.is_alive()
                time.sleep(0.01)
        manifest = chain.task.prepare(raw, out, params)
        events.append(f"{number} ends")
        return manifest

    model = replace(chain.model, task=replace(chain.task, prepare=watched))
    second = threading.Thread(target=steps.prepare.fn, args=(model, tmp_path / "second" / "prepared"))
    steps.prepare.fn(model, tmp_path / "first" / "prepared")
    second.join()
    assert events == ["first begins", "first ends", "second begins", "second ends"]
    assert prepare.load(tmp_path / "second" / "prepared").manifest == chain.prepared.manifest


def test_a_flow_prepares_data_that_dvc_cannot_read_without_it(chain, tmp_path):
    link = chain.model.raw / "train" / "0" / "gone.png"
    link.symlink_to("nowhere")
    try:
        prepared = steps.prepare.fn(chain.model, tmp_path / "prepared")
    finally:
        link.unlink()
    assert [each.file for each in prepared.manifest.rejected] == ["train/0/gone.png"]
    assert prepared.manifest.raw == chain.prepared.manifest.raw


def test_another_attempt_uses_the_data_that_the_first_prepared_although_others_are_pinned_by_now(
    chain, tmp_path, caplog
):
    caplog.set_level(logging.INFO, "pedigree.flow")
    out, raw = tmp_path / "prepared", chain.prepared.manifest.raw
    files.link_folder(chain.prepared.folder, out)
    assert steps.prepare.fn(chain.model, out, raw).manifest == chain.prepared.manifest
    assert caplog.text == ""
    other = replace(chain.model, data="others")
    assert steps.prepare.fn(other, out, raw).manifest == chain.prepared.manifest
    assert "was changed after this flow run had prepared it: it uses what it prepared" in caplog.text
    (out / "manifest.json").unlink()
    with pytest.raises(PedigreeError, match="data/others is missing"):
        steps.prepare.fn(other, out, raw)
    assert "what this flow run had prepared is gone" in caplog.text


def test_a_model_that_params_yaml_lost_is_prepared_without_dvc(chain, tmp_path):
    other = replace(chain.model, name="lost")
    assert steps.prepare.fn(other, tmp_path / "prepared").manifest.raw == chain.prepared.manifest.raw
