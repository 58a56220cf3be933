"""`checkrein agent`: as an operator types it."""

import json

from tests.cli.conftest import Run
from tests.server.api.conftest import Stand


async def test_a_key_is_made_and_stands_alone_on_its_line(checkrein: Run, stand: Stand) -> None:
    made = await checkrein("agent", "add", "support-bot", "--json", "--owner", "ann")
    other = await checkrein("agent", "key", "support-bot", "--label", "new")
    again = await checkrein("agent", "add", "support-bot")
    found = json.loads(made.output)
    assert made.exit_code == other.exit_code == 0
    assert (found["agent"], found["owner"]) == ("support-bot", "ann")
    assert found["key"].startswith("cra_")
    assert other.stdout.strip().startswith("cra_")
    assert len(other.stdout.split()) == 1
    assert again.exit_code == 2
    assert "there is an agent support-bot already" in again.output
    async with stand.client(headers={"Authorization": f"Bearer {found['key']}"}) as client:
        body = {"kind": "sdk", "agents": ["support-bot"]}
        assert (await client.post("/api/v1/sessions", json=body)).status_code == 201


async def test_agents_are_listed_and_revoked(checkrein: Run) -> None:
    none = await checkrein("agent", "list")
    await checkrein("agent", "add", "support-bot", "--room", "refunds", "--label", "first")
    await checkrein("agent", "key", "support-bot")
    (line,) = json.loads((await checkrein("agent", "list", "--json")).output)
    shown = await checkrein("agent", "list")
    seen = await checkrein("agents")
    prefix = line["keys"][0]["prefix"]
    one = await checkrein("agent", "revoke", "support-bot", "--key", prefix)
    (left,) = json.loads((await checkrein("agent", "list", "--json")).output)
    both = await checkrein("agent", "revoke", "support-bot")
    after = await checkrein("agent", "list")
    nobody = await checkrein("agent", "revoke", "nobody")
    assert "checkrein agent add NAME" in none.output
    assert "refunds" in shown.output
    assert "never" in seen.output
    assert f"the key {prefix} of support-bot is let in nowhere" in one.output
    assert [key["prefix"] for key in left["keys"]] == [line["keys"][1]["prefix"]]
    assert "agent support-bot is let in nowhere; 0 sessions ended" in both.output
    assert "revoked" in after.output
    assert nobody.exit_code == 2


async def test_a_hostile_name_does_nothing_to_the_terminal(checkrein: Run) -> None:
    for attack in ("a\x1b[2Jb", "a\x9b2Jb", "a\u202eb", "a\rb"):
        done = await checkrein("agent", "revoke", attack)
        assert done.exit_code == 2
        assert not set(done.output) & {"\x1b", "\x9b", "\u202e", "\r"}
