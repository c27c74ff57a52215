"""Each rule of the gate, on outcomes that are made so."""

import json

import numpy as np
import pytest

from components import scores
from components.contracts import Outcomes
from components.params import GateParams
from components.trust.gate import BETTER, Candidate, Champion, Rule, allowed, compared, judge, markdown, parse

GATE = GateParams(
    at_least={"accuracy": 0.5},
    at_most={"loss": 2},
    level=0.95,
    margins={"class": 0.05},
    pinned=False,
    megabytes=10,
    milliseconds=50,
)


def outcomes(right):
    """Of 400 samples of four classes."""
    names = [str(i) for i in range(400)]
    classes = [f"class {i % 4}" for i in range(400)]
    return Outcomes(names, {"correct": np.asarray(right, np.float64)}, groups={"class": classes})


def candidate(right, **changes):
    values = {"metrics": {"accuracy": np.mean(right), "loss": 1.0}, "megabytes": 4.0, "milliseconds": 7.0}
    return Candidate(**{"outcomes": outcomes(right), **values, **changes})


def score(better):
    return scores.ratio("accuracy", better, "correct", share=True)


def failed(new, champion, better, gate=GATE):
    return [rule.rule for rule in judge(new, champion, score(better), gate, 0) if not rule.passed]


EIGHTY = np.arange(400) % 5 > 0
NINETY = np.arange(400) % 10 > 0  # right wherever EIGHTY is, and at half of the rest


def test_a_first_version_within_its_bounds_passes():
    rules = judge(candidate(EIGHTY), None, score("more"), GATE, 0)
    assert all(rule.passed for rule in rules)
    assert [rule.found for rule in rules] == [
        "0.8",
        "1",
        "there is no champion",
        "4.0 MB",
        "7.0 ms, the fastest of several",
    ]


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
def test_what_is_out_of_its_bounds_is_rejected(change, rule):
    assert failed(candidate(EIGHTY, **change), None, "more") == [rule]


def test_a_version_whose_data_are_not_pinned_is_rejected_where_the_gate_demands_it():
    gate = GATE.model_copy(update={"pinned": True})
    for champion in (None, Champion("version 1", outcomes(EIGHTY))):
        assert failed(candidate(NINETY), champion, "more", gate) == []
        assert failed(candidate(NINETY, pinned=False), champion, "more", gate) == ["data pinned by DVC"]
        assert failed(candidate(NINETY, pinned=False), champion, "more") == []
    (first, *_) = judge(candidate(NINETY, pinned=False), None, score("more"), gate, 0)
    assert (first.found, first.objection) == ("not pinned", "its data were not pinned by DVC")


def test_a_version_whose_test_samples_say_little_of_others_is_rejected_with_the_reason():
    (rule, *others) = judge(candidate(NINETY, untested="there is no folder test"), None, score("more"), GATE, 0)
    assert (rule.passed, rule.objection) == (False, "there is no folder test")
    assert all(each.passed for each in others)


def test_a_better_version_passes():
    assert failed(candidate(NINETY), Champion("version 1", outcomes(EIGHTY)), "more") == []


@pytest.mark.parametrize("new", [EIGHTY, np.roll(EIGHTY, 1)])
def test_a_version_that_is_not_surely_better_is_rejected(new):
    """It is the same one, or one that is right as often elsewhere."""
    found = failed(candidate(new), Champion("version 1", outcomes(EIGHTY)), "more")
    assert BETTER in found


def test_a_lower_score_is_better_where_the_task_says_so():
    assert failed(candidate(EIGHTY), Champion("version 1", outcomes(NINETY)), "less") == []
    assert failed(candidate(NINETY), Champion("version 1", outcomes(EIGHTY)), "less")


def test_a_version_that_is_better_on_average_and_loses_a_class_is_rejected_by_name():
    old = np.where(np.arange(400) % 4 == 2, 1.0, np.arange(400) // 4 % 2)  # class 2 all right, the others half
    new = np.where(np.arange(400) % 4 == 2, np.arange(400) // 4 % 4 > 0, 1.0)  # class 2 three quarters, others all
    (rule,) = (
        r
        for r in judge(candidate(new), Champion("version 1", outcomes(old)), score("more"), GATE, 0)
        if not r.passed
    )
    assert rule.rule == "no class worse by more than 0.05"
    assert rule.found == "class 2 is worse by 0.25"
    assert rule.objection == "class class 2 lost 25 points"


def test_a_class_that_lost_as_much_as_chance_takes_does_not_reject_a_version():
    old = outcomes(EIGHTY).columns["correct"].copy()
    new = old.copy()
    new[np.flatnonzero((np.arange(400) % 4 == 2) & (old == 1))[:6]] = 0  # six of a hundred, where five are allowed
    new[np.flatnonzero((np.arange(400) % 4 != 2) & (old == 0))] = 1
    rules = judge(candidate(new), Champion("version 1", outcomes(old)), score("more"), GATE, 0)
    assert all(rule.passed for rule in rules)
    assert any(rule.found.startswith("class 2 is worse by 0.06, which may be chance (p = ") for rule in rules)
    strict = GATE.model_copy(update={"margins": {"class": 0}})
    assert failed(candidate(new), Champion("version 1", outcomes(old)), "more", strict) == [
        "no class worse by more than 0"
    ]


def test_a_group_of_few_samples_is_named_and_not_judged():
    names = ["rare" if i < 9 else "often" for i in range(400)]
    old, new = EIGHTY.astype(float), NINETY.astype(float)
    old[:9], new[:9] = 1, 0
    samples = [str(i) for i in range(400)]
    pair = [Outcomes(samples, {"correct": each}, groups={"class": names}) for each in (old, new)]
    rules = judge(candidate(new, outcomes=pair[1]), Champion("version 1", pair[0]), score("more"), GATE, 0)
    (rule,) = (rule for rule in rules if rule.rule.startswith("no class"))
    assert (rule.passed, rule.found) == (True, "none is worse; too few samples to judge: rare (9)")


def by_speaker(right, speakers):
    samples = [str(i) for i in range(400)]
    return Outcomes(samples, {"correct": right}, clusters=[f"speaker {i % speakers}" for i in range(400)])


def against(old, new, speakers, earlier=0):
    old, new = (by_speaker(each.astype(float), speakers) for each in (old, new))
    gate = GATE.model_copy(update={"margins": {}})
    rules = judge(candidate(EIGHTY, outcomes=new), Champion("version 1", old), score("more"), gate, earlier)
    (rule,) = (rule for rule in rules if rule.rule == BETTER)
    return rule


@pytest.mark.parametrize("speakers", [2, 3, 4])
def test_two_to_four_sources_promote_nothing_and_the_verdict_says_how_many_are_needed(speakers):
    rule = against(EIGHTY, np.ones(400), speakers)
    assert not rule.passed
    assert rule.objection == (
        f"test samples of {speakers} sources cannot show that it is better than version 1: at least 5 sources are "
        "needed"
    )


def test_a_verdict_from_one_source_says_that_it_holds_for_this_source():
    rule = against(EIGHTY, NINETY, 1)
    assert rule.passed
    assert rule.found.endswith("; for its only source, speaker 0")


def test_a_verdict_gives_the_difference_its_interval_and_its_p_value():
    found = against(EIGHTY, np.ones(400), 13).found
    assert found == (
        "+0.2 [+0.1928, +0.2072] against version 1, p < 0.0001, "
        "at most 0.025 for the 1st challenger of this test split"
    )


def test_each_further_challenger_needs_stronger_evidence():
    levels = [allowed(0.95, earlier) for earlier in range(1000)]
    assert sum(levels) < 0.05
    assert sum(levels) == pytest.approx(0.05, rel=0.01)
    new = EIGHTY.copy()
    new[np.flatnonzero(~EIGHTY)[:6]] = True
    assert against(EIGHTY, new, 400).passed
    late = against(EIGHTY, new, 400, earlier=9)
    assert not late.passed
    assert late.objection == "not surely better than version 1"
    assert "p = 0.0068, at most 0.00045 for the 10th challenger of this test split" in late.found


def test_only_a_version_that_was_compared_with_a_champion_counts_as_a_challenger():
    champion = Champion("version 1", outcomes(EIGHTY))
    assert compared(judge(candidate(EIGHTY), champion, score("more"), GATE, 0))
    assert not compared(judge(candidate(EIGHTY), None, score("more"), GATE, 0))
    assert not compared(judge(candidate(EIGHTY), Champion("version 1", None, "gone"), score("more"), GATE, 0))
    old = [{"rule": "better than the champion, 95.0% sure", "found": "97.0%: +0.1 [+0, +0.2] against version 1"}]
    assert compared(parse(json.dumps([each | {"passed": True} for each in old])))


def test_a_score_that_is_no_share_is_worse_by_its_own_unit():
    decibels = scores.ratio("snr", "more", "correct")
    old, new = candidate(NINETY).outcomes, candidate(EIGHTY)
    rules = judge(new, Champion("version 1", old), decibels, GATE, 0)
    assert [rule.objection for rule in rules if rule.rule.startswith("no class")] == [
        "class class 1 is worse by 0.2, class 3 is worse by 0.2"
    ]


def sites(right, names=("north", "south", "east", "west")):
    return Outcomes([str(i) for i in range(400)], {"correct": right}, groups={"site": [*names] * 100})


def test_each_kind_of_group_has_a_margin_of_its_own():
    old, new = np.tile([1.0, 1.0, 0.0, 0.0], 100), np.tile([0.0, 1.0, 1.0, 1.0], 100)
    gate = GATE.model_copy(update={"margins": {"site": 0.5}})
    champion, challenger = Champion("version 1", sites(old)), candidate(new, outcomes=sites(new))
    (rule,) = (rule for rule in judge(challenger, champion, score("more"), gate, 0) if not rule.passed)
    assert (rule.rule, rule.found) == ("no site worse by more than 0.5", "north is worse by 1")
    assert failed(challenger, champion, "more", GATE.model_copy(update={"margins": {"site": 1}})) == []
    assert failed(challenger, champion, "more", GATE.model_copy(update={"margins": {}})) == []


def test_a_margin_for_a_kind_of_group_that_nothing_is_of_is_rejected():
    gate = GATE.model_copy(update={"margins": {"clas": 0.05}})
    for champion in (None, Champion("version 1", outcomes(EIGHTY))):
        (rule,) = (rule for rule in judge(candidate(NINETY), champion, score("more"), gate, 0) if not rule.passed)
        assert (rule.rule, rule.found) == ("no clas worse by more than 0.05", "not measured")


def recall():
    """Of what should be found: a group with nothing to find has none."""
    return scores.ratio("recall", "more", "correct", "there")


def finds(cats, dogs):
    """Of ten samples of cats and ten of dogs: (found, there to be found) of each."""
    columns = {
        "correct": np.repeat([float(cats[0]), float(dogs[0])], 10),
        "there": np.repeat([float(cats[1]), float(dogs[1])], 10),
    }
    return Outcomes([str(i) for i in range(20)], columns, groups={"class": ["cat"] * 10 + ["dog"] * 10})


def test_a_group_that_had_no_score_has_none_to_lose_and_one_whose_score_is_gone_is_rejected():
    nothing, all_found = finds((0, 0), (0, 1)), finds((0, 0), (1, 1))
    found = judge(candidate(EIGHTY, outcomes=all_found), Champion("version 1", nothing), recall(), GATE, 0)
    assert Rule("no class worse by more than 0.05", "none is worse", True) in found
    gone = finds((1, 1), (0, 0))
    found = judge(candidate(EIGHTY, outcomes=gone), Champion("version 1", nothing), recall(), GATE, 0)
    assert (
        Rule("no class worse by more than 0.05", "dog lost the recall", False, "class dog lost its recall") in found
    )


def test_a_champion_that_cannot_be_compared_with_rejects_with_the_reason():
    why = "it cannot read the new test split, whose classes differ"
    rules = judge(candidate(NINETY), Champion("version 3", None, why, "promote it"), score("more"), GATE, 0)
    assert rules[0].found == f"cannot be compared with version 3: {why}"
    assert rules[0].objection == f"{rules[0].found}; promote it"


def test_the_rules_that_failed_come_first():
    rules = judge(candidate(EIGHTY, milliseconds=90.0), None, score("more"), GATE, 0)
    assert [rule.passed for rule in rules] == sorted(rule.passed for rule in rules)
    assert not rules[0].passed


def test_what_speaks_against_a_version_reads_as_a_sentence():
    worse = candidate(np.arange(400) % 10 > 6, megabytes=10.5, milliseconds=51.0)
    rules = judge(worse, Champion("version 1", outcomes(EIGHTY)), score("more"), GATE, 0)
    assert "; ".join(rule.objection for rule in rules if not rule.passed) == (
        "accuracy 0.3 is below 0.5; not better than version 1; class class 0 lost 60 points, "
        "class 2 lost 60 points, class 1 lost 40 points, class 3 lost 40 points; "
        "the weights take 10.5 MB, more than 10; the fastest of several answers takes 51.0 ms, more than 50"
    )


def test_a_verdict_of_before_rules_had_sentences_can_still_be_read():
    (rule,) = parse('[{"rule": "accuracy at least 0.9", "found": "0.8848", "passed": false}]')
    assert rule.objection == "accuracy at least 0.9: 0.8848"


def test_the_verdict_is_a_table_with_a_row_for_each_rule():
    rules = judge(candidate(EIGHTY, milliseconds=90.0), None, score("more"), GATE, 0)
    lines = markdown(rules).splitlines()
    assert len(lines) == 2 + len(rules)
    assert "| accuracy at least 0.5 | 0.8 | passed |" in lines
    assert "| an answer within 50 ms | 90.0 ms, the fastest of several | **failed** |" in lines


@pytest.mark.parametrize("better", ["more", "less"])
def test_outcomes_that_are_no_numbers_never_pass(better):
    broken = np.where(np.arange(400) == 7, np.nan, EIGHTY)
    for new, old in ((broken, EIGHTY), (EIGHTY, broken)):
        rules = judge(candidate(EIGHTY), None, score(better), GATE, 0)
        assert all(rule.passed for rule in rules)
        champion = Champion("version 1", outcomes(old))
        found = [rule.found for rule in judge(candidate(new), champion, score(better), GATE, 0) if not rule.passed]
        assert "its outcomes, or those of version 1, are not finite numbers" in found


def test_a_class_name_cannot_break_the_table():
    rules = [Rule("no class worse by more than 0", "a|b\n[c](d) is worse by 1", False)]
    last = "| no class worse by more than 0 | a\\|b \\[c](d) is worse by 1 | **failed** |"
    assert markdown(rules).splitlines()[-1] == last


BESIDE = GATE.model_copy(update={"beats": ["trees"]})


def beside(right, baseline):
    """Return the rule about the baseline."""
    new = candidate(right, baselines={"trees": outcomes(baseline)})
    return next(rule for rule in judge(new, None, score("more"), BESIDE, 0) if "baseline" in rule.rule)


def test_a_version_that_is_surely_worse_than_a_baseline_is_rejected():
    rule = beside(EIGHTY, NINETY)
    assert not rule.passed
    assert rule.objection == "its accuracy lost 10 points against the baseline trees"


@pytest.mark.parametrize("new", [NINETY, EIGHTY, np.roll(EIGHTY, 1)])
def test_a_version_that_is_better_than_a_baseline_or_equal_but_for_chance_passes(new):
    assert beside(new, EIGHTY).passed


def test_a_baseline_that_the_task_does_not_have_is_no_reason_to_pass():
    assert failed(candidate(EIGHTY), None, "more", BESIDE) == ["no worse than the baseline trees"]
