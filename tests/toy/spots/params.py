"""Parameters of the detection of spots, which are only those of all tasks."""

from components.params import TaskParams


class SpotsParams(TaskParams):
    """The parameters of all tasks."""
