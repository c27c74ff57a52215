"""What a user turns for a straight line: nothing beyond what all tasks share."""

from components.params import TaskParams


class ToyParams(TaskParams):
    """tasks.toy in params.yaml."""
