"""Parameters of recordings, their transcripts and the features of sound."""

import re
from typing import Literal

from pydantic import Field, field_validator

from components.params import FilesPrepareParams, Section


class FeatureParams(Section):
    """The log-mel spectrogram that is the network's input."""

    mels: int = Field(ge=16, le=128, description="Number of bands, equally wide on the mel scale")
    window: float = Field(ge=0.005, le=0.1, description="Length of a frame's Hann window in seconds")
    hop: float = Field(ge=0.002, le=0.1, description="Seconds from one frame to the next")


class TranscriptParams(Section):
    """How transcripts are written before anything is learnt or counted."""

    lowercase: bool = Field(description="Whether all letters become small ones")
    punctuation: Literal["keep", "remove"] = Field(
        description="remove keeps letters, digits, apostrophes and spaces alone"
    )
    numbers: Literal["reject", "spell"] = Field(
        description="What happens to digits, which nobody says: reject rejects the recording, spell writes English "
        "words in their place"
    )


class RecordingsPrepareParams(FilesPrepareParams):
    """How recordings and transcripts become arrays."""

    speaker: str = Field(
        description="Regular expression for a file's name without suffix, whose group `speaker` is the speaker "
        "where the layout names none; empty finds none"
    )
    text: TranscriptParams
    rate: int = Field(ge=4000, le=48_000, description="Samples per second to which every recording is resampled")
    max_seconds: float = Field(gt=0, le=600, description="Longer recordings are rejected")
    max_clipped: float = Field(ge=0, le=1, description="Largest share of samples at full scale in a recording")

    @field_validator("speaker")
    @classmethod
    def _tells_the_speaker(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groupindex
        except re.error as error:
            raise ValueError(f"is not a regular expression ({error})") from None
        if pattern and "speaker" not in groups:
            raise ValueError("has no group named speaker: write (?P<speaker>…) around the speaker's name")
        return pattern
