"""The embedded commands are sentences of a closed grammar; without the voice, one sentence says what to install."""

from importlib.util import find_spec

import pytest
import soundfile

from components.errors import PedigreeError
from components.sound import voices
from components.tasks.speech_to_text import data

needs_voice = pytest.mark.skipif(
    find_spec("hibari") is None, reason="Hibari is not installed: the extra [demo] has it"
)


def test_all_commands_differ_and_have_letters_and_spaces_alone():
    lines = [each.text for each in data.sentences()]
    assert len(lines) == len(set(lines)) == 1000
    assert all(line.replace(" ", "").isalpha() and line.islower() for line in lines)
    assert len({word for line in lines for word in line.split()}) < 120


@needs_voice
@pytest.mark.long
def test_the_voice_speaks_byte_for_byte_the_same_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "SENTENCES", 3)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        data.commands(tmp_path / name)
    first, second = ({file.name: file.read_bytes() for file in (tmp_path / n).iterdir()} for n in ("one", "two"))
    assert first == second
    assert len(first) == 7
    assert first["0000.txt"].decode().strip()
    assert soundfile.info(tmp_path / "one" / "0000.wav").samplerate == 16_000


def test_without_the_package_one_sentence_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(voices, "find_spec", lambda name: None)
    with pytest.raises(PedigreeError, match=r"is not installed: install it with `uv pip install 'pedigree\[demo"):
        data.commands(tmp_path)


def test_a_voice_that_fails_is_named_with_its_last_line(tmp_path, monkeypatch):
    monkeypatch.setattr(voices, "find_spec", lambda name: name)
    monkeypatch.setattr(voices, "__file__", str(tmp_path / "voices.py"))
    (tmp_path / "hibari.py").write_text("raise SystemExit('no voice today')")
    with pytest.raises(PedigreeError, match=r"could not speak the embedded commands \(no voice today\): reinstall"):
        data.commands(tmp_path)
