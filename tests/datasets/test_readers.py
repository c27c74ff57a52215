"""What reads many files at once: other processes, which end with the one that they read for."""

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import psutil
import pytest

from components import models
from components.datasets import readers
from components.datasets.readers import ahead
from components.errors import PedigreeError
from components.stages import prepare
from tests.conftest import ROOT
from tests.datasets.reading import dies, half


@pytest.mark.parametrize("many", [1, 10_000], ids=["processes", "threads"])
def test_all_files_come_in_their_order_whoever_reads_them(many, monkeypatch):
    monkeypatch.setattr(readers, "MANY", many)
    files = [str(number) for number in range(100)]
    with readers.readers(len(files)) as pool:
        found = list(ahead(pool, half, ValueError, files))
    assert [file for file, _ in found] == files
    read = [what if isinstance(what, str) else what[0] for _, what in found]
    assert read == [f"{number} is odd" if number % 2 else number // 2 for number in range(100)]
    assert (os.getpid() in {what[1] for _, what in found if not isinstance(what, str)}) == (many > 1)


def test_there_are_as_many_readers_as_processors_that_this_process_may_use():
    one = sorted(os.sched_getaffinity(0))[0]
    command = [
        "taskset",
        "--cpu-list",
        f"{one}",
        sys.executable,
        "-c",
        "from components.datasets import readers as r; print(r.READERS)",
    ]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "1\n"
    assert len(os.sched_getaffinity(0)) == readers.READERS


def test_of_few_files_each_reader_has_some():
    sizes = []

    class Pool(ThreadPoolExecutor):
        def submit(self, call, *given):
            sizes.append(len(given[-1]))
            return super().submit(call, *given)

    with Pool(4) as pool:
        found = list(ahead(readers.Readers(pool, 4, 32), half, ValueError, [f"{number}" for number in range(10)]))
        assert list(ahead(readers.Readers(pool, 4, 32), half, ValueError, [])) == []
    assert sizes == [3, 3, 3, 1]
    assert [file for file, _ in found] == [f"{number}" for number in range(10)]


def test_a_reader_that_is_killed_is_reported_in_a_sentence(monkeypatch):
    monkeypatch.setattr(readers, "MANY", 1)
    with (
        readers.readers(1) as pool,
        pytest.raises(PedigreeError, match="died, perhaps because memory"),
    ):
        list(ahead(pool, dies, ValueError, ["1"]))


READ = """
import signal, sys
from components.datasets import readers
from tests.datasets.reading import slow

readers.MANY = 1
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell starts with `&`
with readers.readers(1) as pool:
    list(readers.ahead(pool, slow, ValueError, [sys.argv[1]] * 1000))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_readers_end_with_a_process_that_is_ended(number, tmp_path):
    with subprocess.Popen([sys.executable, "-c", READ, str(tmp_path)], cwd=ROOT) as process:
        family, end = [], time.monotonic() + 60
        try:
            while len(list(tmp_path.iterdir())) < readers.PROCESSES:
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.2)
            family = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(number)
            process.wait(10)
            _, alive = psutil.wait_procs(family, timeout=10)
            assert alive == []
        finally:
            process.kill()
            for child in family:
                with suppress(psutil.NoSuchProcess):
                    child.kill()


@pytest.mark.parametrize("name", ["digits", pytest.param("words", marks=pytest.mark.long)])
def test_processes_prepare_what_threads_do(name, project, tmp_path, monkeypatch):
    model = models.load(project, name)
    raw = tmp_path / "raw"
    shutil.copytree(project / "data" / name, raw)
    folder = next(path.parent for path in sorted(raw.rglob("*")) if path.suffix in {".bmp", ".png", ".wav"})
    (folder / "broken.png").write_bytes(b"no picture, and no sound")
    (folder / os.fsdecode(b"\xff.wav")).write_bytes(b"")
    more = model.params.prepare.model_copy(update={"max_rejected": 0.9})
    model = replace(model, params=model.params.model_copy(update={"prepare": more}))
    monkeypatch.setattr(readers, "PROCESSES", 1)  # each loads torch; the order among several is tested above
    sums = set()
    for many in (1, 10**9):
        monkeypatch.setattr(readers, "MANY", many)
        done = prepare.prepare(model, raw, tmp_path / f"{many}")
        assert len(done.manifest.rejected) >= 2
        sums.add((done.folder / "SHA256SUMS").read_text())
    assert len(sums) == 1
