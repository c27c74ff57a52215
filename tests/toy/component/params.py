"""What a user turns for a straight line: nothing beyond what all tasks share."""

from components.params import TaskParams


class ToyParams(TaskParams):
    """The parameters of a model of the task toy."""
