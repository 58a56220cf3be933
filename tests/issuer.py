"""An identity provider for tests: a real server on loopback with keys that change when told."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from checkrein.world import REAL

_RSA = {name: rsa.generate_private_key(65537, 2048) for name in ("one", "two")}
"""Made once: they take long."""


def now_s() -> int:
    return REAL.now_ns() // 1_000_000_000


class Issuer:
    """`keys`: private keys by kid; what is published is their public half. `broken`: what it
    answers instead of its key set. `asked`: how often each path was asked for."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str, Any] = {"k1": _RSA["one"]}
        self.broken: web.Response | None = None
        self.asked: dict[str, int] = {}
        self.document: dict[str, Any] = {}
        self.extra_keys: list[dict[str, Any]] = []

    def rotate(self) -> None:
        self.keys = {"k2": _RSA["two"]}

    def token(self, kid: str = "k1", algorithm: str = "RS256", **claims: Any) -> str:
        """A good token, with these claims changed (None: left out)."""
        body = {
            "iss": self.url, "aud": "checkrein", "sub": "svc-1", "iat": now_s(),
            "exp": now_s() + 300, **claims,
        }  # fmt: skip
        body = {name: value for name, value in body.items() if value is not None}
        return jwt.encode(body, self.keys[kid], algorithm, headers={"kid": kid})

    def published(self) -> list[dict[str, Any]]:
        return [jwk(key, kid) for kid, key in self.keys.items()] + self.extra_keys

    async def _discovery(self, request: web.Request) -> web.Response:
        self.asked[request.path] = self.asked.get(request.path, 0) + 1
        return web.json_response(
            self.document or {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        )

    async def _keys(self, request: web.Request) -> web.Response:
        self.asked[request.path] = self.asked.get(request.path, 0) + 1
        if self.broken is not None:
            return web.Response(
                status=self.broken.status, body=self.broken.body, headers=self.broken.headers
            )
        return web.json_response({"keys": self.published()})


def jwk(private: Any, kid: str) -> dict[str, Any]:
    """The public half as a provider publishes it."""
    public = private.public_key()
    if isinstance(private, rsa.RSAPrivateKey):
        found = jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(private, ec.EllipticCurvePrivateKey):
        found = jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(private, ed25519.Ed25519PrivateKey):
        found = jwt.algorithms.OKPAlgorithm.to_jwk(public, as_dict=True)
    else:
        raise TypeError(private)
    return {**found, "kid": kid, "use": "sig"}


def unsigned(header: dict[str, Any], body: dict[str, Any], signature: bytes = b"") -> str:
    """A token put together by hand."""
    parts = [json.dumps(header).encode(), json.dumps(body).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


@asynccontextmanager
async def running_issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", issuer._discovery)
    app.router.add_get("/keys", issuer._keys)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield issuer
    finally:
        await runner.cleanup()
