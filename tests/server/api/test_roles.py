"""Who may do what: every route of the API, by every role, against what is written here."""

from collections.abc import Iterator
from typing import Any

import pytest

from checkrein.server.api import roles
from checkrein.server.api.app import build
from checkrein.server.api.door import OPEN
from checkrein.server.api.roles import AGENT, OWNER, ROLES, TABLE, Identity, allowed, may
from tests.server.api.conftest import Stand

READERS = {"viewer", "auditor", "author", "approver", "operator", "admin"}
DECIDE = {"approver", "operator", "admin"}
WRITE = {"author", "operator", "admin"}
HOLD = {"operator", "admin", "agent"}
ADMIN = {"admin"}
ACTS = {
    "giveCommand": {"operator", "admin"},
    "decideApprovals": DECIDE, "decideApproval": DECIDE, "acknowledge": DECIDE,
    "approveMcpTool": DECIDE,
    "promotePact": DECIDE, "resetProfile": DECIDE, "putPact": WRITE, "storeBacktest": WRITE,
    "openSession": HOLD, "grantRunToken": HOLD, "revokeRunTokens": HOLD,
    "addAgent": ADMIN, "revokeAgent": ADMIN, "addAgentKey": ADMIN, "revokeAgentKey": ADMIN,
    "createToken": ADMIN, "revokeToken": ADMIN,
}  # fmt: skip
"""Everything that changes anything. Whatever is not named here is read, by READERS."""


def operations() -> Iterator[tuple[str, str, str]]:
    """(method, path as the router would match it, operation) of every route there is."""
    schema = build(None).openapi_schema  # type: ignore[arg-type] # nothing is served
    for path, item in (schema.paths or {}).items():
        for method in ("get", "post", "put", "patch", "delete"):
            operation: Any = getattr(item, method)
            if operation is not None:
                yield method.upper(), path, str(operation.operation_id)


def filled(path: str) -> str:
    return path.replace("{", "").replace("}", "")


ROUTES = sorted(operations())


@pytest.mark.parametrize(("method", "path", "operation"), ROUTES)
def test_every_route_is_for_those_it_is_meant_for(method: str, path: str, operation: str) -> None:
    wanted = ACTS.get(operation, READERS if method == "GET" else None)
    assert wanted is not None, f"{operation} changes something: say in ACTS and in TABLE who may"
    for role in (*ROLES, AGENT):
        identity = Identity(name="x", role=role, agent="bot" if role == AGENT else "")
        for shape in (filled(path), filled(path) + "/", filled(path).replace("/v1", "//v1")):
            assert may(identity, method, shape) is (role in wanted), (role, shape)


def test_no_line_of_the_table_is_about_nothing() -> None:
    """But for the audit log, which is read by fewer from the day it can be read."""
    for methods, path, _ in TABLE:
        if "audit" not in path:
            assert any(
                method in methods and roles.re.fullmatch(path, filled(each))
                for method, each, _ in ROUTES
            ), path


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/pacts/a/promote/b"), ("DELETE", "/api/v1/pacts/a"), ("PATCH", "/"),
        ("PUT", "/api/v1/unknown"), ("POST", "/api/v1/commands/x"), ("TRACE", "/api/v1/runs"),
        ("OPTIONS", "/api/v1/runs"), ("", ""), ("get", "/api/v1/runs"),
        ("POST", "/api/v1/sessions\n"), ("POST", "/api/v1/approvals/x\n/decision/y"),
    ],
)  # fmt: skip
def test_what_no_line_names_is_the_admins(method: str, path: str) -> None:
    assert allowed(method, path) == {"admin"}


def test_several_roles_add_up_and_no_more() -> None:
    both = Identity(name="x", role="auditor", more=("approver",))
    assert may(both, "GET", "/api/v1/audit/entries")
    assert may(both, "POST", "/api/v1/pacts/a/promote")
    assert not may(both, "PUT", "/api/v1/pacts/a")
    assert not may(Identity(name="x", role="viewer"), "GET", "/api/v1/audit")
    assert may(OWNER, "POST", "/api/v1/agents")


async def test_the_door_asks_the_table_on_every_route(stand: Stand) -> None:
    """Each route by each role over HTTP: 401 without a token, 403 exactly for who may not."""
    async with stand.client() as owner:
        keys = {}
        for role in ROLES:
            body = {"name": f"a-{role}", "role": role}
            keys[role] = (await owner.post("/api/v1/tokens", json=body)).json()["token"]
        body = {"agent": "bot"}
        keys[AGENT] = (await owner.post("/api/v1/agents", json=body)).json()["key"]
    async with stand.client(headers={"Authorization": ""}) as nobody:
        for method, path, _ in ROUTES:
            answer = await nobody.request(method, filled(path))
            assert (answer.status_code == 401) is (path not in OPEN), path
    for role, key in keys.items():
        async with stand.client(headers={"Authorization": f"Bearer {key}"}) as client:
            for method, path, operation in ROUTES:
                if operation == "stream" or path in OPEN:
                    continue
                wanted = ACTS.get(operation, READERS)
                if role in wanted and method == "GET":
                    continue  # answered in other tests, and slow where parts are played
                answer = await client.request(method, filled(path), content=b"[]")
                shut = answer.status_code == 403 and answer.json()["error"] == "forbidden"
                assert shut is (role not in wanted), (role, operation, answer.text)
