"""Commands, sessions, pacts, incidents: what changes something."""

import asyncio
import base64
import json
import re
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from checkrein.bus import subjects
from checkrein.bus.credentials import Credential
from checkrein.bus.messages import CommandRun, SessionRecord, decode, encode
from checkrein.server.api.routes.sessions import SWEEP_MAX, sweep
from checkrein.world import REAL
from tests.server.api.conftest import Stand, event, eventually, live_run

RUN = "0198a000-0000-7000-8000-000000000001"
COMMAND = {
    "command_id", "verb", "target", "reason", "issued_by", "asked_at", "runs",
}  # fmt: skip
COMMAND_RUN = {"run_id", "agent", "delivered_ms", "obeyed_ms", "how", "confirmed"}
INCIDENT = {
    "incident_id", "severity", "detector", "agent", "run_id", "task_id", "room", "opened_at",
    "count", "why", "status", "outcome",
}  # fmt: skip
PACT = "pact: support-bot\ntools: {search_kb: {kind: read}}\nbudgets: {steps: 35}\n"


async def test_a_command_is_answered_in_the_shape_of_the_design(stand: Stand) -> None:
    stand.control.live = [live_run(RUN)]
    body = {"verb": "halt", "target": "agent:support-bot", "reason": "it loops"}
    async with stand.client() as client:
        answer = await client.post("/api/v1/commands", json=body)
    state = answer.json()
    assert answer.status_code == 200
    assert set(state) >= COMMAND
    assert set(state["runs"][0]) >= COMMAND_RUN
    assert state["issued_by"] == "operator"
    assert state["runs"][0]["how"] == [{"rung": "fence", "ms": 1.0}, {"rung": "freeze", "ms": 3.25}]
    assert state["runs"][0]["confirmed"] == "supervisor"
    asked = stand.control.commands[0]
    assert (asked.verb, asked.target, asked.reason) == ("halt", "agent:support-bot", "it loops")


async def test_a_run_is_named_by_the_beginning_of_its_id(stand: Stand) -> None:
    stand.control.live = [live_run(RUN), live_run(RUN[:-1] + "2")]
    body = {"verb": "pause", "reason": "x"}
    async with stand.client() as client:
        both = await client.post("/api/v1/commands", json={**body, "target": "run:0198a000"})
        none = await client.post("/api/v1/commands", json={**body, "target": "run:ffff"})
        stand.control.live = stand.control.live[:1]
        one = await client.post("/api/v1/commands", json={**body, "target": "run:0198a000"})
    assert (both.status_code, both.json()["error"]) == (409, "ambiguous_run")
    assert (none.status_code, none.json()["error"]) == (404, "unknown_run")
    assert one.status_code == 200
    assert [asked.target for asked in stand.control.commands] == [f"run:{RUN}"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": "everything"}, {"target": "agent:"}, {"target": "planet:mars"}, {"target": ""},
        {"reason": "  "}, {"reason": "x" * 3000}, {"wait_ms": -1}, {"wait_ms": 10**9},
        {"command_id": "abc"}, {"verb": "probe"},
    ],
)  # fmt: skip
async def test_a_command_that_makes_no_sense_is_never_given(
    stand: Stand, wrong: dict[str, Any]
) -> None:
    body = {"verb": "halt", "target": "all", "reason": "drill", **wrong}
    async with stand.client() as client:
        answer = await client.post("/api/v1/commands", json=body)
    assert answer.status_code == 400
    assert answer.json()["do"]
    assert stand.control.commands == []


async def test_a_waiter_is_told_as_soon_as_something_changes(stand: Stand) -> None:
    stand.control.live = [live_run(RUN)]
    stand.control.confirmed = ""
    ident = REAL.uuid7()
    body = {"verb": "halt", "target": "all", "reason": "drill", "command_id": ident, "wait_ms": 0}
    async with stand.client() as client:
        first = (await client.post("/api/v1/commands", json=body)).json()
        assert first["runs"][0]["confirmed"] == ""
        assert first["runs"][0]["obeyed_ms"] is None
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(
                client.get(f"/api/v1/commands/{ident}", params={"wait_ms": 4000})
            )
            await eventually(lambda: _asked(stand, ident))
            run = CommandRun(run_id=RUN, agent="support-bot", obeyed_ms=9.0, confirmed="supervisor")
            await stand.control.change(
                msgspec.structs.replace(stand.control.states[ident], runs=[run], done=True)
            )
        listed = (await client.get("/api/v1/commands")).json()
        missing = await client.get(f"/api/v1/commands/{REAL.uuid7()}")
    assert waiting.result().json()["runs"][0]["confirmed"] == "supervisor"
    assert [state["command_id"] for state in listed] == [ident]
    assert missing.status_code == 404


async def _asked(stand: Stand, ident: str) -> bool:
    """The api role waits for the command now."""
    return ident in stand.control.asked_for


async def test_a_command_without_control_says_that_nothing_is_known(stand: Stand) -> None:
    await stand.control.bus.close()
    body = {"verb": "halt", "target": "all", "reason": "drill", "wait_ms": 0}
    async with stand.client() as client:
        answer = await client.post("/api/v1/commands", json=body)
    assert (answer.status_code, answer.json()["error"]) == (503, "unready")
    assert "control role does not answer" in answer.json()["detail"]


async def test_a_session_gets_the_credentials_of_its_agents_only(stand: Stand) -> None:
    body = {"kind": "supervisor", "agents": ["support-bot", "über bot"]}
    async with stand.client() as client:
        answer = await client.post("/api/v1/sessions", json=body)
        grant = answer.json()
        again = await client.post("/api/v1/sessions", json={**body, "session": grant["session"]})
    assert answer.status_code == 201
    assert again.json()["session"] == grant["session"]
    assert grant["bus_urls"] == ["nats://127.0.0.1:1"]
    assert len(bytes.fromhex(grant["control_key"])) == 32
    assert 0 < grant["expires_at"] - REAL.now_ns() <= 3600 * 10**9
    part = grant["jwt"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    may = claims["nats"]["pub"]["allow"]
    for agent in body["agents"]:
        assert subjects.events(agent, 0).rsplit(".", 1)[0] + ".*" in may
    assert not {">", "ev.>", "ctl.command", "cmd.>"} & set(may)
    assert claims["exp"] <= grant["expires_at"] // 10**9


async def test_who_a_session_is_stands_written_before_it_is_granted(stand: Stand) -> None:
    body = {"kind": "sdk", "agents": ["bot"], "room": "lab", "host": "here", "pid": 7}
    async with stand.client() as client:
        first = (await client.post("/api/v1/sessions", json=body)).json()
        more = {**body, "agents": ["bot", "two"], "session": first["session"]}
        second = (await client.post("/api/v1/sessions", json=more)).json()
        other = await client.post("/api/v1/sessions", json={**more, "kind": "supervisor"})
    bucket = await stand.control_bus.bucket(subjects.BUCKET_SESSIONS)
    entry = await bucket.get(first["session"])
    assert entry is not None
    record = decode(entry.value or b"", SessionRecord)
    assert (record.kind, record.agents, record.room) == ("sdk", ["bot", "two"], "lab")
    assert (record.host, record.pid, record.expires_at) == ("here", 7, second["expires_at"])
    assert record.user == Credential(second["jwt"], second["seed"]).user
    assert record.earlier == [Credential(first["jwt"], first["seed"]).user]
    assert other.status_code == 400
    assert "is of kind `sdk`" in other.json()["detail"]


async def test_sessions_that_ended_long_ago_are_removed_some_at_a_time(stand: Stand) -> None:
    bucket = await stand.control_bus.bucket(subjects.BUCKET_SESSIONS)
    hour_ns = 3600 * 10**9
    for number in range(SWEEP_MAX + 5):
        record = SessionRecord(
            session=f"old-{number}", kind="sdk", agents=["a"], user="U", expires_at=1
        )
        await bucket.put(record.session, encode(record))
    kept = SessionRecord(session="kept", kind="sdk", agents=["a"], user="U", expires_at=hour_ns)
    await bucket.put("kept", encode(kept))
    await bucket.put("garbage", b"\xc1")
    await sweep(bucket, 2 * hour_ns)
    assert len(await bucket.keys()) == 7
    await sweep(bucket, 2 * hour_ns)
    assert await bucket.keys() == ["kept"]


async def test_a_pact_sent_with_a_session_is_in_force(stand: Stand) -> None:
    body = {"kind": "sdk", "agents": ["support-bot", "other"], "pacts": {"support-bot": PACT}}
    async with stand.client() as client:
        grant = (await client.post("/api/v1/sessions", json=body)).json()
        kept = (await client.get("/api/v1/pacts/support-bot")).json()
        none = await client.get("/api/v1/pacts/other")
        await client.put("/api/v1/pacts/default", json={"text": "pact: default\n"})
        later = (await client.post("/api/v1/sessions", json={**body, "pacts": {}})).json()
        listed = (await client.get("/api/v1/pacts")).json()
    assert grant["pacts"] == {"support-bot": PACT, "other": ""}
    assert (kept["text"], len(kept["version"])) == (PACT, 12)
    assert none.status_code == 404
    assert later["pacts"] == {"support-bot": PACT, "other": "pact: default\n"}
    assert [pact["agent"] for pact in listed] == ["default", "support-bot"]


async def test_the_same_pact_again_changes_nothing(stand: Stand) -> None:
    async with stand.client() as client:
        one = (await client.put("/api/v1/pacts/a", json={"text": PACT})).json()
        two = (await client.put("/api/v1/pacts/a", json={"text": PACT})).json()
        three = (await client.put("/api/v1/pacts/a", json={"text": PACT + "warn_at: 50%\n"})).json()
    assert one == two
    assert three["revision"] > one["revision"]
    assert three["version"] != one["version"]


async def test_a_wrong_pact_is_refused_with_its_place(stand: Stand) -> None:
    async with stand.client() as client:
        answer = await client.put(
            "/api/v1/pacts/a", json={"text": "pact: a\nbudgets: {stepz: 3}\n"}
        )
        kept = await client.get("/api/v1/pacts/a")
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_pact")
    assert "2:" in answer.json()["detail"]
    assert "stepz" in answer.json()["detail"]
    assert kept.status_code == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"agents": []}, {"agents": ["a"] * 501}, {"agents": [""]}, {"agents": ["a\nb"]},
        {"session": "a.b.c.d.e.f"}, {"session": ">"}, {"kind": "king"}, {"agents": "a"},
        {"pacts": {"a": "pact: [\n"}},
    ],
)  # fmt: skip
async def test_a_session_that_makes_no_sense_is_refused(
    stand: Stand, wrong: dict[str, Any]
) -> None:
    async with stand.client() as client:
        answer = await client.post(
            "/api/v1/sessions", json={"kind": "sdk", "agents": ["a"], **wrong}
        )
    assert answer.status_code == 400
    assert "jwt" not in answer.json()


def incident(ident: str, **fields: Any) -> dict[str, Any]:
    return {
        "incident_id": ident, "severity": "high", "detector": "loop", "agent": "support-bot",
        "run_id": RUN, "task_id": event(1)["task_id"], "room": "refunds", "opened_at": 1000,
        "count": 3, "why": "the same call", "status": "open", "outcome": "", "extra": 1, **fields,
    }  # fmt: skip


async def test_incidents_are_in_the_order_in_which_to_look_at_them(stand: Stand) -> None:
    bucket = await stand.control_bus.bucket(subjects.BUCKET_INCIDENTS)
    for each in (
        incident("closed", status="closed", severity="critical"), incident("old", opened_at=1),
        incident("new", opened_at=9), incident("grave", severity="critical"),
        incident("mild", severity="low", agent="b"),
    ):  # fmt: skip
        await bucket.put(each["incident_id"], msgspec.msgpack.encode(each))
    await bucket.put("broken", b"\xc1")
    async with stand.client() as client:
        found = (await client.get("/api/v1/incidents")).json()
        filtered = (await client.get("/api/v1/incidents?status=open&agent=b")).json()
        one = (await client.get("/api/v1/incidents/new")).json()
        none = await client.get("/api/v1/incidents/nothing")
    assert [each["incident_id"] for each in found] == ["grave", "new", "old", "mild", "closed"]
    assert set(found[0]) >= INCIDENT
    assert [each["incident_id"] for each in filtered] == ["mild"]
    assert one["opened_at"] == 9
    assert none.status_code == 404


async def test_status_says_what_is_held_and_what_cannot_be_halted(stand: Stand) -> None:
    stand.control.live = [
        live_run(RUN),
        live_run(RUN[:-1] + "2", "wild", can_halt=False, can_halt_why="no supervisor"),
    ]  # fmt: skip
    await stand.store(event(1, "run.start"))
    async with stand.client() as client:
        status = (await client.get("/api/v1/status")).json()
        health = await client.get("/healthz", headers={"Authorization": ""})
    assert status["ready"] is True
    assert (status["runs_live"], status["can_halt"], status["levels"]) == (2, 1, {"L2": 2})
    assert status["not_haltable"][0]["why"] == "no supervisor"
    assert status["store"]["rows"] == 1
    assert (health.status_code, health.json()) == (200, {"ready": True})


async def test_metrics_are_in_the_form_that_prometheus_reads(stand: Stand) -> None:
    async with stand.client() as client:
        await client.get("/api/v1/runs")
        await client.get("/api/v1/secret-name-of-a-caller")
        text = (await client.get("/metrics", headers={"Authorization": ""})).text
    assert 'checkrein_http_requests_total{method="GET",status="200",to="runs"} 1' in text
    assert "secret-name" not in text
    assert 'checkrein_http_seconds_bucket{to="runs",le="+Inf"} 1' in text
    for line in text.splitlines():
        assert line.startswith("# ") or float(line.rsplit(" ", 1)[1]) >= 0


async def test_the_openapi_description_is_whole(stand: Stand) -> None:
    async with stand.client() as client:
        described = (await client.get("/api/openapi.json", headers={"Authorization": ""})).json()
    assert problems_of(described) == []
    paths = described["paths"]
    for path in (
        "runs", "runs/{run_id}", "runs/{run_id}/events", "tasks/{task_id}/events", "events",
        "incidents", "incidents/{incident_id}", "commands", "commands/{command_id}", "agents",
        "rooms", "pacts/{agent}", "sessions", "status", "stream",
    ):  # fmt: skip
        assert f"/api/v1/{path}" in paths, path
    assert set(paths["/api/v1/pacts/{agent}"]) == {"get", "put"}


def problems_of(described: dict[str, Any]) -> list[str]:
    """What is wrong with an OpenAPI 3.1 document: references that lead nowhere, schemas that are
    none, operations without an id or an answer, path parameters that are not declared."""
    found: list[str] = []
    assert described["openapi"].startswith("3.1")
    schemas = described["components"]["schemas"]
    for name, schema in schemas.items():
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            found.append(f"{name}: {error.message}")
    text = json.dumps(described)
    for name in re.findall(r'"#/components/schemas/([^"]+)"', text):
        if name not in schemas:
            found.append(f"nothing is called {name}")
    ids: list[str] = []
    for path, operations in described["paths"].items():
        for verb, operation in operations.items():
            ids.append(operation["operationId"])
            declared = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            if set(re.findall(r"{(\w+)}", path)) != declared:
                found.append(f"{verb} {path}: path parameters {declared}")
            if not any(status.startswith("2") for status in operation["responses"]):
                found.append(f"{verb} {path}: no answer")
    return found + [f"{ident} stands twice" for ident in set(ids) if ids.count(ident) > 1]
