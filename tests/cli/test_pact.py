"""`checkrein pact check` and `diff` without a server; `list` and `promote` as they are drawn."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from checkrein.cli.pact_list import troubles
from checkrein.cli.pact_promote import _print
from checkrein.cli.root import root
from checkrein.policy.pact import load

GOOD = "pact: bot\ntools: {search: {kind: read}}\nbudgets: {usd: 2}\n"
WRONG = "pact: bot\ntools:\n  search: {kind: reed}\n"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(root, ["pact", *arguments])


def test_a_good_file_is_told_with_its_version(tmp_path: Path) -> None:
    file = tmp_path / "bot.yaml"
    file.write_text(GOOD)
    done = run("check", str(file))
    assert done.exit_code == 0, done.output
    assert f"{file}: bot, version {load(GOOD).version}" in done.output


def test_a_wrong_file_is_told_with_file_line_and_column(tmp_path: Path) -> None:
    good, wrong = tmp_path / "good.yaml", tmp_path / "wrong.yaml"
    good.write_text(GOOD)
    wrong.write_text(WRONG)
    done = run("check", str(good), str(wrong), str(tmp_path / "none.yaml"))
    assert done.exit_code == 1
    assert f"{wrong}:3:18: `tools.search.kind` is 'reed'" in done.output
    assert "none.yaml: No such file" in done.output
    as_json = json.loads(run("check", str(wrong), "--json").output)
    assert as_json[0]["errors"] == [
        {"line": 3, "column": 18, "problem": as_json[0]["errors"][0]["problem"]}
    ]


def test_files_extend_one_another_in_any_order(tmp_path: Path) -> None:
    parent, child = tmp_path / "b.yaml", tmp_path / "a.yaml"
    parent.write_text(GOOD)
    child.write_text("pact: child\nextends: bot\n")
    assert run("check", str(child), str(parent)).exit_code == 0
    alone = run("check", str(child))
    assert alone.exit_code == 1
    assert f"{child}:2:10" in alone.output


def test_two_files_are_compared_by_what_they_let_through(tmp_path: Path) -> None:
    one, two = tmp_path / "1.yaml", tmp_path / "2.yaml"
    one.write_text(GOOD)
    two.write_text("pact: bot\ntools: {search: {kind: read}, wire: }\nbudgets: {usd: 1}\n")
    done = run("diff", str(one), str(two))
    assert done.exit_code == 1
    assert "+ allows   tools.wire: " in done.output
    assert "- refuses  budgets.usd: `2.0` becomes `1.0`" in done.output
    same = run("diff", str(one), str(one))
    assert (same.exit_code, "they say the same" in same.output) == (0, True)
    found = json.loads(run("diff", str(one), str(two), "--json").output)
    assert [each["effect"] for each in found["differences"]] == ["allows", "refuses"]


def test_a_name_that_is_no_command_is_met_with_the_nearest() -> None:
    done = run("promte", "x")
    assert done.exit_code == 2
    assert "Did you mean `promote`?" in done.output


def test_what_an_agent_could_not_adopt_is_told_in_words() -> None:
    line: dict[str, Any] = {
        "agent": "bot", "environment": "lab", "trouble": "",
        "behind": [
            {"enforced": "v1", "error": "PactError: no", "processes": 2},
            {"enforced": "v1", "error": "", "processes": 1},
        ],
    }  # fmt: skip
    assert troubles(line) == ["bot in lab: 2 processes stay with v1: PactError: no"]
    assert troubles(line | {"behind": [], "trouble": "broken"}) == ["broken"]


def test_a_plan_tells_what_it_has_and_what_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    _print(
        {
            "move": {
                "source": "development", "environment": "staging", "stage": "enforce",
                "version": {"version": "v2", "author": "ann\x1b[31m"},
            },
            "compared": {"before": "v1", "after": "v2", "digest": "d", "differences": []},
            "backtest": {"summary": {"denied": 3}},
            "shadow": {"runs": 4, "verdicts": {"deny tools.pact": 2}},
            "lacks": ["a reason (--reason)"],
        }
    )  # fmt: skip
    said = capsys.readouterr().out
    assert "\x1b" not in said
    for words in ("development -> staging", "denied 3", "4 runs: 2 of `deny tools.pact`",
                  "lacks: a reason"):  # fmt: skip
        assert words in said
