"""What control reads back of earlier starts, before its first step."""

import logging
from typing import TypeVar

from checkrein.bus import orders
from checkrein.bus.messages import MessageError, Order, decode, encode
from checkrein.bus.types import Bucket, WrongRevision

_log = logging.getLogger(__name__)
T = TypeVar("T")


async def next_generation(bucket: Bucket) -> int:
    """Takes the next generation of epochs, durably, before any epoch of it is used."""
    while True:
        entry = await bucket.get("generation")
        try:
            if entry is None or entry.value is None:
                await bucket.create("generation", encode(1))
                return 1
            generation = decode(entry.value, int) + 1
            await bucket.update("generation", encode(generation), entry.revision)
            return generation
        except WrongRevision:
            continue


async def read_all(bucket: Bucket, kind: type[T]) -> list[T]:
    """What cannot be read is passed over, and said in the log."""
    found: list[T] = []
    for entry in await bucket.entries():
        try:
            found.append(decode(entry.value or b"", kind))
        except MessageError as error:
            _log.warning("control passes over %s in its buckets: %s", entry.key, error)
    return found


async def levels_in(bucket: Bucket, key: bytes) -> list[Order]:
    """The standing orders, those that were signed with the key."""
    found: list[Order] = []
    for entry in await bucket.entries():
        try:
            found.append(orders.verify(entry.value or b"", key))
        except orders.OrderRefused as error:
            _log.warning("control passes over the level of %s: %s", entry.key, error)
    return found
