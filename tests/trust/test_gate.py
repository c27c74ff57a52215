"""Each rule of the gate, on outcomes that are made so."""

import numpy as np
import pytest

from components.contracts import Outcomes
from components.params import EvaluateParams, GateParams
from components.trust.gate import Candidate, Rival, Rule, judge, markdown

DRAWS = EvaluateParams(workers=0, batch_size=1, bootstrap=2000, seed=0)
GATE = GateParams(
    at_least={"accuracy": 0.5}, at_most={"loss": 2}, level=0.95, class_margin=0.05, megabytes=10, milliseconds=50
)


def outcomes(right):
    """Of 400 samples of four classes."""
    names = [str(i) for i in range(400)]
    classes = [f"class {i % 4}" for i in range(400)]
    return Outcomes(names, np.asarray(right, np.float64), np.ones(400, np.int64), classes)


def candidate(right, **changes):
    of = outcomes(right)
    values = {"metrics": {"accuracy": of.mean, "loss": 1.0}, "megabytes": 4.0, "milliseconds": 7.0}
    return Candidate(outcomes=of, **{**values, **changes})


def failed(*arguments):
    return [rule.rule for rule in judge(*arguments, GATE, DRAWS) if not rule.passed]


EIGHTY = np.arange(400) % 5 > 0
NINETY = np.arange(400) % 10 > 0  # right wherever EIGHTY is, and at half of the rest


def test_a_first_version_within_its_bounds_passes():
    rules = judge(candidate(EIGHTY), None, "more", GATE, DRAWS)
    assert all(rule.passed for rule in rules)
    assert [rule.found for rule in rules] == ["0.8", "1", "there is no champion", "4.0 MB", "7.0 ms"]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"metrics": {"accuracy": 0.4, "loss": 1.0}}, "accuracy at least 0.5"),
        ({"metrics": {"accuracy": 0.8, "loss": 2.5}}, "loss at most 2"),
        ({"metrics": {"loss": 1.0}}, "accuracy at least 0.5"),
        ({"metrics": {"accuracy": float("nan"), "loss": 1.0}}, "accuracy at least 0.5"),
        ({"megabytes": 10.5}, "weights at most 10 MB"),
        ({"milliseconds": 51.0}, "an answer within 50 ms"),
    ],
)
def test_what_is_out_of_its_bounds_is_refused(change, rule):
    assert failed(candidate(EIGHTY, **change), None, "more") == [rule]


def test_a_better_version_passes():
    assert failed(candidate(NINETY), Rival("version 1", outcomes(EIGHTY)), "more") == []


@pytest.mark.parametrize("new", [EIGHTY, np.roll(EIGHTY, 1)])
def test_a_version_that_is_not_surely_better_is_refused(new):
    """It is the same one, or one that is right as often elsewhere."""
    found = failed(candidate(new), Rival("version 1", outcomes(EIGHTY)), "more")
    assert "better than the champion, 95.0% sure" in found


def test_a_lower_score_is_better_where_the_task_says_so():
    assert failed(candidate(EIGHTY), Rival("version 1", outcomes(NINETY)), "less") == []
    assert failed(candidate(NINETY), Rival("version 1", outcomes(EIGHTY)), "less")


def test_a_version_that_is_better_on_average_and_loses_a_class_is_refused_by_name():
    old = np.where(np.arange(400) % 4 == 2, 1.0, np.arange(400) // 4 % 2)  # class 2 all right, the others half
    new = np.where(np.arange(400) % 4 == 2, np.arange(400) // 4 % 4 > 0, 1.0)  # class 2 three quarters, others all
    (rule,) = (
        r for r in judge(candidate(new), Rival("version 1", outcomes(old)), "more", GATE, DRAWS) if not r.passed
    )
    assert rule.rule == "no class worse by more than 0.05"
    assert rule.found == "class 2 is worse by 0.25"


def test_a_rival_that_cannot_be_compared_with_refuses_with_the_reason():
    rival = Rival("version 3", None, "it cannot read the new test split, whose classes differ")
    rules = judge(candidate(NINETY), rival, "more", GATE, DRAWS)
    (rule,) = (rule for rule in rules if not rule.passed)
    assert rule.found == (
        "cannot be compared with version 3: it cannot read the new test split, whose classes differ"
    )


def test_the_verdict_is_a_table_with_a_row_for_each_rule():
    rules = judge(candidate(EIGHTY, milliseconds=90.0), None, "more", GATE, DRAWS)
    lines = markdown(rules).splitlines()
    assert len(lines) == 2 + len(rules)
    assert "| accuracy at least 0.5 | 0.8 | passed |" in lines
    assert "| an answer within 50 ms | 90.0 ms | **failed** |" in lines


@pytest.mark.parametrize("better", ["more", "less"])
def test_outcomes_that_are_no_numbers_never_pass(better):
    broken = np.where(np.arange(400) == 7, np.nan, EIGHTY)
    for new, old in ((broken, EIGHTY), (EIGHTY, broken)):
        rules = judge(candidate(EIGHTY), None, better, GATE, DRAWS)
        assert all(rule.passed for rule in rules)
        rival = Rival("version 1", outcomes(old))
        found = [rule.found for rule in judge(candidate(new), rival, better, GATE, DRAWS) if not rule.passed]
        assert "its outcomes, or the champion's, are not finite numbers" in found


def test_a_class_name_cannot_break_the_table():
    rules = [Rule("no class worse by more than 0", "a|b\nc is worse by 1", False)]
    assert (
        markdown(rules).splitlines()[-1] == "| no class worse by more than 0 | a/b c is worse by 1 | **failed** |"
    )
