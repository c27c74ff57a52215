"""Parameters of tasks on images."""

from typing import Annotated, Literal

from pydantic import Field

from components.params import FilesPrepareParams


class ImagePrepareParams(FilesPrepareParams):
    """How image files become arrays."""

    size: Annotated[int, Field(ge=28, le=1024)] | Literal["auto"] = Field(
        description="Side of the square images in pixels; auto derives it from the training files"
    )
    channels: Literal[1, 3, "auto"] = Field(description="1 is grey, 3 is RGB; auto is 1 if all files are grey")
    max_megapixels: float = Field(gt=0, le=89, description="Larger files are rejected as decompression bombs")
