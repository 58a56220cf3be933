"""What can be asked: the history of all events behind one narrow seam.

`open_store(url, world)` opens it: `chdb://PATH` (ClickHouse in this process), `clickhouse://HOST`
(a ClickHouse server), or `memory://`, the in-memory twin.
"""

from checkrein.store.memory import MemoryStore
from checkrein.store.types import Row, RowRefused, Store, StoreError, StoreFull, UnknownQuery
from checkrein.world import World

__all__ = [
    "MemoryStore",
    "Row",
    "RowRefused",
    "Store",
    "StoreError",
    "StoreFull",
    "UnknownQuery",
    "open_store",
]


def open_store(url: str, world: World) -> Store:
    """Opens the store, creating or migrating it. Raises StoreError. The engine (200 MB of library)
    is loaded only here, and only for an URL that needs it."""
    if url.startswith("memory:"):
        return MemoryStore(world)
    from checkrein.store.clickhouse import ClickHouseStore

    return ClickHouseStore(url, world)
