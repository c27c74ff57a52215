"""What a user turns for tones: nothing beyond what all tasks share."""

from components.params import TaskParams


class TonesParams(TaskParams):
    """The parameters of all tasks."""
