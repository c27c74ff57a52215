"""Parameters of the features of sound."""

from pydantic import Field

from components.params import Section


class FeatureParams(Section):
    """The log-mel spectrogram that is the network's input."""

    mels: int = Field(ge=16, le=128, description="Number of bands, equally wide on the mel scale")
    window: float = Field(ge=0.005, le=0.1, description="Length of a frame's Hann window in seconds")
    hop: float = Field(ge=0.002, le=0.1, description="Seconds from one frame to the next")
