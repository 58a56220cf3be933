"""Which upstream is asked, with which headers and key, how often, and what of its answer passes."""

import json
from typing import Any

import pytest

from checkrein.gateway.models.headers import back, onward
from checkrein.gateway.models.part import open_models
from checkrein.gateway.models.retrying import is_worth_it, wait_s
from checkrein.gateway.settings import Settings, SettingsError, Upstream
from tests.gateway.conftest import Gates
from tests.gateway.models.conftest import Serve
from tests.gateway.models.raw import answer, raw_upstream
from tests.gateway.models.test_faults import BODY, COMPLETION, code, post

BUSY = answer(b'{"error":{"message":"busy"}}', status="529 Busy", retry_after_ms="1")


def head_of(request: bytes) -> dict[str, str]:
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    pairs = [line.partition(": ") for line in lines]
    return {name.lower(): value for name, _, value in pairs}


def two(first: str, second: str, **more: Any) -> Settings:
    """`openai` falls back on `other`."""
    options: dict[str, Any] = {"protocol": "openai", "retries": 0, "timeout_s": 0.3} | more
    return Settings(models={
        "openai": Upstream(name="openai", url=first, fallback=("other",), **options),
        "other": Upstream(name="other", url=second, key_env="REAL_ANTHROPIC", **options),
    })  # fmt: skip


async def test_the_real_key_goes_out_and_none_of_ours(serve: Serve) -> None:
    headers = {
        "openai-organization": "org", "x-custom": "1", "cookie": "a=b", "x-api-key": "of-another",
        "x-forwarded-for": "10.0.0.1", "x-sneaky": "Bearer crr_mine", "connection": "x-private",
        "x-private": "p", "idempotency-key": "i", "accept-encoding": "gzip",
    }  # fmt: skip
    async with raw_upstream(answer(BODY)) as upstream, serve(upstream.url) as served:
        await post(served, headers=headers | {"authorization": f"Bearer {served.key}"})
        (request,) = upstream.requests
        sent = head_of(request)
        assert sent["authorization"] == "Bearer sk-real-openai-key-0123456789"
        assert (sent["openai-organization"], sent["x-custom"]) == ("org", "1")
        assert (sent["idempotency-key"], sent["accept-encoding"]) == ("i", "identity")
        assert not {"cookie", "x-api-key", "x-sneaky", "x-private", "x-forwarded-for"} & set(sent)
        assert b"cra_" not in request
        assert b"crr_" not in request
        assert request.lower().count(b"content-length") == 1


async def test_the_real_key_never_comes_back_nor_into_the_record(serve: Serve) -> None:
    echo = b'{"error":{"message":"bad key sk-real-openai-key-0123456789"}}'
    async with (
        raw_upstream(answer(echo, status="401 No")) as upstream,
        serve(upstream.url) as served,
    ):
        found = await post(served)
        assert found.status_code == 401
        assert found.json()["error"]["message"] == "bad key [redacted:key]"
        assert "sk-real" not in str(served.house.recorder.events)


async def test_status_body_and_headers_of_an_error_are_the_providers(serve: Serve) -> None:
    given = answer(
        b'{"error": {"message": "slow down", "type": "t"}}', status="429 Too Many",
        retry_after="77", x_request_id="r1", set_cookie="a=b", x_ratelimit_remaining="0",
    )  # fmt: skip
    async with raw_upstream(given) as upstream, serve(upstream.url) as served:
        found = await post(served)
        assert (found.status_code, found.headers["retry-after"]) == (429, "77")
        assert found.json() == {"error": {"message": "slow down", "type": "t"}}
        assert found.headers["x-request-id"] == "r1"
        assert "set-cookie" not in found.headers
        (passage,) = served.house.of("passage")
        assert (passage["status"], "429" in passage["reason"]) == ("failed", True)


async def test_words_instead_of_json_come_in_the_shape_that_clients_read(serve: Serve) -> None:
    given = answer(b"<h1>502</h1>", "text/html", "502 Bad")
    async with raw_upstream(given) as upstream, serve(upstream.url) as served:
        found = await post(served)
        assert (found.status_code, found.json()["error"]["message"]) == (502, "<h1>502</h1>")


async def test_a_busy_upstream_is_asked_again_and_then_given_up(serve: Serve) -> None:
    async with (
        raw_upstream(BUSY, BUSY, answer(BODY)) as upstream,
        serve(upstream.url, retries=2) as served,
    ):
        assert (await post(served)).json() == COMPLETION
        assert served.house.of("passage")[0]["attempts"] == 3
    async with raw_upstream(BUSY) as upstream, serve(upstream.url, retries=1) as served:
        assert (await post(served)).status_code == 529
        assert len(upstream.requests) == 2
        assert len(served.house.of("model.request")) == 1


async def test_one_that_cannot_be_reached_hands_over_to_its_fallback(serve: Serve) -> None:
    async with raw_upstream(answer(BODY)) as good, raw_upstream(BUSY) as busy:
        for first in ("http://127.0.0.1:1", busy.url):
            async with serve(settings=two(first, good.url)) as served:
                assert (await post(served)).json() == COMPLETION
                (passage,) = served.house.of("passage")
                assert (passage["upstream"], passage["attempts"]) == ("other", 2)
                sent = head_of(good.requests[-1])
                assert sent["authorization"] == "Bearer sk-ant-real-key-0123456789"
        async with serve(settings=two("http://127.0.0.1:1", "http://127.0.0.1:1")) as served:
            found = await post(served)
            assert (found.status_code, code(found)) == (502, "checkrein_upstream_failed")


async def test_the_pact_routes_and_the_record_keeps_both_names(serve: Serve) -> None:
    pact = """\
pact: bot
models: [cheap]
route:
  - {when: model == "dear", model: cheap, upstream: other}
  - {when: model == "lost", upstream: nowhere}
"""
    async with (
        raw_upstream(BUSY) as first,
        raw_upstream(answer(BODY)) as other,
        serve(settings=two(first.url, other.url), pact=pact) as served,
    ):
        assert (await post(served, {"model": "dear"})).status_code == 200
        (sent,) = other.requests
        assert json.loads(sent.partition(b"\r\n\r\n")[2])["model"] == "cheap"
        (asked,) = served.house.of("model.request")
        (passage,) = served.house.of("passage")
        assert (asked["model"], passage["requested_model"]) == ("cheap", "dear")
        assert code(await post(served, {"model": "gpt-5"})) == "checkrein_denied"
        lost = await post(served, {"model": "lost"})
        assert "names the upstream 'nowhere'" in lost.json()["error"]["message"]
        assert first.requests == []


async def test_models_and_token_counts_are_passed_on(serve: Serve) -> None:
    given = [answer(b'{"data": []}'), answer(b'{"input_tokens": 3}'), answer(b'{"id": "m/x"}')]
    async with raw_upstream(*given) as upstream, serve(upstream.url) as served:
        async with served.anthropic() as claude, served.openai() as client:
            assert (await claude.models.list()).data == []
            count = await claude.messages.count_tokens(
                model="c", messages=[{"role": "user", "content": "q"}]
            )
            assert count.input_tokens == 3
            assert (await client.models.retrieve("m/x")).id == "m/x"
        lines = [request.split(b"\r\n")[0] for request in upstream.requests]
        assert lines[1] == b"POST /v1/messages/count_tokens HTTP/1.1"
        assert lines[2].startswith(b"GET /v1/models/m")
        assert [e["name"] for e in served.house.of("passage")] == ["count_tokens"]
        served.house.halt()
        refused = await post(served, path="/anthropic/v1/messages/count_tokens")
        assert refused.json()["error"]["code"] == "checkrein_halted"


async def test_refusals_have_the_shape_of_each_provider(serve: Serve) -> None:
    async with (
        raw_upstream(answer(BODY)) as upstream,
        serve(upstream.url, "pact: bot\nmodels: [other]\n") as served,
    ):
        openai, claude = await post(served), await post(served, path="/anthropic/v1/messages")
        assert (openai.status_code, claude.status_code) == (403, 403)
        assert openai.json()["error"]["type"] == "permission_error"
        assert claude.json()["type"] == "error"
        assert code(openai) == code(claude) == "checkrein_denied"
        assert openai.headers["x-should-retry"] == "false"
        strangers = await post(served, headers={"authorization": "Bearer sk-none"})
        assert (strangers.status_code, code(strangers)) == (401, "checkrein_unauthenticated")
        assert upstream.requests == []


@pytest.mark.parametrize("url", ["http://2130706433/v1", "http://0x7f.0.0.1/v1"])
async def test_an_upstream_in_disguise_is_refused_when_the_part_opens(
    gates: Gates, url: str
) -> None:
    house = gates(two(url, url))
    with pytest.raises(SettingsError, match="address in disguise"):
        await open_models(house.gate)


async def test_a_public_name_that_leads_inside_is_refused_with_the_reason(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aiohttp import ThreadedResolver

    async def inside(self: Any, host: str, port: int = 0, family: Any = 0) -> Any:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 0,
                 "flags": 0}]  # fmt: skip

    monkeypatch.setattr(ThreadedResolver, "resolve", inside)
    url = "http://api.example.com:9/v1"
    async with serve(settings=two(url, url)) as served:
        found = await post(served)
        assert found.status_code == 502
        assert "an address of this machine" in found.json()["error"]["message"]


# -- pure -----------------------------------------------------------------------------------------


def test_what_is_worth_another_attempt_and_when() -> None:
    worth = {status for status in range(100, 600) if is_worth_it(status, {})}
    assert worth == {408, 409, 429, *range(500, 600)}
    assert is_worth_it(400, {"x-should-retry": "true"})
    assert not is_worth_it(500, {"x-should-retry": "false"})
    assert [wait_s(n, {}, 0, 0.0) for n in (1, 2, 3, 9)] == [0.5, 1.0, 2.0, 8.0]
    assert wait_s(1, {}, 0, 1.0) == 0.375
    assert wait_s(1, {"retry-after": "7"}, 0, 0.0) == 7.0
    assert wait_s(1, {"retry-after-ms": "30", "retry-after": "7"}, 0, 0.0) == 0.03
    date = {"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}
    assert wait_s(1, date, 20_000_000_000, 0.0) == 40.0
    assert wait_s(1, {"retry-after": "soon"}, 0, 0.0) == 0.5
    assert wait_s(1, {"retry-after": "-5"}, 0, 0.0) == 0.5


def test_headers_of_both_directions() -> None:
    assert onward({}, "anthropic", "k")["x-api-key"] == "k"
    assert "authorization" not in onward({"authorization": "Bearer cra_x"}, "openai", "")
    found = back([("Connection", "x-hop"), ("X-Hop", "1"), ("Vary", "a"), ("vary", "b"),
                  ("Content-Encoding", "gzip"), ("Location", "http://x")])  # fmt: skip
    assert found == {"vary": "a, b"}


async def test_a_key_in_a_file_is_read_again_when_it_changes(serve: Serve, tmp_path: Any) -> None:
    file = tmp_path / "key"
    file.write_text("first\n")
    async with raw_upstream(answer(BODY)) as upstream:
        one = Upstream(
            name="openai", protocol="openai", url=upstream.url, key_file=str(file), retries=0
        )
        async with serve(settings=Settings(models={"openai": one})) as served:
            await post(served)
            file.write_text("second one\n")
            await post(served)
            keys = [head_of(request)["authorization"] for request in upstream.requests]
            assert keys == ["Bearer first", "Bearer second one"]
            file.unlink()
            found = await post(served)
            assert found.status_code == 502
            assert str(file) not in found.text
