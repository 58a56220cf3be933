"""Who may say and hear what on the buses: keys, and the JWTs that the servers check.

The servers run in NATS's operator mode: they trust one operator key, know two accounts (the
system's and ours) from their configuration, and accept any user whose JWT our account has signed.
So a new agent needs no change at the servers, and a credential carries its own permissions and its
own end: the server cuts the connection when it expires.
"""

import base64
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nkeys

from checkrein.bus import subjects
from checkrein.world import REAL, World

_OPERATOR = nkeys.PREFIX_BYTE_OPERATOR
_ACCOUNT = nkeys.PREFIX_BYTE_ACCOUNT
_USER = nkeys.PREFIX_BYTE_USER
_NO_LIMITS: dict[str, Any] = {
    "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": True,
    "conn": -1, "leaf": -1,
}  # fmt: skip
_JETSTREAM = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}


_DO = "Put it back from a backup, or remove the folder of keys: every client must then connect anew"


class KeysError(Exception):
    """The keys in a data folder are missing in part or unreadable. Says which file."""


@dataclass(frozen=True)
class Credential:
    """A user's JWT and the seed that proves it. Whoever holds both may connect until it expires."""

    jwt: str
    seed: str

    @property
    def user(self) -> str:
        """The public key: the name by which the servers know and log this user."""
        return _public(nkeys.from_seed(self.seed.encode()))

    def sign(self, nonce: str) -> bytes:
        """The answer to the server's challenge."""
        return base64.b64encode(nkeys.from_seed(self.seed.encode()).sign(nonce.encode()))


class Keys:
    """The operator's, accounts' and control's keys of one installation, in `folder` (mode 0700).

    Files: `operator.seed`, `account.seed`, `system.seed` (NATS keys), `control.seed` (Ed25519, hex,
    signs orders) and `control.pub` (its public key, hex). Losing them means that every client must
    connect anew; leaking `account.seed` means that anybody can make a credential.
    """

    def __init__(self, folder: Path, world: World = REAL) -> None:
        self._world = world
        self.folder = folder
        self._operator = self._key("operator.seed", _OPERATOR)
        self._account = self._key("account.seed", _ACCOUNT)
        self._system = self._key("system.seed", _ACCOUNT)

    @classmethod
    def load_or_create(cls, folder: Path, world: World = REAL) -> "Keys":
        """Raises KeysError when a file is there but cannot be used."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, prefix in (
            ("operator.seed", _OPERATOR),
            ("account.seed", _ACCOUNT),
            ("system.seed", _ACCOUNT),
        ):
            write_once(
                folder / name,
                lambda prefix=prefix: nkeys.encode_seed(world.random_bytes(32), prefix).decode(),  # type: ignore[misc] # bound at once
            )
        seed_hex = write_once(folder / "control.seed", lambda: world.random_bytes(32).hex())
        try:
            public = _ed25519_public(seed_hex)
        except (ValueError, TypeError) as error:
            raise KeysError(
                f"cannot use the key in {folder / 'control.seed'}: {error}. {_DO}"
            ) from error
        if write_once(folder / "control.pub", lambda: public, mode=0o644) != public:
            raise KeysError(f"{folder / 'control.pub'} does not belong to control.seed. {_DO}")
        return cls(folder, world)

    @property
    def account_id(self) -> str:
        return _public(self._account)

    @property
    def control_key(self) -> str:
        """The public key, hex, with which orders are checked."""
        return (self.folder / "control.pub").read_text().strip()

    def server_config(self) -> dict[str, str]:
        """What a server must be told: operator JWT, system account, and both accounts' JWTs."""
        system = _public(self._system)
        return {
            "operator": self._signed(
                self._operator, self._operator, "operator",
                {"type": "operator", "version": 2, "system_account": system},
            ),
            "system_account": system,
            "system_jwt": self._account_jwt(self._system, "system", {}),
            "account": self.account_id,
            "account_jwt": self.account_jwt(),
        }  # fmt: skip

    def account_jwt(self, revocations: Mapping[str, int] | None = None) -> str:
        """Our account as the servers are to know it. `revocations`: by a user's public key, the
        second (since 1970) up to which its credentials are void."""
        return self._account_jwt(self._account, "checkrein", dict(_JETSTREAM), revocations)

    def vouches_for(self, jwt: str) -> bool:
        """Whether this reads as a JWT that our operator has signed."""
        try:
            body = jwt.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
            return bool(claims["iss"] == _public(self._operator))
        except (ValueError, LookupError, TypeError):
            return False

    def session(
        self,
        session: str,
        agents: Sequence[str],
        expires_at_ns: int,
        extra_publish: Sequence[str] = (),
    ) -> Credential:
        """The credential of one holder: it may publish the events of its agents, hear its own
        orders and confirmations, report on its own subjects, read its own level; nothing else."""
        publish = [
            subjects.receipts(session),
            subjects.registration(session),
            subjects.beat(session),
            subjects.held(session),
            subjects.ask(session),
            subjects.lease(session),
            f"$JS.API.DIRECT.GET.KV_{subjects.BUCKET_DESIRED}.$KV.{subjects.BUCKET_DESIRED}.{session}.>",
            *extra_publish,
        ]
        subscribe = [
            subjects.command(session), subjects.recall(session), subjects.pact(session),
            subjects.PACTS_ASK, f"{subjects.inbox(session)}.>",
        ]  # fmt: skip
        for agent in agents:
            name = subjects.token(agent)
            publish += [f"ev.{name}.*", f"stored.ask.{name}.*"]
            subscribe.append(f"stored.{name}.*")
        return self._user(session, publish, subscribe, expires_at_ns)

    def role(self, name: str) -> Credential:
        """A credential for one of our own roles: everything in our account."""
        return self._user(f"role-{name}", [">"], [">"], 0)

    def system(self) -> Credential:
        """A credential of the system account: server statistics and nothing of ours."""
        return self._user("system", [">"], [">"], 0, signer=self._system)

    def _user(
        self,
        name: str,
        publish: list[str],
        subscribe: list[str],
        expires_at_ns: int,
        signer: Any = None,
    ) -> Credential:
        user = nkeys.from_seed(nkeys.encode_seed(self._world.random_bytes(32), _USER))
        claims = {
            "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1,
            "pub": {"allow": publish}, "sub": {"allow": subscribe},
        }  # fmt: skip
        signer = signer or self._account
        jwt = self._signed(signer, user, name, claims, expires_at_ns // 1_000_000_000)
        return Credential(jwt, bytes(user.seed).decode())

    def _account_jwt(
        self, key: Any, name: str, jetstream: dict[str, int],
        revocations: Mapping[str, int] | None = None,
    ) -> str:  # fmt: skip
        claims: dict[str, Any] = {
            "type": "account", "version": 2, "limits": {**_NO_LIMITS, **jetstream},
        }  # fmt: skip
        if revocations:
            claims["revocations"] = dict(revocations)
        return self._signed(self._operator, key, name, claims)

    def _signed(
        self, signer: Any, subject: Any, name: str, claims: dict[str, Any], expires_s: int = 0
    ) -> str:
        body: dict[str, Any] = {
            "iat": self._world.now_ns() // 1_000_000_000,
            "iss": _public(signer),
            "name": name,
            "sub": _public(subject),
            "nats": claims,
        }
        if expires_s:
            body["exp"] = expires_s
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
        body["jti"] = base64.b32encode(digest).decode().rstrip("=")
        head = _part({"typ": "JWT", "alg": "ed25519-nkey"})
        text = f"{head}.{_part(body)}"
        return f"{text}.{_base64url(signer.sign(text.encode()))}"

    def _key(self, name: str, prefix: int) -> Any:
        path = self.folder / name
        try:
            seed = path.read_text().strip().encode()
            found, _ = nkeys.decode_seed(seed)
            if found != prefix:
                raise KeysError(f"{path} holds a key of another kind. {_DO}")
            return nkeys.from_seed(seed)
        except (OSError, nkeys.NkeysError, ValueError) as error:
            raise KeysError(f"cannot use the key in {path}: {error}. {_DO}") from error


def write_once(path: Path, make: Callable[[], str], mode: int = 0o600) -> str:
    """The file's text; made if it is not there: whole, durable and with its mode from the start,
    whatever happens meanwhile. Of several that make it at once, one wins."""
    if path.exists():
        try:
            return path.read_text().strip()
        except (OSError, ValueError) as error:
            raise KeysError(f"cannot read the key in {path}: {error}. {_DO}") from error
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        fresh.unlink()
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "w") as file:
        file.write(make() + "\n")
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        os.link(fresh, path)
    fresh.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return path.read_text().strip()


def _ed25519_public(seed_hex: str) -> str:
    from nacl.signing import SigningKey

    return bytes(SigningKey(bytes.fromhex(seed_hex)).verify_key).hex()


def _public(key: Any) -> str:
    return bytes(key.public_key).decode()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _part(value: dict[str, Any]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())
