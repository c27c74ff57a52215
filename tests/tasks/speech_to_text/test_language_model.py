"""A registered language model of characters weighs what is heard, in evaluation and in answers alike."""

from dataclasses import replace

import pytest

from components import models, params
from components.errors import PedigreeError
from components.stages import evaluate, prepare, register, train
from components.tasks.speech_to_text import model as network
from components.training import model_files
from components.trust import lineage

pytestmark = pytest.mark.long
ONCE = {"validation": {"every": 1_000_000, "samples": 0}, "epochs": 1}


def trained_on_lines(chain_of, folder, **tokenizer):
    """Register a language model of the embedded texts under a name of its own; return its name and version."""
    chain = chain_of("docstrings")
    changes = params.Values({"prepare": {"tokenizer": tokenizer}, "train": ONCE}, {})
    tree = changes.over(params.Values(chain.values.model_dump(by_alias=True), {})).tree
    model = replace(chain.having(chain.task.params.model_validate(tree)), name=folder.name)
    prepared = prepare.prepare(model, model.raw, folder / "prepared")
    trained = train.train(model, prepared, folder / "model")
    evaluated = evaluate.evaluate(model, prepared, trained, folder / "evaluation")
    register.register(model, prepared, trained, evaluated, folder / "registered.json")
    return f"models:/{folder.name}/1"


def with_language_model(chain, named):
    changes = params.Values({"train": ONCE | {"language_model": named}}, {})
    tree = changes.over(params.Values(chain.values.model_dump(by_alias=True), {})).tree
    return chain.having(chain.task.params.model_validate(tree))


def test_a_registered_language_model_of_characters_takes_part_and_is_an_ancestor(chain_of, tmp_path):
    named = trained_on_lines(chain_of, tmp_path / "letters", name="char")
    chain = chain_of("commands")
    model = with_language_model(chain, named)
    trained = train.train(model, chain.prepared, tmp_path / "model")
    assert lineage.read(trained.folder).sources[network.LANGUAGE_MODEL].exact == named
    evaluated = evaluate.evaluate(model, chain.prepared, trained, tmp_path / "evaluation")
    registered = register.register(
        replace(model, name="with-letters"), chain.prepared, trained, evaluated, tmp_path / "registered.json"
    )
    assert registered.version == 1
    rebuilt = model_files.rebuild(model.task, trained.folder)
    assert rebuilt.language_model is not None
    # What is served is what was evaluated: the table of transcripts has each file's text.
    predict = model_files.load_predict(model.task, trained.folder)
    rows = list(model.task.rows(chain.prepared, lambda: model.raw))
    answers = predict(rows, {})
    table = (evaluated.folder / "examples" / "transcripts.csv").read_text()
    assert [answer["text"] for answer in answers] == [line.split(",")[3] for line in table.splitlines()[1:]]


def test_a_language_model_of_word_pieces_is_rejected_before_training_starts(chain_of, tmp_path):
    named = trained_on_lines(chain_of, tmp_path / "pieces", name="bpe")
    chain = chain_of("commands")
    with pytest.raises(PedigreeError, match=rf"^{named} has bpe tokens, and characters are needed"):
        train.train(with_language_model(chain, named), chain.prepared, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_byte_pairs_and_a_language_model_of_characters_exclude_each_other(chain_of):
    values = chain_of("commands").values.model_dump(by_alias=True)
    values["prepare"]["tokens"]["name"] = "bpe"
    values["train"]["language_model"] = "models:/letters@champion"
    with pytest.raises(ValueError, match=r"set it to char, or language_model to ''"):
        models.tasks.load("speech_to_text").params.model_validate(values)
