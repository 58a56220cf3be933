"""What a program is given so that its model calls pass the gateway."""

import os
import time
from dataclasses import replace
from typing import Any

import pytest

from checkrein.bus.identities import RunTokenGrant, RunTokenRequest
from checkrein.bus.messages import RunRecord, SessionGrant
from checkrein.sdk.config import Endpoint
from checkrein.supervise import run_key
from checkrein.supervise.run_key import NoGateway, RunKey
from checkrein.supervise.session import ServerUnreachable
from checkrein.supervise.through_gateway import (
    Access,
    NoRunKey,
    environment_for,
    level_of,
    started_at,
)
from checkrein.world import REAL

ACCESS = Access("http://127.0.0.1:4401", "", ("openai", "anthropic"), "crr_key")
USERS = {"PATH": "/bin", "OPENAI_API_KEY": "sk-real", "ANTHROPIC_API_KEY": "sk-ant-real"}
RECORD = RunRecord(
    run_id="r1", task_id="t1", agent="bot", room="", environment="development", session="",
    holder="supervisor", started_at=0,
)  # fmt: skip


def test_the_providers_secrets_are_replaced_by_the_runs_key() -> None:
    given = environment_for(USERS, ACCESS)
    assert given["OPENAI_BASE_URL"] == given["OPENAI_API_BASE"] == ACCESS.url + "/openai/v1"
    assert given["ANTHROPIC_BASE_URL"] == ACCESS.url + "/anthropic"
    assert given["OPENAI_API_KEY"] == given["ANTHROPIC_API_KEY"] == "crr_key"
    assert given["CHECKREIN_GATEWAY"] == ACCESS.url
    assert given["CHECKREIN_KEY"] == "crr_key"
    assert given["PATH"] == "/bin"
    assert not [value for value in given.values() if "real" in value]


def test_a_base_url_of_the_users_own_is_left_as_it_was() -> None:
    own = {**USERS, "OPENAI_BASE_URL": "http://10.0.0.1/v1", "ANTHROPIC_AUTH_TOKEN": "real"}
    given = environment_for(own, ACCESS)
    assert given["OPENAI_BASE_URL"] == "http://10.0.0.1/v1"
    assert given["OPENAI_API_KEY"] == "sk-real"
    assert "OPENAI_API_BASE" not in given
    assert given["ANTHROPIC_API_KEY"] == "crr_key"
    assert "ANTHROPIC_AUTH_TOKEN" not in given


def test_where_it_is_mandatory_no_other_base_url_counts() -> None:
    own = {**USERS, "OPENAI_BASE_URL": "http://10.0.0.1/v1"}
    given = environment_for(own, replace(ACCESS, providers=()), mandatory=True)
    assert given["OPENAI_BASE_URL"] == ACCESS.url + "/openai/v1"
    assert not [value for value in given.values() if "real" in value]


def test_a_provider_for_which_the_gateway_has_no_key_is_left_as_it_was() -> None:
    given = environment_for(USERS, replace(ACCESS, providers=("openai",)))
    assert given["OPENAI_API_KEY"] == "crr_key"
    assert given["ANTHROPIC_API_KEY"] == "sk-ant-real"
    assert "ANTHROPIC_BASE_URL" not in given


def test_a_run_inside_a_run_gets_a_key_of_its_own() -> None:
    outer = environment_for(USERS, ACCESS)
    inner = environment_for(outer, replace(ACCESS, key="crr_inner"))
    assert inner["OPENAI_API_KEY"] == inner["CHECKREIN_KEY"] == "crr_inner"


def test_calls_to_the_gateway_pass_by_a_proxy() -> None:
    given = environment_for({"https_proxy": "http://proxy:8080", "NO_PROXY": "house"}, ACCESS)
    assert given["NO_PROXY"] == "house,127.0.0.1"
    assert given["no_proxy"] == "127.0.0.1"
    assert "NO_PROXY" not in environment_for({}, ACCESS)


@pytest.mark.parametrize(
    ("more", "level"),
    [
        ({}, "L1"),
        ({"MISTRAL_API_KEY": "k"}, "L0"),
        ({"AWS_SECRET_ACCESS_KEY": "k"}, "L0"),
        ({"MY_MODEL": "sk-live"}, "L0"),
        ({"MISTRAL_API_KEY": ""}, "L1"),
    ],
)
def test_the_level_is_never_better_than_the_environment_lets_it_be(
    more: dict[str, str], level: str
) -> None:
    assert level_of({**environment_for(USERS, ACCESS), **more}, ACCESS) == level


def test_without_a_key_it_is_the_lowest_level() -> None:
    assert level_of({}, None) == "L0"


def test_a_process_is_attested_with_its_start() -> None:
    at = started_at(os.getpid())
    assert 0 < at <= time.time_ns() + 1_000_000_000
    assert started_at(2**22 + 1) == 0


class _Server:
    """What the api answers, in order; the last answer stays."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked: list[RunTokenRequest] = []

    async def fetch(self, url: str, token: str, request: RunTokenRequest) -> RunTokenGrant:
        self.asked.append(request)
        answer: Any = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return RunTokenGrant(token=answer, expires_at=REAL.now_ns() + 300 * 10**9)


def _grant(url: str = ACCESS.url) -> SessionGrant:
    return SessionGrant(
        session="s", bus_urls=[], control_urls=[], jwt="", seed="", control_key="", expires_at=0,
        gateway_url=url, gateway_providers=["openai"],
    )  # fmt: skip


def _key(
    monkeypatch: pytest.MonkeyPatch, server: _Server, wanted: Any = "if there is one"
) -> tuple[RunKey, list[str]]:
    said: list[str] = []
    monkeypatch.setattr(run_key, "fetch", server.fetch)
    return RunKey(REAL, wanted, lambda: Endpoint("http://x", "t"), said.append), said


async def test_a_run_gets_a_key_that_its_supervisor_attests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = _Server("crr_1")
    key, said = _key(monkeypatch, server)
    access = await key.get(_grant(), RECORD, os.getpid())
    assert access == Access(ACCESS.url, "", ("openai",), "crr_1")
    assert not said
    (asked,) = server.asked
    assert (asked.run_id, asked.session, asked.pid) == ("r1", "s", os.getpid())
    assert asked.user
    assert asked.started_at


async def test_a_server_that_gives_no_keys_is_said_and_nothing_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key, said = _key(monkeypatch, _Server(NoRunKey("it knows no keys for runs")))
    assert await key.get(_grant(), RECORD, 1) is None
    assert "no keys for runs" in said[0]
    assert not key.held


@pytest.mark.parametrize("grant", [None, _grant("")])
async def test_where_only_the_gateway_will_do_its_absence_is_an_error(
    monkeypatch: pytest.MonkeyPatch, grant: SessionGrant | None
) -> None:
    key, _ = _key(monkeypatch, _Server("crr_1"), "always")
    with pytest.raises(NoGateway):
        await key.get(grant, RECORD, 1)
    quiet, said = _key(monkeypatch, _Server("crr_1"))
    assert await quiet.get(grant, RECORD, 1) is None
    assert not said


async def test_no_key_is_asked_for_when_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    server = _Server("crr_1")
    key, _ = _key(monkeypatch, server, "never")
    assert await key.get(_grant(), RECORD, 1) is None
    assert not server.asked


class _Quick:
    """A world that sleeps no longer than it must."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now_ns(self) -> int:
        return REAL.now_ns()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await REAL.sleep(0)


async def test_the_key_is_renewed_in_place_until_the_run_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = _Server("crr_1", ServerUnreachable("away"), "crr_1")
    key, _ = _key(monkeypatch, server)
    world = _Quick()
    key._world = world  # type: ignore[assignment] # has what is used here
    await key.get(_grant(), RECORD, os.getpid())
    await key.keep(RECORD, os.getpid(), lambda: "s2", lambda: len(server.asked) >= 4)
    assert [asked.token for asked in server.asked] == ["", "crr_1", "crr_1", "crr_1"]
    assert {asked.session for asked in server.asked[1:]} == {"s2"}
    assert [round(seconds) for seconds in world.slept] == [100, 5, 100, 100]
