"""detect run, pact backtest, pact learn: over recorded files, and over the server's history."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.analysis.made import lines, packed
from tests.cli.conftest import Run
from tests.server.api.conftest import Stand, event, eventually

from checkrein.cli.root import root
from checkrein.policy.pact import load

PACT = "pact: p\ntools:\n  pay: {allow: args.cents <= 100}\n  look: {}\n"
Terminal = Callable[..., Result]


@pytest.fixture
def terminal() -> Terminal:
    return lambda *arguments: CliRunner().invoke(
        root, [str(one) for one in arguments], prog_name="checkrein"
    )


@pytest.fixture
def pact(tmp_path: Path) -> Path:
    path = tmp_path / "p.yaml"
    path.write_text(PACT)
    return path


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    path = tmp_path / "runs.jsonl.gz"
    first = lines([("pay", {"cents": 500}, "ok"), ("look", {}, "ok")])
    same = lines([("look", {"n": 1}, "same")] * 5, run_id="r2")
    path.write_bytes(gzip.compress(packed(first, same) + b"no json\n"))
    return path


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_detect_run_writes_a_line_for_each_finding(
    terminal: Terminal, pact: Path, runs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "found.jsonl"
    done = terminal("detect", "run", runs, "--pact", pact, "--out", out, "--json")
    assert done.exit_code == 0, done.output
    assert f"rejected {runs}:33: not JSON" in done.stderr
    found = written(out)
    refusal = next(one for one in found if one["rule"] == "tools.pay.allow")
    assert (refusal["run_id"], refusal["seq"], refusal["kind"], refusal["verdict"]) == (
        "r1", 3, "verdict", "deny",
    )  # fmt: skip
    loops = [one for one in found if one["run_id"] == "r2"]
    assert {(one["kind"], one["detector"]) for one in loops} == {
        ("verdict", "loops"), ("signal", "loop"),
    }  # fmt: skip
    report = json.loads(done.stdout)
    assert (report["runs"], report["rejected"], report["lines"]) == (2, 1, len(found))
    again = tmp_path / "again.jsonl"
    assert terminal("detect", "run", runs, "--pact", pact, "--out", again).exit_code == 0
    assert again.read_bytes() == out.read_bytes()


def test_detect_run_learns_what_is_usual_and_takes_schemas(
    terminal: Terminal, tmp_path: Path
) -> None:
    usual = tmp_path / "usual.jsonl"
    letter = "The account of the landlord is 4711-0815-77."
    paid = [("read_mail", {}, letter), ("pay", {"to": "4711-0815-77"}, "ok")]
    usual.write_bytes(packed(*(lines(paid, run_id=f"u{n}") for n in range(30))))
    (tmp_path / "tools.json").write_text(json.dumps({
        "pay": {"parameters": {"type": "object", "required": ["to"]}},
    }))  # fmt: skip
    seen = tmp_path / "seen.jsonl"
    broken = lines([("pay", {}, "ok")], run_id="x")
    odd = [("read_mail", {}, letter), ("wire", {"to": "4711-0815-77"}, "ok")]
    seen.write_bytes(packed(lines(paid, run_id="new"), lines(odd, run_id="odd"), broken))
    counts = []
    for train in ([], ["--train", str(usual)]):
        out = tmp_path / f"out{len(train)}.jsonl"
        done = terminal("detect", "run", seen, "--out", out, "--json", *train)
        assert done.exit_code == 0, done.output
        counts.append({one["run_id"] for one in written(out) if one["detector"] == "flow"})
        refused = [one for one in written(out) if one["rule"] == "tools.pay.arguments"]
        assert [one["run_id"] for one in refused] == ["x"]
    assert json.loads(done.stdout)["learned_from"] == 30
    assert counts == [set(), {"odd"}], "nothing is unusual before anything is known to be usual"


def test_backtest_says_what_would_change(terminal: Terminal, pact: Path, runs: Path) -> None:
    done = terminal("pact", "backtest", pact, runs, "--json", "--workers", "2")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)["report"]
    assert (report["runs"], report["calls"], report["runs_changed"]) == (2, 7, 2)
    assert {rule["rule"]: rule["count"] for rule in report["rules"]}["tools.pay.allow"] == 1
    shown = terminal("pact", "backtest", pact, runs)
    assert "tools.pay.allow" in shown.stdout
    assert "runs that change" in shown.stdout
    assert "█" in shown.stdout


def test_backtest_against_another(
    terminal: Terminal, pact: Path, runs: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(PACT.replace("100", "1000"))
    done = terminal("pact", "backtest", pact, runs, "--against", other, "--json")
    found = json.loads(done.stdout)["comparison"]
    assert (found["stricter"], found["pairs"]) == (1, {"allow to deny": 1})
    assert "allow to deny" in terminal("pact", "backtest", pact, runs, "--against", other).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--record",), "name it with --agent"),
        (("--against", "nowhere.yaml"), "there is no file nowhere.yaml"),
        (("--against", "current"), "name it with --agent"),
        (("--since", "soon"), "is not a time"),
    ],
)  # fmt: skip
def test_backtest_says_what_is_wrong(
    terminal: Terminal, pact: Path, runs: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = terminal("pact", "backtest", pact, runs, *arguments)
    assert done.exit_code == 2
    assert message in done.output


def test_learn_writes_a_pact_that_loads(terminal: Terminal, runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "learned.yaml"
    done = terminal("pact", "learn", runs, "-o", out, "--owner", "ann")
    assert done.exit_code == 0, done.output
    learned = load(out.read_text())
    assert (learned.pact, learned.owner, set(learned.tools or ())) == (
        "bot",
        "ann",
        {"pay", "look"},
    )
    again = terminal("pact", "learn", runs, "-o", out)
    assert again.exit_code == 2
    assert "is there already" in again.output
    assert terminal("pact", "learn", runs).stdout.startswith("# Learned from 2 runs of")


async def test_the_servers_history_is_judged_and_learned_from(
    stand: Stand, checkrein: Run, pact: Path
) -> None:
    import time

    now_ns = time.time_ns()  # as the command's own clock
    call = {"call_id": "c1", "tool": "pay"}
    made = [
        event(1, "run.start", ts=now_ns, step=0, goal="go"),
        event(2, "tool.arguments", ts=now_ns + 1, arguments={"cents": 500}, **call),
        event(3, "tool.invoked", ts=now_ns + 2, **call),
        event(4, "tool.returned", ts=now_ns + 3, result="ok", **call),
        event(5, "run.end", ts=now_ns + 4, status="completed"),
    ]
    await stand.publish(*made)

    async def seen() -> bool:
        done = await checkrein("pact", "backtest", str(pact), "--json")
        return done.exit_code == 0 and json.loads(done.stdout)["report"]["denied"] == 1

    await eventually(seen)
    agent = made[0]["agent"]
    done = await checkrein("pact", "learn", agent)
    assert done.exit_code == 0, done.output
    assert set(load(done.stdout).tools or ()) == {"pay"}
    none = await checkrein("pact", "backtest", str(pact), "--json", "--agent", "nobody")
    assert json.loads(none.stdout)["report"]["runs"] == 0


async def test_a_backtest_is_kept_with_the_pushed_version(
    stand: Stand, checkrein: Run, pact: Path, runs: Path
) -> None:
    pushed = await checkrein("pact", "push", str(pact), "--agent", "bot")
    assert pushed.exit_code == 0, pushed.output
    done = await checkrein("pact", "backtest", str(pact), str(runs), "--agent", "bot", "--record")
    assert done.exit_code == 0, done.output
    async with stand.client() as client:
        kept = (await client.get("/api/v1/pacts/bot/versions")).json()
    assert kept[0]["version"] == load(PACT).version
    assert kept[0]["backtest"]["summary"]["denied"] == 3
    same = await checkrein(
        "pact", "backtest", str(pact), str(runs), "--agent", "bot", "--against", "current", "--json"
    )
    assert json.loads(same.stdout)["comparison"]["stricter"] == 0
    other = await checkrein("pact", "backtest", str(pact), str(runs), "--agent", "no", "--record")
    assert other.exit_code == 2
    assert "was done, but not kept" in other.output
