"""What a model sees, and what comes back to the agent."""

import json
import logging
from typing import Any

import pytest

from checkrein.gateway import vault as vaults
from checkrein.gateway.clean import CleanRecorder, clean_logs
from checkrein.gateway.known import KEYS_MAX, MARK, KnownKeys, known_keys
from checkrein.gateway.names import load_names
from checkrein.gateway.redaction import Redaction
from checkrein.gateway.settings import SettingsError, settings_of
from checkrein.gateway.types import Refusal
from checkrein.gateway.vault import TOKEN_CHARS_MAX, Vault, Vaults
from checkrein.policy.redact import Names, compile_redaction
from checkrein.world import SimWorld
from tests.canaries import PERSONAL, SECRETS, canaries
from tests.gateway.conftest import Gates

BOTH = compile_redaction(["secrets", "pii"])
GITHUB = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
PROVIDERS = "sk-live-providers-own-key-0123456789"
PACT = "pact: bot\njob: test\nredact: [secrets, pii]\ntools:\n  mail: {kind: irreversible}\n"


def screen(vault: Vault | None = None, names: Names | None = None) -> Redaction:
    redactor = compile_redaction(["secrets", "pii"], names=names) if names else BOTH
    return Redaction(redactor, vault or Vault(b"k" * 32), KnownKeys([PROVIDERS]))


CHAT = {
    "model": "gpt-4o", "user": "bob@acme.com",
    "messages": [
        {"role": "system", "content": f"key {GITHUB}"},
        {"role": "user", "content": [{"type": "text", "text": "I am bob@acme.com"}, {
            "type": "image_url", "image_url": {"url": "data:image/png;base64,bob@acme.com"}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "bob@acme.com", "type":
            "function", "function": {"name": "mail", "arguments":
                json.dumps({"to": "bob@acme.com", "password": "swordfish"})}}]},
        {"role": "tool", "tool_call_id": "c1", "content": '{"to": "bob@acme.com"}'},
    ],
    "tools": [{"type": "function", "function": {"name": "mail", "description": "a@b.com"}}],
}  # fmt: skip
MESSAGES = {
    "model": "claude-x", "system": [{"type": "text", "text": f"key {GITHUB}"}],
    "metadata": {"user_id": "bob@acme.com"},
    "messages": [
        {"role": "user", "content": "I am bob@acme.com"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "of bob@acme.com", "signature": "s"},
            {"type": "tool_use", "id": "t1", "name": "mail",
             "input": {"to": "bob@acme.com", "password": "swordfish"}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": "sent to bob@acme.com"},
            {"type": "document", "source": {"type": "text", "data": "bob@acme.com"}},
            {"type": "image", "source": {"type": "base64", "data": "Ym9iQGFjbWUuY29t"}}]},
    ],
}  # fmt: skip
RESPONSES = {
    "model": "gpt-4o", "instructions": f"key {GITHUB}", "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "I am bob@acme.com"}]},
        {"type": "function_call", "call_id": "c", "name": "mail",
         "arguments": '{"to": "bob@acme.com", "password": "swordfish"}'},
        {"type": "function_call_output", "call_id": "c", "output": "sent to bob@acme.com"},
    ],
    "text": {"format": {"type": "json_schema", "schema": {"description": "a@b.com"}}},
}  # fmt: skip
EMBEDDINGS = {"model": "e", "input": ["bob@acme.com", f"{GITHUB} password=swordfish"]}


@pytest.mark.parametrize("body", [CHAT, MESSAGES, RESPONSES, EMBEDDINGS])
def test_a_model_sees_marks_and_tokens(body: dict[str, Any]) -> None:
    before, ours = json.dumps(body), screen()
    seen = ours.request(body)
    assert json.dumps(body) == before
    text = json.dumps(seen)
    assert GITHUB not in text
    assert "swordfish" not in text
    assert "[redacted:github-token]" in text
    kept = [
        part for part in ("data:image/png;base64,bob@acme.com", '"id": "bob@acme.com"',
        '"thinking": "of bob@acme.com"') if part in before
    ]  # fmt: skip
    for part in kept:  # media, ids and what is signed go as they are
        assert part in text
    assert text.count("bob@acme.com") == len(kept)
    assert {key: seen.get(key) for key in ("tools", "text", "model")} == {
        key: body.get(key) for key in ("tools", "text", "model")
    }
    assert ours.counts["email"] >= 1
    assert set(ours.counts) <= {"email", "github-token", "secret"}


def test_tokens_are_stable_in_a_run_and_turned_back_only_there() -> None:
    one, other = Vault(b"1" * 32), Vault(b"2" * 32)
    token = screen(one).request({"input": "bob@acme.com"})["input"]
    assert token == screen(one).request({"input": "bob@acme.com"})["input"]
    assert token != screen(other).request({"input": "bob@acme.com"})["input"]
    assert screen(one).value(f"I wrote to {token}.") == "I wrote to bob@acme.com."
    assert screen(other).value(f"I wrote to {token}.") == f"I wrote to {token}."
    assert len(token.replace("<", "\\u003c").replace(">", "\\u003e")) <= TOKEN_CHARS_MAX


def test_what_a_model_calls_a_tool_with_is_real() -> None:
    vault = Vault(b"k" * 32)
    value = 'an odd "number" 1234'
    seen = screen(vault).request({"messages": [{"type": "tool_use", "name": "n", "input": {
        "ssn": value, "to": "bob@acme.com"}}]})["messages"][0]["input"]  # fmt: skip
    assert seen["ssn"].startswith("<pii:")
    for given in (json.dumps(seen), json.dumps(seen).replace("<", "\\u003c")):
        assert json.loads(screen(vault).arguments(given)) == {"ssn": value, "to": "bob@acme.com"}
        answer = {"function": {"name": "mail", "arguments": given}}
        clean = screen(vault).value(answer)
        assert json.loads(clean["function"]["arguments"])["ssn"] == value
    assert screen(vault).arguments(seen) == {"ssn": value, "to": "bob@acme.com"}
    block = {"type": "tool_use", "id": "t", "name": "mail", "input": seen}
    assert screen(vault).value([block])[0]["input"]["to"] == "bob@acme.com"


def test_what_a_model_writes_of_its_own_is_taken_out_of_text_but_not_of_arguments() -> None:
    vault = Vault(b"k" * 32)
    for _ in range(2):  # the second time it is as unknown to the agent as the first
        text = screen(vault).value(f"ask ann@else.com with {GITHUB} or {PROVIDERS}")
        assert text.startswith("ask <email:")
        assert text.endswith(f"with [redacted:github-token] or {MARK}")
    token = text.split()[1]
    assert screen(vault).arguments({"to": token}) == {"to": "ann@else.com"}
    assert screen(vault).arguments('{"to": "new@else.com"}') == '{"to": "new@else.com"}'
    screen(vault).request({"input": "ann@else.com"})  # now the agent has it
    assert screen(vault).value(f"to {token}, ann@else.com") == "to ann@else.com, ann@else.com"


def test_a_tools_result_keeps_what_is_the_agents() -> None:
    clean = screen().result({"name": "x", "text": f"bob@acme.com {GITHUB}", "id": PROVIDERS})
    assert clean == {"name": "x", "text": "bob@acme.com [redacted:github-token]", "id": MARK}


def test_secrets_are_never_turned_back() -> None:
    vault = Vault(b"k" * 32)
    seen = screen(vault).request({"input": "postgres://bob:hunter2@db.acme.com/x"})["input"]
    assert "hunter2" not in seen
    assert "hunter2" not in screen(vault).value(seen)
    assert "hunter2" not in screen(vault).arguments(seen)


def test_what_cannot_be_looked_through_does_not_pass() -> None:
    deep: Any = "bob@acme.com"
    for _ in range(70):
        deep = [deep]
    with pytest.raises(Refusal) as refused:
        screen().request({"messages": deep})
    assert refused.value.status == 413
    assert screen().value(deep) == "[redacted:failed]"

    def broken(text: str) -> list[tuple[int, int]]:
        raise RuntimeError(text)

    with pytest.raises(Refusal) as refused:
        screen(names=broken).request({"input": "my text"})
    assert refused.value.code == "guard_error"
    assert "my text" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert screen(names=broken).value("my text") == "[redacted:failed]"
    pieces = screen(names=broken).channel()
    assert (pieces.text("my "), pieces.text("text"), pieces.finish()) == (
        "[redacted:failed]", "", "",
    )  # fmt: skip


def find_ann(text: str) -> list[tuple[int, int]]:
    at = text.find("Ann Exámple")
    return [(at, at + len("Ann Exámple"))] if at >= 0 else []


def test_names_by_a_plug_in() -> None:
    vault = Vault(b"k" * 32)
    ours = screen(vault, find_ann)
    seen = ours.request({"input": "é: ask Ann Exámple now"})["input"]
    assert seen.startswith("é: ask <name:")
    assert seen.endswith("> now")
    assert ours.counts == {"name": 1}
    pieces = screen(vault, find_ann).channel()
    text = "".join(pieces.text(letter) for letter in f"was {seen} or Ann Exámple") + pieces.finish()
    assert text == "was é: ask Ann Exámple now or Ann Exámple"
    assert load_names(f"{__name__}:find_ann") is not None
    assert load_names("") is None
    for wrong in ("nowhere:x", "json:nothing", "json", "json:__name__"):
        with pytest.raises(SettingsError, match=r"gateway\.names"):
            load_names(wrong)


def test_vaults_are_bounded_and_go_with_their_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Run:
        run_id = "r"

    all_runs = Vaults(SimWorld(1))
    run = Run()
    vault = all_runs.of(run)
    assert all_runs.of(run) is vault
    again = Run()
    assert all_runs.of(again) is vault
    del run
    assert len(all_runs) == 1
    assert vault.token("email", "a@b.com", True)
    assert not vault.token("email", "x" * (vaults.VALUE_CHARS_MAX + 1), True)
    monkeypatch.setattr(vaults, "VALUES_MAX", 1)
    assert not vault.token("email", "c@d.com", True)
    assert vault.token("email", "a@b.com", True)
    assert screen(vault).request({"input": "c@d.com"})["input"] == "[redacted:email]"
    monkeypatch.setattr(vaults, "VALUES_MAX", 9)
    monkeypatch.setattr(vaults, "CHARS_MAX", 10)
    assert not vault.token("email", "c@d.com", True)
    assert all_runs.chars == 7
    del again
    assert (len(all_runs), all_runs.chars) == (0, 0)


def test_known_keys_in_all_their_forms() -> None:
    key = 'a"key/with+odd signs&0123'
    known = KnownKeys([key, "short"])
    quoted = "a%22key%2Fwith%2Bodd%20signs%260123"
    for form in (key, quoted, json.dumps(key)[1:-1], "YSJrZXkvd2l0aCtvZGQgc2lnbnMmMDEyMw=="):
        assert known.text(f"x {form} y").startswith(f"x {MARK}")
        assert known.within(f"x {form} y".encode())
    ours = "cra_" + "0f" * 20
    assert known.plain({"a": [key, {ours: "short", "n": 3}], "b": key.encode()}) == {
        "a": [MARK, {MARK: "short", "n": 3}], "b": MARK.encode(),
    }  # fmt: skip
    same = "nothing here"
    assert known.text(same) is same
    assert known.overhang("x a") == 1
    assert known.overhang('say a"key/wi') == 8
    for number in range(KEYS_MAX + 10):
        known.learn(f"some-key-{number:06}")
    assert known.text(f"some-key-{KEYS_MAX + 5:06}") == MARK


def test_known_keys_are_those_of_the_settings() -> None:
    crm = {"url": "http://127.0.0.1:1/mcp", "key_env": "CRM"}
    models = {"openai": {"key_file": "/nowhere/at/all"}}
    config = {"gateway": {"models": models, "mcp": {"crm": crm}}}
    environ = {"ANTHROPIC_API_KEY": "sk-ant-x-1234567890", "CRM": "crm-key-1234"}
    known = known_keys(settings_of(config, environ), environ)
    assert known.text("sk-ant-x-1234567890 crm-key-1234") == f"{MARK} {MARK}"


async def test_the_screen_goes_by_the_pact_of_the_call(gates: Gates) -> None:
    house = gates(pact=PACT)
    plain = house.agent("plain", pact="pact: p\njob: test\ntools:\n  mail: {kind: read}\n")
    for key, active in ((house.agent("bot"), True), (plain, False)):
        async with house.gate.visit({"authorization": f"Bearer {key}"}, "openai") as visit:
            ours = house.gate.screen_for(visit)
            assert ours.active is active
            seen = ours.request({"input": f"bob@acme.com {key}"})["input"]
            assert key not in seen
            assert ("bob@acme.com" in seen) is not active
            visit.facts["redacted"] = ours.counts
    first, second = house.of("passage")
    assert first["redacted"] == {"email": 1, "key": 1}
    assert second["redacted"] == {"key": 1}


def test_1000_canaries_stay_out_of_logs(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("checkrein.gateway.test")
    made = [*canaries(3, 700, SECRETS), *canaries(3, 300, PERSONAL)]
    handler = caplog.handler
    logging.getLogger().addHandler(handler)
    with clean_logs(KnownKeys([PROVIDERS])):
        for number, (_, secret, value) in enumerate(made):
            if number % 3 == 0:
                log.warning("told %s", value)
            elif number % 3 == 1:
                try:
                    raise ValueError(f"no: {secret}")
                except ValueError:
                    log.exception("a request failed with %s", PROVIDERS)
            else:
                log.warning(f"plain {secret}")  # noqa: G004 # as libraries do
        log.warning("odd %d", "no number")
    text = caplog.text
    found = [
        secret for _, secret, _ in made if secret in text or secret.split("\n")[-2:][0] in text
    ]
    assert found == []
    assert PROVIDERS not in text
    assert "[redacted:failed] TypeError" in text
    assert caplog.records[1].exc_text is not None
    assert "Traceback" in caplog.records[1].exc_text


class Kept:
    id = "r"

    def __init__(self) -> None:
        self.fields: list[dict[str, Any]] = []

    def record(self, kind: Any, place: Any, step: int, /, **fields: Any) -> int:
        self.fields.append(fields)
        return 1


def test_the_record_has_no_key_of_the_gateways() -> None:
    import msgspec

    kept = Kept()
    recorder = CleanRecorder(kept, KnownKeys([PROVIDERS]))  # type: ignore[arg-type] # a twin
    raw = msgspec.Raw(msgspec.msgpack.encode([{"content": f"a {PROVIDERS}"}]))
    clean = msgspec.Raw(msgspec.msgpack.encode(["nothing"]))
    recorder.record(None, None, 0, a=PROVIDERS, b=raw, c=clean, d={"x": [PROVIDERS]}, e=3, f=None)
    assert kept.fields == [
        {"a": MARK, "b": [{"content": f"a {MARK}"}], "c": clean, "d": {"x": [MARK]}, "e": 3,
         "f": None}
    ]  # fmt: skip
    recorder.record(None, None, 0, broken=msgspec.Raw(b"\xc1" + PROVIDERS.encode()))
    assert kept.fields[1] == {"broken": None}
