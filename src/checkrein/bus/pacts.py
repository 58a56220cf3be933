"""Pacts on their way to whoever enforces them: one signed message says all that is in force.

    PactRefused         this message must not be adopted; `why` is one of these:
        GARBAGE         not a signed pact at all
        FORGED          the signature is not the server's
        OTHER_PLACE     meant for another environment
        OLD             a newer one was accepted before
        REPEATED        this very one was accepted before

An enforcement point (a process with the SDK, directly linked or behind a supervisor) never needs a
second look-up: a `PactSet` holds the text of every pact that the agent's own one extends. It is
level-triggered: `pact.<session>` brings what has just changed, and the answer to `Held`, which
every holder sends when it connects, when something changed and every few seconds, brings what it
missed.
"""

import msgspec

SET_BYTES_MAX = 900_000
TOGETHER_BYTES_MAX = 1_500_000
"""So much of sets goes into one answer, and one set at least; the rest comes with the next."""

GARBAGE = "garbage"
FORGED = "forged"
OTHER_PLACE = "other environment"
OLD = "old revision"
REPEATED = "repeated"

DEVELOPMENT = "development"


class PactRefused(Exception):
    """Says why this pact is not adopted; `detail` tells what was seen."""

    def __init__(self, why: str, detail: str) -> None:
        super().__init__(f"pact refused ({why}): {detail}")
        self.why = why
        self.detail = detail


class PactText(msgspec.Struct, frozen=True):
    """One pact's YAML. `name` is what others call it in `extends`."""

    name: str
    text: str


class Earlier(msgspec.Struct, frozen=True, kw_only=True):
    """What was enforced from `since` (ns since 1970) on."""

    since: int
    enforced: list[PactText] = []


class PactSet(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force for one agent in one environment. `enforced` and `shadow` are texts, the
    agent's own last, each after those it extends; empty: none. The versions are as the server
    reads them. `revision` rises with every change of this agent's set, and over restarts.
    `earlier`, the oldest first, stands in the bucket only: for those who judge what has happened
    before."""

    agent: str
    environment: str
    revision: int
    enforced: list[PactText] = []
    shadow: list[PactText] = []
    enforced_version: str = ""
    shadow_version: str = ""
    issued_by: str = ""
    issued_at: int = 0
    earlier: list[Earlier] = []

    def says_the_same(self, other: "PactSet") -> bool:
        return self.enforced == other.enforced and self.shadow == other.shadow


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """What some processes of a session enforce for one agent. `revision` 0: no pact of the server's
    (their own file's, or the default). `error`: why they could not adopt a newer one."""

    agent: str
    revision: int = 0
    enforced: str = ""
    shadow: str = ""
    error: str = ""
    processes: int = 1


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """holder -> api on `held.<session>`, a request. `revisions`: the newest set that the holder has
    got for each of its agents (0: none)."""

    session: str
    environment: str
    at: int
    revisions: dict[str, int] = {}
    holdings: list[Holding] = []


class Newer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `Held`: signed sets that are newer than what the holder has got."""

    sets: list[bytes] = []


def place_of(environment: str) -> str:
    """The environment by whose pacts one lives that names none."""
    return environment or DEVELOPMENT
