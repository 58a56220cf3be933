"""An agent's memory as a mapping: every read and write is recorded, with the hash of the value and
where it came from."""

from collections.abc import Iterator, MutableMapping
from typing import Any

from checkrein.events import types as events
from checkrein.sdk import calls, context, quiet, values


class Memory(MutableMapping[str, Any]):
    """Wraps a mapping (a new dict by default). Recording never raises; what the mapping underneath
    raises comes through.

    Provenance: what `write` was told; else the tool call that the writing code runs in; else the
    run. A value keeps the provenance it was written with, and reads carry it.
    """

    def __init__(self, over: MutableMapping[str, Any] | None = None, *, name: str = "") -> None:
        self._over: MutableMapping[str, Any] = {} if over is None else over
        self._name = name
        self._provenance: dict[str, str] = {}

    def write(self, key: str, value: Any, *, provenance: str = "", attested: bool = False) -> None:
        """Sets a value and says where it came from (`tool:NAME`, `model`, `user`, `run:ID`);
        `attested` when somebody vouches for it."""
        self._over[key] = value
        with quiet.quiet("memory.write"):
            run = context.current()
            provenance = values.clean_text(provenance or _provenance(run.run_id), 500)
            self._provenance[key] = provenance
            _, field, raw = values.packed(value)
            run.record(
                events.MemoryWrite, key=self._key(key), value_hash=values.hash_of(raw),
                value=field, provenance=provenance, attested=attested,
            )  # fmt: skip
            if run.seat.listens:
                run.seat.remembered(self._key(key), values.plain(value), wrote=True)

    def __setitem__(self, key: str, value: Any) -> None:
        self.write(key, value)

    def __getitem__(self, key: str) -> Any:
        try:
            value = self._over[key]
        except KeyError:
            self._read(key, b"", found=False)
            raise
        self._read(key, values.packed(value).raw, found=True)
        with quiet.quiet("memory.read"):
            run = context.current()
            if run.seat.listens:
                run.seat.remembered(self._key(key), values.plain(value), wrote=False)
        return value

    def __delitem__(self, key: str) -> None:
        del self._over[key]
        with quiet.quiet("memory.write"):
            run = context.current()
            self._provenance.pop(key, None)
            run.record(events.MemoryWrite, key=self._key(key), provenance=_provenance(run.run_id))

    def __contains__(self, key: object) -> bool:
        return key in self._over

    def __iter__(self) -> Iterator[str]:
        return iter(self._over)

    def __len__(self) -> int:
        return len(self._over)

    def __repr__(self) -> str:
        return f"<checkrein memory {self._name!r} of {len(self._over)}>"

    def _read(self, key: str, raw: bytes, *, found: bool) -> None:
        with quiet.quiet("memory.read"):
            context.current().record(
                events.MemoryRead, key=self._key(key), found=found,
                value_hash=values.hash_of(raw) if found else "",
                provenance=self._provenance.get(key, ""),
            )  # fmt: skip

    def _key(self, key: object) -> str:
        text = values.clean_text(key, 1_000)
        return f"{self._name}/{text}" if self._name else text


def memory(over: MutableMapping[str, Any] | None = None, *, name: str = "") -> Memory:
    """A mapping whose reads and writes are recorded; over a mapping of your own if you have one."""
    return Memory(over, name=name)


def _provenance(run_id: str) -> str:
    tool = calls.open_tool()
    return f"tool:{tool.name}" if tool is not None else f"run:{run_id}"
