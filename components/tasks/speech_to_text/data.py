"""The embedded recordings: commands that a program speaks."""

from importlib.util import find_spec
from pathlib import Path

from components.errors import PedigreeError
from components.sound import voices
from components.sound.recordings.recording import SYNTHETIC

NOTICE = """\
No person spoke these recordings. Hibari did (Apache-2.0, the package hibari-tts): commands of a closed grammar
in one voice, at three speeds and three pitches. They show that everything works; how well a network understands
people they do not show.
"""


def commands(folder: Path) -> None:
    """Write 1,000 recordings to folder/<number>.wav, each with its .txt, and a notice to SYNTHETIC.txt.

    Raises:
        PedigreeError: the voice is not installed or fails.
    """
    if find_spec("hibari") is None:
        raise PedigreeError(
            "Hibari, the voice of the embedded commands, is not installed: install it with `uv pip install "
            "'pedigree[demo]'`, or put your own recordings in data/commands/"
        )
    if reason := voices.speak("hibari.py", folder):
        raise PedigreeError(
            f"Hibari could not speak the embedded commands ({reason}): reinstall hibari-tts, or put your own "
            "recordings in data/commands/"
        )
    (folder / SYNTHETIC).write_text(NOTICE, encoding="utf-8")
