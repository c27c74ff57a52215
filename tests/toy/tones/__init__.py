"""What comes next in a sequence? Sequences of unequal length, a loss that counts tokens, and answers in bytes.

It stands for translation and synthesis: padded sequences in buckets, and binary answers.
"""

from components.tasks.tones import task
from components.tasks.tones.params import TonesParams

from components.contracts import Task
from components.datasets.splits import Columns

TASK = Task[TonesParams, Columns](
    name="tones",
    params=TonesParams,
    embedded={"tones": task.embedded},
    public_data={},
    prepare=task.prepare,
    load_split=task.load_split,
    build_model=task.build_model,
    step=task.step,
    better={"loss": "less"},
    predict=task.predict,
    outcomes=task.outcomes,
    score=task.score,
    evaluate=task.evaluate,
    served=task.served,
    load_predict=task.load_predict,
)
