"""Keys that cannot be used are refused with the file that is wrong."""

from pathlib import Path

import pytest

from checkrein.bus.credentials import Keys, KeysError

NAMES = ("operator.seed", "account.seed", "system.seed", "control.seed", "control.pub")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("junk", [b"", b"junk", b"\xff\xfe\xfd", b"ab" * 32])
def test_a_damaged_key_is_named(tmp_path: Path, name: str, junk: bytes) -> None:
    Keys.load_or_create(tmp_path)
    if name == "control.seed":
        (tmp_path / "control.pub").unlink()
    (tmp_path / name).write_bytes(junk)
    if (name, junk) == ("control.seed", b"ab" * 32):
        return  # is a seed
    with pytest.raises(KeysError, match=name):
        Keys.load_or_create(tmp_path)


def test_the_same_keys_come_back(tmp_path: Path) -> None:
    first = Keys.load_or_create(tmp_path)
    again = Keys.load_or_create(tmp_path)
    assert (again.account_id, again.control_key) == (first.account_id, first.control_key)
