"""Secrets on the disk, and the name by which a server knows a credential's bearer."""

import base64
import json
import os
from pathlib import Path

from checkrein.bus.credentials import Keys, write_once
from checkrein.world import REAL


def test_a_secret_is_made_once_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    left = tmp_path / f".secret.{os.getpid()}"
    left.write_text("half of it, by one who died of a power cut")
    made = write_once(path, lambda: "first")
    assert (made, path.read_text()) == ("first", "first\n")
    assert path.stat().st_mode & 0o777 == 0o600
    assert write_once(path, _never) == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_of_two_that_make_a_secret_at_once_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "secret"

    def slow() -> str:
        path.write_text("the other's\n")
        return "mine"

    assert write_once(path, slow) == "the other's"
    assert list(tmp_path.iterdir()) == [path]


def test_a_credential_knows_the_name_that_the_servers_log(tmp_path: Path) -> None:
    credential = Keys.load_or_create(tmp_path).session("s1", ["bot"], REAL.now_ns() + 10**12)
    part = credential.jwt.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert credential.user == claims["sub"]


def _never() -> str:
    raise AssertionError("it is there already")
