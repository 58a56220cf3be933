"""Signing pacts on their way, and deciding which a holder takes. Apart from `pacts`, so that a
process which only reads them does not load the cryptography."""

from collections import OrderedDict

import msgspec
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from checkrein.bus.messages import MessageError, decode, encode
from checkrein.bus.pacts import (
    FORGED,
    GARBAGE,
    OLD,
    OTHER_PLACE,
    REPEATED,
    SET_BYTES_MAX,
    PactRefused,
    PactSet,
    place_of,
)

DOMAIN = b"checkrein-pact-v1"
SETS_MAX = 20_000


class SignedPact(msgspec.Struct, frozen=True, array_like=True):
    """`signature` is Ed25519 over b"checkrein-pact-v1" + `payload` (a packed PactSet)."""

    payload: bytes
    signature: bytes


def sign(pact_set: PactSet, key: SigningKey) -> bytes:
    """The set as it travels."""
    payload = encode(pact_set)
    return encode(SignedPact(payload, key.sign(DOMAIN + payload).signature))


def verify(signed: bytes, key: bytes) -> PactSet:
    """The set inside, if the server signed it with the private half of `key` (32 bytes). Raises
    PactRefused: garbage or forged."""
    # 1. The size, before anything is read.
    if len(signed) > SET_BYTES_MAX:
        raise PactRefused(GARBAGE, f"{len(signed)} bytes, more than {SET_BYTES_MAX}")
    # 2. The frame.
    try:
        frame = decode(signed, SignedPact)
    except MessageError as error:
        raise PactRefused(GARBAGE, str(error)) from error
    # 3. The signature, before the payload is looked into.
    try:
        VerifyKey(key).verify(DOMAIN + frame.payload, frame.signature)
    except (BadSignatureError, ValueError) as error:
        raise PactRefused(
            FORGED, f"the signature does not fit the server's key: {error}"
        ) from error
    # 4. The payload.
    try:
        return decode(frame.payload, PactSet)
    except MessageError as error:
        raise PactRefused(GARBAGE, str(error)) from error


class PactInbox:
    """Decides which sets one holder takes: genuine, for its environment, never an older after a
    newer one. Pure, not for several threads. Remembers `sets_max` agents; one that is forgotten
    (the longest unheard of) may be told an old set again, which the next `Held` puts right."""

    def __init__(self, key: bytes, environment: str, sets_max: int = SETS_MAX) -> None:
        self.key = key
        self.environment = place_of(environment)
        self._sets_max = sets_max
        self._revisions: OrderedDict[str, int] = OrderedDict()

    def accept(self, data: bytes) -> PactSet:
        """Raises PactRefused."""
        found = verify(data, self.key)
        if found.environment != self.environment:
            raise PactRefused(OTHER_PLACE, f"for {found.environment}, this is {self.environment}")
        held = self._revisions.get(found.agent, 0)
        if found.revision <= held:
            why = REPEATED if found.revision == held else OLD
            raise PactRefused(why, f"revision {found.revision} of {found.agent} after {held}")
        self._revisions[found.agent] = found.revision
        self._revisions.move_to_end(found.agent)
        if len(self._revisions) > self._sets_max:
            self._revisions.popitem(last=False)
        return found

    def revision(self, agent: str) -> int:
        return self._revisions.get(agent, 0)
