"""Where control's key lies."""

import os
from pathlib import Path

import pytest

from checkrein.bus.credentials import Keys
from checkrein.bus.messages import Order
from checkrein.bus.orders import OrderRefused
from checkrein.control.signing import KeyFileError, OrderVerifier, load_signer
from checkrein.world import REAL, SimWorld

ORDER = Order(
    command_id="c", session="s", verb="halt", runs=[], reason="", issued_by="", issued_at=1,
    expires_at=0, nonce="n",
)  # fmt: skip


def test_the_key_is_made_once_kept_private_and_its_public_half_written(tmp_path: Path) -> None:
    signer = load_signer(tmp_path / "keys", REAL)
    seed = tmp_path / "keys" / "control.seed"
    assert seed.stat().st_mode & 0o777 == 0o600
    assert load_signer(tmp_path / "keys", SimWorld(1)).public == signer.public
    public = (tmp_path / "keys" / "control.pub").read_text().strip()
    assert OrderVerifier(public).verify(signer.sign(ORDER)) == ORDER
    assert os.listdir(tmp_path / "keys") == ["control.seed", "control.pub"]
    with pytest.raises(OrderRefused):
        OrderVerifier("00" * 32).verify(signer.sign(ORDER))


def test_the_key_of_the_installation_is_used(tmp_path: Path) -> None:
    keys = Keys.load_or_create(tmp_path / "keys")
    assert load_signer(tmp_path / "keys", REAL).public_hex == keys.control_key


@pytest.mark.parametrize("text", ["", "zz", "00" * 31])
def test_a_damaged_key_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "control.seed").write_text(text)
    (tmp_path / "control.seed").chmod(0o600)
    with pytest.raises(KeyFileError, match=r"control\.seed"):
        load_signer(tmp_path, REAL)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    load_signer(tmp_path, REAL)
    (tmp_path / "control.seed").chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_signer(tmp_path, REAL)
