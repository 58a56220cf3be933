"""A tool that one agent has from a server behind the gateway is no other agent's."""

import pytest

from checkrein.gateway import served
from checkrein.gateway.served import ServedTools


def test_a_tool_is_served_to_whoever_uses_its_server() -> None:
    tools = ServedTools()
    tools.take("one", "crm", frozenset({"refund"}))
    tools.take("one", "files", frozenset({"read"}))
    assert tools.serves("one", "refund")
    assert not tools.serves("one", "pay")
    assert not tools.serves("other", "refund")
    tools.drop("one", "crm")
    assert not tools.serves("one", "refund")
    assert tools.serves("one", "read")
    tools.drop("other", "crm")


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "SERVERS_MAX", 2)
    monkeypatch.setattr(served, "AGENTS_MAX", 2)
    tools = ServedTools()
    for number in range(3):
        tools.take("one", f"server-{number}", frozenset({f"tool-{number}"}))
    assert [tools.serves("one", f"tool-{number}") for number in range(3)] == [False, True, True]
    tools.take("two", "s", frozenset({"a"}))
    tools.take("three", "s", frozenset({"a"}))
    assert not tools.serves("one", "tool-2")
