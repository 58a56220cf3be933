"""`checkrein pact check --agent`: rules that have decided nothing are told, and no others."""

import json
import time
from pathlib import Path

from tests.cli.conftest import Run
from tests.server.api.conftest import Stand, event, eventually

PACT = """\
pact: bot
job: pay
tools: {pay: {allow: args.cents < 5, once_per: args.order}}
budgets: {usd: 1}
"""


async def test_a_rule_that_lies_idle_is_told(stand: Stand, checkrein: Run, tmp_path: Path) -> None:
    file = tmp_path / "bot.yaml"
    file.write_text(PACT)
    now_ns = time.time_ns()
    decided = event(
        2, "scope.decision", ts=now_ns, call_id="c", verdict="deny", rule="tools.pay.allow",
        action={"kind": "tool", "name": "pay"},
    )  # fmt: skip
    await stand.publish(event(1, "run.start", ts=now_ns, step=0), decided)
    agent = decided["agent"]

    async def known() -> bool:
        async with stand.client() as client:
            found = await client.get("/api/v1/events", params={"agent": agent})
            return any(one["type"] == "scope.decision" for one in found.json())

    await eventually(known)
    told = await checkrein("pact", "check", str(file), "--agent", agent, "--json")
    assert told.exit_code == 0, told.output
    lints = json.loads(told.stdout)[0]["lints"]
    assert any("tools.pay.once_per: it has decided nothing in 30 days" in one for one in lints)
    assert not any("tools.pay.allow" in one for one in lints)
    alone = await checkrein("pact", "check", str(file), "--json")
    assert json.loads(alone.stdout)[0]["lints"] == [], "without --agent nobody has counted"
