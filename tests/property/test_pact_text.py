"""Whatever stands in a pact's text: it is read, or refused with its place. A text that took too
long would end the test by its timeout."""

from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from checkrein.policy.guard import RunGuard
from checkrein.policy.pact import PactError, load, version_of
from checkrein.policy.types import Action

KEYS = (
    "pact", "job", "owner", "extends", "models", "tools", "sequence", "flow", "budgets", "warn_at",
    "loops", "escalate", "approval", "internal", "output", "redact", "unclear", "lost_contact",
    "kind", "timeout", "undo", "arguments", "allow", "ask", "once_per", "set", "steer", "paths",
    "tables", "hosts", "repos", "source", "external", "when", "say", "to", "within", "hold",
    "steps", "usd", "task", "hour", "wall", "exhausted", "schema", "read", "write", "x", "",
)  # fmt: skip
WORDS = (
    "args.cents < 5", "args.a.matches('(a+)+$')", "true", "false", "deny x unless formerly y",
    "deny x if sum args.n of x within 1h > 5", "learned", "deny x when args.a derives from y",
    "5s", "10m", "60%", "3 in 90s", "-1", "1e400", "99999999999999999999", "read", "irreversible",
    "string", "optional integer", "/srv/**", "!**/.env", "*.example.com", "\u202e", "a" * 300,
    "deny", "pause", "secrets", "((((", "args." * 40, "[" * 50, "!" * 90 + "x", "\n", "~",
)  # fmt: skip

scalars = st.sampled_from(WORDS) | st.none() | st.booleans() | st.integers() | st.text(max_size=12)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=25,
)
pacts = st.dictionaries(st.sampled_from(KEYS[:18]), values, max_size=8)


def read(text: str) -> Any:
    refusal = ""
    try:
        return load(text, "fuzz.yaml")
    except PactError as error:
        refusal = str(error)
    assert refusal.startswith("fuzz.yaml")
    return None


@settings(max_examples=300, deadline=None)
@given(pacts)
def test_any_structure_is_read_or_refused(said: dict[str, Any]) -> None:
    pact = read(yaml.safe_dump({"pact": "a", **said}, allow_unicode=True))
    if pact is None:
        return
    assert pact.version == version_of(pact)
    verdict = RunGuard(pact).judge(Action(kind="tool", name="x", arguments={"cents": 1}), 1)
    assert verdict.kind in ("allow", "deny", "ask", "modify", "steer")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300) | st.text(alphabet="[]{}:,-&*!|>'\"%@`#?\n\t abc", max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    read(text)
    read(f"pact: a\ntools: {{x: {{allow: {text}}}}}")
    read(f"pact: a\nsequence:\n  - {text}")
