"""A registered recogniser listens to a voice beside the score; if there is none, its error rate is left out."""

import logging

import pytest

from components.jobs import sources
from components.params import Values
from components.stages import evaluate
from tests.conftest import Chain


def listening(chain: Chain, named: str):
    """Return the chain's model with a recogniser."""
    tree = Values({"evaluate": {"recogniser": named}}, {}).over(Values(chain.values.model_dump(by_alias=True), {}))
    return chain.having(chain.task.params.model_validate(tree.tree))


@pytest.mark.long
def test_the_champion_of_a_recogniser_listens_to_what_is_said_and_to_the_recordings(chain_of, tmp_path):
    chain, recogniser = chain_of("voice"), chain_of("commands").registered
    model = listening(chain, f"models:/{recogniser.name}/{recogniser.version}")
    found = evaluate.evaluate(model, chain.prepared, chain.trained, tmp_path / "evaluation").metrics
    assert {"wer", "wer_of_recordings"} <= found.keys()
    assert found["wer"] > 0, "it has learnt an invented language of tones"
    score = chain.task.score(chain.prepared.manifest).name
    assert found[score] == chain.evaluated.metrics[score]


@pytest.mark.long
def test_a_recogniser_that_is_not_there_is_left_out_and_the_log_says_so(chain_of, caplog):
    chain = chain_of("voice")
    with caplog.at_level(logging.INFO, "pedigree.sources"):
        assert sources.of_evaluation(listening(chain, "models:/nobody@champion").params, chain.root) == {}
    assert "evaluate.recogniser: there is no models:/nobody@champion" in caplog.text
    assert caplog.text.strip().endswith("; what needs it is left out")
