"""Tokens: who may ask for what."""

import pytest

from checkrein.bus import subjects
from checkrein.server.api.roles import OWNER, Identity, may, who
from tests.server.api.conftest import Stand

PACT = {"text": "pact: a\n"}


@pytest.mark.parametrize(
    ("role", "method", "path", "allowed"),
    [
        ("viewer", "GET", "/api/v1/runs", True),
        ("viewer", "HEAD", "/api/v1/runs", True),
        ("viewer", "POST", "/api/v1/commands", False),
        ("viewer", "POST", "/api/v1/pacts/a/promote", False),
        ("approver", "POST", "/api/v1/pacts/a/promote", True),
        ("approver", "POST", "/api/v1/approvals/x/decision", True),
        ("approver", "PUT", "/api/v1/pacts/a", False),
        ("approver", "POST", "/api/v1/pacts/a/promote/b", False),
        ("approver", "POST", "/api/v1/sessions", False),
        ("approver", "DELETE", "/api/v1/pacts/a/profile", True),
        ("approver", "DELETE", "/api/v1/pacts/a", False),
        ("viewer", "DELETE", "/api/v1/pacts/a/profile", False),
        ("operator", "POST", "/api/v1/commands", True),
        ("operator", "POST", "/api/v1/tokens", False),
        ("operator", "DELETE", "/api/v1/tokens/x", False),
        ("operator", "GET", "/api/v1/tokens", True),
    ],
)
def test_a_role_may_do_what_it_says(role: str, method: str, path: str, allowed: bool) -> None:
    identity = Identity(name="x", role=role)  # type: ignore[arg-type] # one of the three
    assert may(identity, method, path) is allowed


def test_the_operators_own_token_may_all() -> None:
    assert may(OWNER, "POST", "/api/v1/tokens")
    assert who({}) is OWNER


async def test_a_token_is_shown_once_and_kept_as_a_hash(stand: Stand) -> None:
    async with stand.client() as client:
        made = (await client.post("/api/v1/tokens", json={"name": "bea", "role": "viewer"})).json()
        again = await client.post("/api/v1/tokens", json={"name": "bea", "role": "viewer"})
        owner = await client.post("/api/v1/tokens", json={"name": "operator", "role": "viewer"})
        listed = (await client.get("/api/v1/tokens")).json()
    bucket = await stand.control_bus.bucket(subjects.BUCKET_TOKENS)
    (entry,) = await bucket.entries()
    assert made["token"].encode() not in (entry.value or b"")
    assert (again.status_code, owner.status_code) == (409, 409)
    assert [(line["name"], line["token"]) for line in listed] == [("bea", "")]


async def test_a_token_opens_what_its_role_may_until_it_is_revoked(stand: Stand) -> None:
    async with stand.client() as client:
        made = (await client.post("/api/v1/tokens", json={"name": "bea", "role": "viewer"})).json()
        headers = {"Authorization": f"Bearer {made['token']}"}
        async with stand.client(headers=headers) as bea:
            reads = await bea.get("/api/v1/pacts")
            writes = await bea.put("/api/v1/pacts/a", json=PACT)
            left = await client.delete("/api/v1/tokens/bea")
            after = await bea.get("/api/v1/pacts")
        gone = await client.delete("/api/v1/tokens/bea")
    assert (reads.status_code, writes.status_code) == (200, 403)
    assert (left.json(), after.status_code, gone.status_code) == ([], 401, 404)


async def test_who_did_it_is_told_by_name(stand: Stand) -> None:
    async with stand.client() as client:
        made = await client.post("/api/v1/tokens", json={"name": "ann", "role": "operator"})
        headers = {"Authorization": f"Bearer {made.json()['token']}"}
        async with stand.client(headers=headers) as ann:
            line = (await ann.put("/api/v1/pacts/a", json=PACT)).json()
            command = await ann.post(
                "/api/v1/commands", json={"verb": "pause", "target": "all", "reason": "look"}
            )
    assert line["author"] == "ann"
    assert command.status_code == 200
    assert stand.control.commands[-1].issued_by == "ann"
