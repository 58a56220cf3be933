"""A pact with those it extends: which texts belong together, and what they say as one.

`extends` names another agent's pact, or `default`, which every pact extends that names none: the
pact that is stored under that name, else the one that is built in. Pure: `stored` looks texts up.
"""

from collections.abc import Callable, Sequence

from checkrein.policy.nearest import did_you_mean
from checkrein.policy.pact import PactError, default_pact, load
from checkrein.policy.pact_text import parse
from checkrein.policy.types import Pact

EVERYONE = "default"
CHAIN_MAX = 8
"""A pact, the one it extends, the one that extends, and so on."""

Named = tuple[str, str]
"""(what others call it in `extends`, its text)."""
Stored = Callable[[str], str | None]


def chain_of(
    name: str, text: str, stored: Stored, known: Sequence[str] = (), source: str = ""
) -> list[Named]:
    """The text after all that it extends. `known` are names for the hint when one is wrong.

    Raises PactError with the place of an `extends` that names nothing stored, or that leads back
    to where it came from.
    """
    chain = [(name, text)]
    seen = {name}
    while True:
        name, text = chain[0]
        where = source or name if len(chain) == 1 else f"pact of {name}"
        parent, refuse = _parent(text, where)
        if parent == EVERYONE and (name == EVERYONE or stored(EVERYONE) is None):
            return chain
        if parent in seen:
            refuse(f"`extends` leads back to `{parent}`")
        found = stored(parent)
        if found is None:
            refuse(
                f"`extends` names `{parent}`, which has no pact in force here"
                f"{did_you_mean(parent, known)}"
            )
        if len(chain) >= CHAIN_MAX:
            refuse(f"more than {CHAIN_MAX} pacts extend one another")
        seen.add(parent)
        chain.insert(0, (parent, found or ""))


def read_chain(chain: Sequence[Named], source: str = "") -> Pact:
    """What the last of the texts says, filled in by those before it; the default's own when there
    is none. Raises PactError."""
    pact = default_pact()
    known: dict[str, Pact] = {}
    for index, (name, text) in enumerate(chain):
        last = index == len(chain) - 1
        pact = load(text, source if last and source else f"pact of {name}", known)
        known[name] = pact
    return pact


def _parent(text: str, source: str) -> tuple[str, Callable[[str], None]]:
    entries = parse(text, source).entries()
    if "extends" not in entries:

        def refuse(problem: str) -> None:
            raise PactError(problem, source, 1, 1)

        return EVERYONE, refuse
    part = entries["extends"][1]
    return part.text(), part.refuse
