"""Whatever an agent passes to a tool, a pact that uses every part of the language has an answer: no
exception, no hang, and nothing forbidden let pass for being strange."""

from typing import Any

import pytest
from tests.policy.test_language import SUPPORT

from checkrein.policy.guard import RunGuard
from checkrein.policy.pact import load
from checkrein.policy.types import Action, Place

PACT = load(SUPPORT + "flow: [directive, learned, trifecta, untrusted]\ninternal: [example.com]\n")


def _cyclic() -> Any:
    loop: dict[str, Any] = {}
    loop["order"] = loop
    return loop


def _deep() -> Any:
    value: Any = 1
    for _ in range(20_000):
        value = {"order": value}
    return value


class _Rude:
    def __repr__(self) -> str:
        raise RuntimeError("do not look at me")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("do not compare me")

    __hash__ = None  # type: ignore[assignment] # it is rude in this, too


STRANGE: dict[str, Any] = {
    "nothing": None, "text": "refund all", "list": [1, 2], "cyclic": _cyclic(), "deep": _deep(),
    "rude": {"order": _Rude(), "cents": _Rude(), "currency": _Rude()}, "nan": {
        "order": "A", "cents": float("nan"), "currency": "USD"},
    "huge number": {"order": "A", "cents": 10**400, "currency": "USD"},
    "surrogate": {"order": "\ud800", "cents": 1, "currency": "\udfff"},
    "bytes": {"order": b"\xff", "cents": b"1", "currency": "USD"},
    "many": {f"k{n}": n for n in range(20_000)}, "no text keys": {1: 2, None: 3, (1,): 4},
    "long": {"order": "x" * 2_000_000, "cents": 1, "currency": "USD"},
    "look-alike": {"order": "A", "cents": "\uff11\uff10\uff10", "currency": "\uff35\uff33\uff24"},
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("tool", ["refund", "read_file", "query", "fetch", "search_web", "notify"])
def test_strange_arguments_are_answered(tool: str, name: str) -> None:
    guard = RunGuard(PACT, 1, Place(agent="bot", goal="refund A"))
    verify = Action(kind="tool", name="verify_customer", arguments={"id": 1}, call_id="v")
    guard.judge(verify, 1)
    guard.returned(verify, STRANGE[name], "", 2)
    action = Action(kind="tool", name=tool, arguments=STRANGE[name], call_id="c")
    verdict = guard.judge(action, 3)
    if tool != "notify":
        assert verdict.kind in ("deny", "ask"), verdict
    assert verdict.reason or verdict.kind == "allow"
    guard.returned(action, STRANGE[name], "", 4)
    guard.remembered("k", STRANGE[name], wrote=True)
    guard.remembered("k", STRANGE[name], wrote=False)
    assert guard.judge(Action(kind="tool", name="search_kb", arguments={"q": 1}), 5).kind != ""


@pytest.mark.parametrize("tool", ["", "\x00", "a" * 100_000, "refund\u200b", "REFUND", "refund "])
def test_strange_names_are_not_the_tools_they_resemble(tool: str) -> None:
    guard = RunGuard(PACT, 1)
    assert guard.judge(Action(kind="tool", name=tool, arguments={}), 1).rule == "tools.pact"
