"""Control's signing key: where it lies, and what it signs."""

import os
from pathlib import Path

from nacl.signing import SigningKey

from checkrein.bus import orders, signed_pacts
from checkrein.bus.messages import Order
from checkrein.bus.pacts import PactSet
from checkrein.world import World


class KeyFileError(Exception):
    """The key's files are not usable. Says which file and what to do."""


class OrderSigner:
    """Signs orders with the private key of 32 bytes `seed`."""

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)

    @property
    def public(self) -> bytes:
        return bytes(self._key.verify_key)

    @property
    def public_hex(self) -> str:
        return self.public.hex()

    def sign(self, order: Order) -> bytes:
        return orders.sign(order, self._key)

    def sign_pact(self, pact_set: PactSet) -> bytes:
        return signed_pacts.sign(pact_set, self._key)


class OrderVerifier:
    """Checks orders against control's public key, 64 hex digits."""

    def __init__(self, public_hex: str) -> None:
        self._key = bytes.fromhex(public_hex)

    def verify(self, signed: bytes) -> Order:
        """Raises OrderRefused."""
        return orders.verify(signed, self._key)


def load_signer(keys: Path, world: World) -> OrderSigner:
    """The signer whose seed (64 hex digits) lies in `keys/control.seed`; makes it (mode 0600), and
    `keys/control.pub` beside it, when it is not there. Raises KeyFileError."""
    path = keys / "control.seed"
    try:
        keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _create(path, world.random_bytes(32).hex())
        if path.stat().st_mode & 0o077:
            raise KeyFileError(f"{path} can be read by others: chmod 600 it, or delete it for new")
        seed = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as error:
        raise KeyFileError(f"{path}: {error}; it must hold 64 hex digits") from error
    if len(seed) != 32:
        raise KeyFileError(f"{path} holds {len(seed)} bytes, not 32, as hex")
    signer = OrderSigner(seed)
    public = keys / "control.pub"
    if not public.exists() or public.read_text().strip() != signer.public_hex:
        public.write_text(signer.public_hex + "\n")
    return signer


def _create(path: Path, text: str) -> None:
    """Whole or not at all, and never over one that is there."""
    fresh = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(fresh, path)
    except FileExistsError:
        return
    finally:
        os.unlink(fresh)
