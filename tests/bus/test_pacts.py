"""Pacts on their way: signed, for one environment, never an older after a newer one."""

import msgspec
import pytest
from nacl.signing import SigningKey

from checkrein.bus import subjects
from checkrein.bus.messages import encode
from checkrein.bus.orders import DOMAIN as ORDERS
from checkrein.bus.pacts import (
    FORGED,
    GARBAGE,
    OLD,
    OTHER_PLACE,
    REPEATED,
    SET_BYTES_MAX,
    PactRefused,
    PactSet,
    PactText,
)
from checkrein.bus.signed_pacts import PactInbox, SignedPact, sign, verify

KEY = SigningKey.generate()
PUBLIC = bytes(KEY.verify_key)


def made(revision: int = 1, agent: str = "bot", environment: str = "development") -> PactSet:
    return PactSet(
        agent=agent, environment=environment, revision=revision,
        enforced=[PactText("bot", "pact: bot\n")], enforced_version="v",
    )  # fmt: skip


def refused(inbox: PactInbox, data: bytes) -> str:
    with pytest.raises(PactRefused) as caught:
        inbox.accept(data)
    return caught.value.why


def test_what_is_signed_comes_out_whole() -> None:
    assert verify(sign(made(), KEY), PUBLIC) == made()


def test_what_is_not_the_servers_is_refused() -> None:
    inbox = PactInbox(PUBLIC, "development")
    signed = sign(made(), KEY)
    frame = msgspec.msgpack.decode(signed, type=SignedPact)
    payload = encode(made(7))
    as_order = encode(SignedPact(payload, KEY.sign(ORDERS + payload).signature))
    assert refused(inbox, b"") == GARBAGE
    assert refused(inbox, b"x" * (SET_BYTES_MAX + 1)) == GARBAGE
    assert refused(inbox, sign(made(), SigningKey.generate())) == FORGED
    assert refused(inbox, encode(SignedPact(payload, frame.signature))) == FORGED
    assert refused(inbox, as_order) == FORGED
    assert refused(inbox, encode(SignedPact(frame.payload, b"short"))) == FORGED
    garbage = b"\xc1"
    whole = encode(SignedPact(garbage, KEY.sign(b"checkrein-pact-v1" + garbage).signature))
    assert refused(inbox, whole) == GARBAGE
    assert inbox.accept(signed) == made()


def test_the_newest_wins_for_each_agent() -> None:
    inbox = PactInbox(PUBLIC, "")
    inbox.accept(sign(made(5), KEY))
    assert refused(inbox, sign(made(4), KEY)) == OLD
    assert refused(inbox, sign(made(5), KEY)) == REPEATED
    inbox.accept(sign(made(1, agent="other"), KEY))
    inbox.accept(sign(made(6), KEY))
    assert (inbox.revision("bot"), inbox.revision("other"), inbox.revision("none")) == (6, 1, 0)


def test_another_environments_pact_is_refused() -> None:
    inbox = PactInbox(PUBLIC, "production")
    assert refused(inbox, sign(made(), KEY)) == OTHER_PLACE
    assert inbox.revision("bot") == 0


def test_what_an_inbox_remembers_is_bounded() -> None:
    inbox = PactInbox(PUBLIC, "", sets_max=2)
    for name in ("a", "b", "c"):
        inbox.accept(sign(made(3, agent=name), KEY))
    assert (inbox.revision("a"), inbox.revision("c")) == (0, 3)


@pytest.mark.parametrize("names", [("bot", "development"), ("a.b", "x y"), ("", "*"), (">", "ü")])
def test_keys_hold_any_names(names: tuple[str, str]) -> None:
    key = subjects.pact_key(*names)
    assert key.count(".") == 1
    assert subjects.pact_key_of(key) == names
