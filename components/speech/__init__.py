"""Recognition of spoken words with a CNN-LSTM."""

from components.batches import in_order, shuffled
from components.contracts import Task
from components.speech import data, evaluate, model, prepare, register, train
from components.speech.params import SpeechParams

TASK = Task(
    name="speech",
    params=SpeechParams,
    default_data=data.espeak,
    public_data={"speech_commands": data.speech_commands},
    prepare=prepare.prepare,
    build_model=model.build_model,
    initialise=model.initialise,
    load_split=prepare.load_split,
    train_batches=shuffled,
    eval_batches=in_order,
    augment=train.augment,
    step=train.step,
    metrics=train.metrics,
    predict=train.predict,
    evaluate=evaluate.evaluate,
    outcomes=evaluate.outcomes,
    scale=float,
    readable=frozenset({"classes", "rate", "seconds"}),
    score="accuracy",
    better="more",
    served=register.served,
    load_predict=register.load_predict,
)
