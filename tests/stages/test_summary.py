"""What a run prints of the gate's decision at its end."""

from dataclasses import asdict

from components.stages import summary
from components.trust.gate import Rule

RULES = [
    Rule("accuracy at least 0.9", "0.6111", False, "accuracy 0.6111 is below 0.9"),
    Rule(
        "no class worse by more than 0.05",
        "street scenes is worse by 0.5",
        False,
        "class street scenes lost 50 points",
    ),
    Rule("weights at most 100 MB", "44.8 MB", True),
]


def shown(capsys, **values):
    usual = {
        "name": "roads",
        "version": "version 2",
        "score": "accuracy 0.6111",
        "interval": "[0.44, 0.76]",
        "verdict": [asdict(rule) for rule in RULES],
        "reason": "challenger: accuracy 0.6111 is below 0.9; class street scenes lost 50 points",
        "role": "challenger",
        "seconds": {"train": 30.0},
        "files": "build/roads/evaluation",
        **dict.fromkeys(("runs_url", "run_url", "version_url"), "http://127.0.0.1:5000/#/"),
    }
    summary.show([summary.Outcome(**usual | values)])
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_a_version_that_fails_the_gate_is_not_promoted_because_of_the_rules_that_come_first(capsys):
    printed = shown(capsys)
    first = printed.index(
        "roads version 2 was not promoted: accuracy 0.6111 is below 0.9; class street scenes lost 50 points"
    )
    assert printed[first + 1 : first + 5] == [
        "  ✗ accuracy at least 0.9: 0.6111",
        "  ✗ no class worse by more than 0.05: street scenes is worse by 0.5",
        "  ✓ weights at most 100 MB: 44.8 MB",
        "",
    ]
    assert printed[-1] == "roads: accuracy 0.6111 (version 2, challenger)"


def test_a_version_that_passes_the_gate_is_the_champion(capsys):
    reason = "champion: it passed every rule and replaces version 1"
    printed = shown(capsys, verdict=[asdict(RULES[2])], reason=reason, role="champion")
    assert "roads version 2 is the champion: it passed every rule and replaces version 1" in printed
