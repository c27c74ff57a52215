import hashlib
import io
import pickle
import tarfile
import threading
import urllib.request
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.errors import PedigreeError
from components.images.embedded.digits import digits as write_digits
from components.params import read, validate
from components.tasks.image_classification import data
from components.tasks.image_classification.params import VisionParams
from components.tasks.image_classification.prepare import VisionFacts, prepare

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def tree_hash(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder)
    return folder


def test_there_are_four_hundred_digits_of_each_kind_to_train_on_and_one_hundred_to_test(digits):
    counts = Counter(str(path.parent.relative_to(digits)) for path in digits.rglob("*.bmp"))
    assert counts == {f"{split}/{d}": n for split, n in (("train", 400), ("test", 100)) for d in range(10)}


def test_the_digits_are_byte_for_byte_the_same_every_time(digits):
    # Pinned: another machine or a newer Pillow must write these very bytes, for data.dvc names them.
    assert tree_hash(digits) == "a0345537a05bcd314e3621208313bfe8f65222c18f2ff5523a59c12b3569ebf2"


def test_the_digits_can_all_be_used_and_none_is_in_two_splits(digits, tmp_path):
    params = validate(VisionParams, read(Path(__file__).parents[2] / "params.yaml"), ("models", "digits"))
    manifest = prepare(digits, tmp_path, params)
    facts = VisionFacts.model_validate(manifest.facts)
    assert manifest.rejected == []
    assert {name: split.samples for name, split in manifest.splits.items()} == {
        "test": 1000,
        "val": 400,
        "train": 3600,
    }
    assert (facts.size, facts.channels, facts.classes) == (28, 1, list("0123456789"))
    assert facts.mean == pytest.approx([0.1307], abs=0.002)  # as published for all of MNIST
    assert facts.std == pytest.approx([0.3081], abs=0.002)


class Python2Pickler(pickle._Pickler):
    """Writes byte strings as Python 2 did, and so as the published batches are written."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_string(self, value):
        value = value.encode() if isinstance(value, str) else value
        self.write(b"T" + len(value).to_bytes(4, "little") + value)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string

    def save_global(self, obj, name=None):
        module = {"numpy._core.multiarray": "numpy.core.multiarray"}.get(obj.__module__, obj.__module__)
        self.write(f"c{module}\n{obj.__name__}\n".encode())
        self.memoize(obj)

    dispatch[type] = dispatch[type(len)] = dispatch[type(tree_hash)] = save_global


def dumped(value) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue()


def archive(path: Path, members: dict[str, bytes], *others: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in others:
            tar.addfile(info)
    return path


@pytest.fixture
def batches() -> dict[str, dict]:
    source = np.random.default_rng(0)
    return {
        name: {
            "batch_label": f"batch {i}",
            "labels": source.integers(0, 10, 8).tolist(),
            "data": source.integers(0, 256, (8, 3072), np.uint8),
            "filenames": [f"{i}-{j}.png" for j in range(8)],
        }
        for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"])
    }


@pytest.fixture
def members(batches) -> dict[str, bytes]:
    meta = {"label_names": CLASSES, "num_cases_per_batch": 8, "num_vis": 3072}
    return {name: dumped(value) for name, value in batches.items()} | {"batches.meta": dumped(meta)}


def test_cifar10_images_keep_their_pixels_their_order_and_their_classes(tmp_path, batches, members):
    data.convert_cifar10(archive(tmp_path / "a.tar.gz", members), tmp_path / "raw")
    for split, count in (("train", 40), ("test", 8)):
        files = {int(path.stem): path for path in (tmp_path / "raw" / split).rglob("*.png")}
        assert sorted(files) == list(range(count))
        for index, path in files.items():
            batch = batches["test_batch" if split == "test" else f"data_batch_{index // 8 + 1}"]
            assert path.parent.name == CLASSES[batch["labels"][index % 8]]
            planes = batch["data"][index % 8].reshape(3, 32, 32)  # red, green, blue
            assert np.array_equal(np.asarray(Image.open(path)), planes.transpose(1, 2, 0))


def test_a_batch_that_would_run_code_is_rejected(tmp_path, members):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "trapped",)

    members["data_batch_1"] = pickle.dumps(Trap(), protocol=2)
    with pytest.raises(pickle.UnpicklingError, match="is not part of an array"):
        data.convert_cifar10(archive(tmp_path / "a.tar.gz", members), tmp_path / "raw")
    assert not (tmp_path / "trapped").exists()


def test_classes_that_would_be_folders_elsewhere_are_rejected(tmp_path, members):
    names = ["../../outside", *CLASSES[1:]]
    members["batches.meta"] = dumped({"label_names": names})
    with pytest.raises(PedigreeError, match="has classes that are not words: it is not CIFAR-10: remove it"):
        data.convert_cifar10(archive(tmp_path / "a.tar.gz", members), tmp_path / "raw")
    assert not list(tmp_path.rglob("outside"))


@pytest.mark.parametrize("kind", ["missing", "link", "hard link", "device", "large"])
def test_a_batch_that_is_missing_or_is_not_a_file_of_its_size_is_rejected(tmp_path, members, monkeypatch, kind):
    kinds = {"link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}
    others = []
    if kind == "large":
        monkeypatch.setattr(data, "LARGEST", 1000)
    else:
        del members["data_batch_1"]
    if kind in kinds:
        others = [tarfile.TarInfo("cifar-10-batches-py/data_batch_1")]
        others[0].type, others[0].linkname = kinds[kind], "/etc/passwd"
    path = archive(tmp_path / "a.tar.gz", members, *others)
    with pytest.raises(
        PedigreeError, match=r"data_batch_1 is missing, or is not a file of at most .* it is not CIFAR"
    ):
        data.convert_cifar10(path, tmp_path / "raw")


@pytest.fixture
def offline(monkeypatch):
    def fail(*args, **kwargs):
        raise urllib.error.URLError("Temporary failure in name resolution")

    monkeypatch.setattr(urllib.request, "urlopen", fail)


@pytest.mark.usefixtures("offline")
def test_without_a_network_the_error_says_where_to_put_the_archive(tmp_path):
    from torchvision.datasets import CIFAR10

    with pytest.raises(PedigreeError) as error:
        data.cifar10(tmp_path / "raw", tmp_path / "cache")
    assert str(error.value) == (
        "CIFAR-10 could not be fetched from www.cs.toronto.edu (Temporary failure in name resolution): try again, "
        f"or put the file with md5 {CIFAR10.tgz_md5} at {tmp_path / 'cache' / CIFAR10.filename}"
    )


@pytest.mark.usefixtures("offline")
def test_an_archive_in_the_cache_is_taken_only_if_it_is_the_published_one(tmp_path, members, monkeypatch):
    from torchvision.datasets import CIFAR10

    (tmp_path / "cache").mkdir()
    path = archive(tmp_path / "cache" / CIFAR10.filename, members)
    with pytest.raises(PedigreeError, match="could not be fetched"):
        data.cifar10(tmp_path / "raw", tmp_path / "cache")
    assert not (tmp_path / "raw").exists()
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())
    data.cifar10(tmp_path / "raw", tmp_path / "cache")
    assert len(list((tmp_path / "raw").rglob("*.png"))) == 48


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server on this machine in the place of torchvision's, which sends the files of tmp_path/served."""
    from torchvision.datasets import CIFAR10

    (tmp_path / "served").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "served")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{CIFAR10.filename}")
        yield tmp_path / "served" / CIFAR10.filename
        server.shutdown()


def test_the_archive_is_fetched_once(tmp_path, server, members, monkeypatch):
    from torchvision.datasets import CIFAR10

    archive(server, members)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(server.read_bytes()).hexdigest())
    data.cifar10(tmp_path / "raw", tmp_path / "cache")
    server.unlink()
    data.cifar10(tmp_path / "again", tmp_path / "cache")
    assert tree_hash(tmp_path / "raw") == tree_hash(tmp_path / "again")


def test_an_archive_that_arrives_damaged_is_rejected(tmp_path, server):
    server.write_bytes(b"half of it")
    with pytest.raises(PedigreeError, match=r"is not what was published .*: remove it and try again"):
        data.cifar10(tmp_path / "raw", tmp_path / "cache")
    assert not (tmp_path / "raw").exists()


def test_a_server_without_the_archive_is_named(tmp_path, server):
    with pytest.raises(
        PedigreeError, match=r"could not be fetched from 127\.0\.0\.1:\d+ \(File not found\): try again"
    ):
        data.cifar10(tmp_path / "raw", tmp_path / "cache")
