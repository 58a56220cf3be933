"""Identity providers' tokens against a real provider on loopback: the good, and what is tried."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from tests.issuer import Issuer, jwk, now_s, running_issuer, unsigned

from checkrein.bus import oidc_keys
from checkrein.bus.oidc import TokenRefused, Verified, Verifier
from checkrein.bus.oidc_settings import IdentityError, settings_of
from checkrein.world import REAL

NO_WAIT: dict[str, Any] = {"refetch_s": 0, "keys_fresh_s": 0}


class Clock:
    """Real time, moved by hand."""

    def __init__(self) -> None:
        self.ahead_ns = 0

    def now_ns(self) -> int:
        return REAL.now_ns() + self.ahead_ns

    def monotonic_ns(self) -> int:
        return REAL.monotonic_ns() + self.ahead_ns

    def pass_s(self, seconds: float) -> None:
        self.ahead_ns += round(seconds * 1e9)


def verifier(issuer: Issuer, clock: Any = REAL, **more: Any) -> Verifier:
    general = {name: more.pop(name) for name in list(more) if name.endswith("_s")}
    one = {"name": "corp", "issuer": issuer.url, "audience": ["checkrein"], **more}
    return Verifier(settings_of({"identity": {**general, "issuers": [one]}}), clock)


async def refused(by: Verifier, token: str) -> str:
    with pytest.raises(TokenRefused) as caught:
        await by.verify(token)
    return str(caught.value)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running_issuer() as running:
        yield running


async def test_a_good_token_says_who_it_is(issuer: Issuer) -> None:
    by = verifier(
        issuer, agent_claim="client_id", roles_claim="realm.roles", name_claim="email",
        roles={"sre": "operator", "boss": "admin"},
    )  # fmt: skip
    found = await by.verify(
        issuer.token(client_id="bot", email="ann@example.com", realm={"roles": ["sre", "x", 7]})
    )
    assert found == Verified(
        principal=f"{issuer.url} svc-1", name="corp:ann@example.com", agent="bot",
        roles=("operator",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "roles"),
    [
        (["viewer", "admin"], ("admin", "viewer")), ("approver author", ("approver", "author")),
        (["root", "agent"], ()), ({"admin": True}, ()), (None, ()), ([["admin"]], ()),
    ],
)  # fmt: skip
async def test_roles_called_as_ours_count_only_in_the_claim_that_is_named(
    issuer: Issuer, given: Any, roles: tuple[str, ...]
) -> None:
    found = await verifier(issuer, roles_claim="roles").verify(issuer.token(roles=given))
    without = await verifier(issuer).verify(issuer.token(roles=given))
    assert found is not None
    assert without is not None
    assert (found.roles, without.roles) == (roles, ())


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("ES256", ec.generate_private_key(ec.SECP256R1())),
        ("ES384", ec.generate_private_key(ec.SECP384R1())),
        ("EdDSA", ed25519.Ed25519PrivateKey.generate()), ("PS256", None), ("RS512", None),
    ],
)  # fmt: skip
async def test_every_kind_of_key_that_is_listed(issuer: Issuer, algorithm: str, key: Any) -> None:
    issuer.keys["k9"] = key or issuer.keys["k1"]
    assert await verifier(issuer).verify(issuer.token("k9", algorithm)) is not None


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"aud": "another"}, "not for this server"), ({"aud": None}, "not for this server"),
        ({"aud": []}, "not for this server"), ({"aud": [["checkrein"]]}, "not for this server"),
        ({"exp": now_s() - 61}, "expired"), ({"exp": None}, "`exp`"), ({"exp": True}, "`exp`"),
        ({"exp": "never"}, "`exp`"), ({"exp": 10**400}, "`exp`"),
        ({"nbf": now_s() + 90}, "not valid yet"),
        ({"iat": now_s() + 90}, "in the future"), ({"iat": None}, "`iat`"),
        ({"iat": now_s() - 90_000}, "issued more than"), ({"sub": None}, "no subject"),
        ({"sub": ""}, "no subject"), ({"sub": "s" * 501}, "no subject"),
    ],
)  # fmt: skip
async def test_a_claim_that_is_wrong(issuer: Issuer, claims: dict[str, Any], why: str) -> None:
    token = jwt.PyJWS().encode(
        json.dumps(
            {
                name: value
                for name, value in {
                    "iss": issuer.url, "aud": "checkrein", "sub": "svc-1", "iat": now_s(),
                    "exp": now_s() + 300, **claims,
                }.items()
                if value is not None
            }
        ).encode(),
        issuer.keys["k1"], "RS256", headers={"kid": "k1"},
    )  # fmt: skip
    assert why in await refused(verifier(issuer), token)


async def test_clocks_may_be_a_minute_apart(issuer: Issuer) -> None:
    by = verifier(issuer)
    for claims in (
        {"exp": now_s() - 50}, {"nbf": now_s() + 50}, {"iat": now_s() + 50},
        {"aud": ["another", "checkrein"]},
    ):  # fmt: skip
        assert await by.verify(issuer.token(**claims)) is not None


async def test_no_signature_and_a_shared_key_are_never_accepted(issuer: Issuer) -> None:
    """`alg: none` in all its spellings, and HMAC with the provider's public key as the secret."""
    by = verifier(issuer)
    good = issuer.token()
    header, body = jwt.get_unverified_header(good), jwt.decode(
        good, options={"verify_signature": False}
    )  # fmt: skip
    for algorithm in ("none", "None", "NONE", "", "HS256", "HS512", None, 7, ["RS256"]):
        told = await refused(by, unsigned({**header, "alg": algorithm}, body))
        assert "algorithm" in told
    public = issuer.keys["k1"].public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    head = unsigned({**header, "alg": "HS256"}, body).rsplit(".", 1)[0]
    mac = hmac.new(public, head.encode(), hashlib.sha256).digest()
    forged = unsigned({**header, "alg": "HS256"}, body, mac)
    assert "algorithm" in await refused(by, forged)


async def test_a_published_shared_key_or_a_weak_one_verifies_nothing(issuer: Issuer) -> None:
    secret = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"
    issuer.extra_keys = [{"kty": "oct", "k": secret, "kid": "shared"}]
    weak = rsa.generate_private_key(65537, 1024)  # what must not be accepted
    issuer.keys["weak"] = weak
    by = verifier(issuer, **NO_WAIT)
    body = {"iss": issuer.url, "aud": "checkrein", "sub": "s", "iat": now_s(), "exp": now_s() + 9}
    assert "no key" in await refused(by, unsigned({"alg": "RS256", "kid": "shared"}, body, b"x"))
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = issuer.token("weak")
    assert "signature" in await refused(by, token)


async def test_a_signature_by_another_key_or_a_changed_body_does_not_hold(issuer: Issuer) -> None:
    by = verifier(issuer)
    head, body, mark = issuer.token().split(".")
    other = issuer.token(sub="admin").split(".")[1]
    assert "signature" in await refused(by, f"{head}.{other}.{mark}")
    stranger = jwt.encode(
        {"iss": issuer.url}, rsa.generate_private_key(65537, 2048), "RS256", headers={"kid": "k1"}
    )
    assert "signature" in await refused(by, stranger)
    assert await by.verify(f"{head}.{body}.{mark}") is not None


@pytest.mark.parametrize(
    "token",
    ["", "a.b.c", "..", "a.b", "a.b.c.d", "e30.e30.", "\ud800.a.b", "é.é.é", "W10.W10.x",
     "eyJhIjoxfQ." + "[" * 9_000 + ".x", "x" * 20_000 + ".a.b"],
)  # fmt: skip
async def test_what_is_no_token_is_nobodys(issuer: Issuer, token: str) -> None:
    assert await verifier(issuer).verify(token) is None
    assert issuer.asked == {}


async def test_a_key_that_stands_twice_is_no_token(issuer: Issuer) -> None:
    twice = b'{"iss": "%s", "iss": "https://other"}' % issuer.url.encode()
    token = jwt.PyJWS().encode(twice, issuer.keys["k1"], "RS256", headers={"kid": "k1"})
    assert await verifier(issuer).verify(token) is None


async def test_other_issuers_are_not_asked(issuer: Issuer) -> None:
    by = verifier(issuer)
    for claimed in (f"{issuer.url}/", "https://evil.example", None, [issuer.url], ""):
        assert await by.verify(issuer.token(iss=claimed) if claimed is None or isinstance(
            claimed, str) else unsigned({"alg": "RS256"}, {"iss": claimed})) is None  # fmt: skip
    assert issuer.asked == {}


async def test_what_the_header_asks_for_is_not_done(issuer: Issuer) -> None:
    by = verifier(issuer)
    body = {"iss": issuer.url}
    evil = jwk(ec.generate_private_key(ec.SECP256R1()), "mine")
    for header in (
        {"alg": "RS256", "kid": "k1", "crit": ["exp"]}, {"alg": "RS256", "kid": ["k1"]},
        {"alg": "ES256", "kid": "mine", "jwk": evil, "jku": "http://127.0.0.1:1/keys"},
        {"alg": "RS256", "kid": "../../etc/passwd"}, {"alg": "ES256", "kid": "k1"},
    ):  # fmt: skip
        await refused(by, unsigned(header, body, b"x"))


# -- keys that change, and a provider that is away ----------------------------------------------


async def test_new_keys_are_asked_for_and_old_ones_end(issuer: Issuer) -> None:
    clock = Clock()
    by = verifier(issuer, clock)
    old = issuer.token()
    assert await by.verify(old) is not None
    issuer.rotate()
    clock.pass_s(11)
    assert await by.verify(issuer.token("k2")) is not None
    assert "has no key" in await refused(by, old)


async def test_a_key_taken_out_of_the_set_ends_within_five_minutes(issuer: Issuer) -> None:
    clock = Clock()
    by = verifier(issuer, clock)
    assert await by.verify(issuer.token()) is not None
    stolen = issuer.token(exp=now_s() + 3_600)
    issuer.rotate()
    clock.pass_s(301)
    assert "has no key" in await refused(by, stolen)


async def test_a_flood_of_unknown_keys_asks_once(issuer: Issuer) -> None:
    clock = Clock()
    by = verifier(issuer, clock)
    body = {"iss": issuer.url}
    flood = [unsigned({"alg": "RS256", "kid": f"k-{n}"}, body, b"x") for n in range(200)]
    await asyncio.gather(*(refused(by, token) for token in flood))
    assert issuer.asked["/keys"] == 1
    clock.pass_s(11)
    for token in flood[:20]:
        await refused(by, token)
    assert issuer.asked["/keys"] == 2
    assert await by.verify(issuer.token()) is not None, "the good ones go on"


async def test_a_provider_that_is_away_is_done_without_for_a_day(issuer: Issuer) -> None:
    clock = Clock()
    by = verifier(issuer, clock)
    assert await by.verify(issuer.token()) is not None
    issuer.broken = web.Response(status=503)
    clock.pass_s(86_000)
    later = now_s() + 86_000
    assert await by.verify(issuer.token(iat=later, exp=later + 300)) is not None
    clock.pass_s(1_000)
    later += 1_000
    told = await refused(by, issuer.token(iat=later, exp=later + 300))
    assert "are not known" in told
    assert "503" in told
    issuer.broken = None
    clock.pass_s(11)
    assert await by.verify(issuer.token(iat=later, exp=later + 300)) is not None


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(status=500), web.Response(status=302, headers={"Location": "/elsewhere"}),
        web.Response(body=b"no json"), web.Response(body=b"[]"), web.Response(body=b'{"keys": 7}'),
        web.Response(body=b"["*100_000), web.Response(body=b" " * 600_000),
        web.Response(body=b'{"keys": [7, null, {"kty": "RSA", "kid": "k1"}]}'),
        web.Response(body=b"x", headers={"Content-Encoding": "gzip"}),
    ],
)  # fmt: skip
async def test_a_key_set_that_is_no_key_set(issuer: Issuer, answer: web.Response) -> None:
    issuer.broken = answer
    by = verifier(issuer, **NO_WAIT)
    await refused(by, issuer.token())
    issuer.broken = None
    assert await by.verify(issuer.token()) is not None


async def test_a_discovery_document_of_another_issuer(issuer: Issuer) -> None:
    by = verifier(issuer, **NO_WAIT)
    for wrong in (
        {"issuer": "https://other.example", "jwks_uri": f"{issuer.url}/keys"},
        {"issuer": issuer.url, "jwks_uri": "http://192.0.2.1/keys"},
        {"issuer": issuer.url, "jwks_uri": "file:///etc/passwd"}, {"issuer": issuer.url},
    ):  # fmt: skip
        issuer.document = wrong
        await refused(by, issuer.token())
    assert "/keys" not in issuer.asked


async def test_a_provider_that_hangs_is_given_up(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc_keys, "FETCH_S", 0.05)

    async def hang(url: str) -> bytes:
        await asyncio.Event().wait()
        return b""

    one = {"name": "corp", "issuer": issuer.url, "audience": ["checkrein"]}
    by = Verifier(settings_of({"identity": {"issuers": [one]}}), REAL, hang)
    assert "no answer in time" in await refused(by, issuer.token())


async def test_a_provider_that_is_not_there(issuer: Issuer) -> None:
    token = issuer.token()
    by = verifier(issuer)
    by.keys[issuer.url]._fetch = lambda url: oidc_keys.fetch("http://127.0.0.1:1/")
    assert "127.0.0.1:1" in await refused(by, token)


# -- settings -----------------------------------------------------------------------------------

GOOD = {"name": "corp", "issuer": "https://i.example", "audience": ["c"]}


def test_nothing_said_means_nobody_is_believed() -> None:
    assert settings_of({}).issuers == []


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"issuers": [{**GOOD, "issuer": "http://i.example"}]}, "https"),
        ({"issuers": [{**GOOD, "issuer": "https://u:p@i.example"}]}, "https"),
        ({"issuers": [{**GOOD, "issuer": "https://["}]}, "https"),
        ({"issuers": [{**GOOD, "audience": []}]}, "audience"),
        ({"issuers": [{**GOOD, "algorithms": ["HS256"]}]}, "HS256"),
        ({"issuers": [{**GOOD, "algorithms": ["none"]}]}, "none"),
        ({"issuers": [{**GOOD, "roles": {"a": "root"}, "roles_claim": "r"}]}, "root"),
        ({"issuers": [{**GOOD, "roles": {"a": "admin"}}]}, "roles_claim"),
        ({"issuers": [{**GOOD, "name": "a b"}]}, "name"),
        ({"issuers": [GOOD, GOOD]}, "same"),
        ({"issuers": [{**GOOD, "audiences": 1}]}, "audiences"),
        ({"clock_skew_s": -1}, "clock_skew_s"), ({"clock_skew_s": "x"}, "clock_skew_s"),
        ({"skew": 1}, "skew"), ("x", "identity"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_used_is_named(settings: Any, why: str) -> None:
    with pytest.raises(IdentityError, match=why):
        settings_of({"identity": settings})
